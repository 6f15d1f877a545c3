//! Data that is kept in one object of the cluster, compressed: manifests become a tenth.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest data of one object that the API server takes, with some room around it.
pub const PACKED_BYTES_MAX: usize = 900 << 10;
/// Largest data that is read back, in bytes: nobody's zeros fill our memory.
const BYTES_MAX: u64 = 64 << 20;

/// `None`: it is too large for one object.
pub fn pack<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&serde_json::to_vec(value).ok()?).ok()?;
    packed.finish().ok().filter(|packed| packed.len() <= PACKED_BYTES_MAX)
}

/// `None`: it is not what was packed.
pub fn unpack<T: DeserializeOwned>(packed: &[u8]) -> Option<T> {
    let mut text = Vec::new();
    GzDecoder::new(packed).take(BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_and_what_is_too_large_is_not_packed() {
        let text = "a manifest ".repeat(100_000);
        let packed = pack(&text).unwrap();
        assert!(packed.len() < text.len() / 10);
        assert_eq!(unpack::<String>(&packed), Some(text));
        assert_eq!(unpack::<String>(b"damaged"), None);
        // Numbers that do not repeat hardly shrink.
        let mut word = 1u64;
        let noise: Vec<u64> = std::iter::repeat_with(|| {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word
        })
        .take(200_000)
        .collect();
        assert!(pack(&noise).is_none());
    }
}
