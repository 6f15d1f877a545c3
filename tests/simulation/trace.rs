//! What happened, line by line: two runs of a seed must tell the same.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// A shared list of lines, each with its time.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Vec<String>>>, Instant);

impl Trace {
    /// An empty one that begins now.
    pub fn begin() -> Trace {
        Trace(Arc::default(), Instant::now())
    }

    /// Notes a line.
    pub fn note(&self, line: impl AsRef<str>) {
        let at = self.1.elapsed().as_micros();
        self.0.lock().unwrap().push(format!("{at:>9} {}", line.as_ref()));
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    /// A number that stands for the text (FNV-1a).
    pub fn digest(&self) -> u64 {
        let text = self.text();
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}
