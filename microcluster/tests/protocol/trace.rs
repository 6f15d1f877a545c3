//! What happened, as a number that tells two histories apart, and in words when asked for.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write};
use std::rc::Rc;

/// FNV-1a.
struct Digest(u64);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

/// See the module's words. Cheap to clone.
#[derive(Clone)]
pub struct Trace(Rc<Inner>);

struct Inner {
    digest: Cell<u64>,
    words: Option<RefCell<String>>,
}

impl Trace {
    pub fn new(in_words: bool) -> Self {
        let words = in_words.then(RefCell::default);
        Self(Rc::new(Inner { digest: Cell::new(0xcbf2_9ce4_8422_2325), words }))
    }

    pub fn note(&self, now_us: u64, what: fmt::Arguments<'_>) {
        let mut digest = Digest(self.0.digest.get());
        let _ = writeln!(digest, "{now_us} {what}");
        self.0.digest.set(digest.0);
        if let Some(words) = &self.0.words {
            let (seconds, rest) = (now_us / 1_000_000, now_us % 1_000_000);
            let _ = writeln!(words.borrow_mut(), "{seconds:>7}.{rest:06} {what}");
        }
    }

    pub fn digest(&self) -> u64 {
        self.0.digest.get()
    }

    pub fn words(&self) -> String {
        self.0.words.as_ref().map(|words| words.borrow().clone()).unwrap_or_default()
    }
}
