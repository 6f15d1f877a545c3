//! Headers of tar archives in the `ustar` form, written and read.

use std::io;

/// Everything in an archive begins at a multiple of this.
pub const BLOCK: usize = 512;
/// Eleven octal digits.
const SIZE_MAX: u64 = 0o77_777_777_777;

/// What a header says of the file behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub name: String,
    pub size: u64,
    pub time_s: u64,
}

/// A header of a file that only its owner may read.
pub fn header(name: &str, size: u64, time_s: u64) -> io::Result<[u8; BLOCK]> {
    if name.len() > 99 {
        return Err(io::Error::other(format!("the name is too long for the archive: {name}")));
    }
    if size > SIZE_MAX {
        return Err(io::Error::other(format!("{name} is too large for the archive: {size} bytes")));
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &str| {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000600");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, &format!("{:011o}", time_s & SIZE_MAX));
    // The checksum counts itself as spaces.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\u{0} ").as_bytes());
    Ok(block)
}

/// What a header says; nothing when [`header`] would have written it in any other way.
pub fn read_header(block: &[u8; BLOCK]) -> Option<Head> {
    let text = |at: usize, length: usize| {
        let field = &block[at..at + length];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(length);
        std::str::from_utf8(&field[..end]).ok()
    };
    let number = |at: usize| u64::from_str_radix(text(at, 12)?, 8).ok();
    let head = Head { name: text(0, 100)?.into(), size: number(124)?, time_s: number(136)? };
    (header(&head.name, head.size, head.time_s).ok()? == *block).then_some(head)
}

/// Zeroes behind a file of that size.
pub fn padding(size: u64) -> usize {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_any_changed_bit_is_seen() {
        let head = Head { name: "pki/ca.key".into(), size: 4_000_000_000, time_s: 1_795_437_605 };
        let block = header(&head.name, head.size, head.time_s).unwrap();
        assert_eq!(read_header(&block), Some(head.clone()));
        for at in 0..BLOCK {
            for bit in 0..8 {
                let mut changed = block;
                changed[at] ^= 1 << bit;
                assert_eq!(read_header(&changed), None, "byte {at}, bit {bit}");
            }
        }
        assert_eq!(read_header(&[0; BLOCK]), None);
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
        assert!(header(&"x".repeat(100), 0, 0).is_err());
        assert!(header("x", SIZE_MAX + 1, 0).is_err());
    }
}
