//! Reading and writing the few shapes that messages are made of.

use bytes::{BufMut, Bytes, BytesMut};

use super::{VALUE_BYTES_MAX, WORD_BYTES, WireError};

/// Reads fields from a received body; blobs are slices of it.
#[derive(Debug, Clone)]
pub struct Reader {
    bytes: Bytes,
}

impl Reader {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: Bytes) -> Reader {
        Reader { bytes }
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: u64, field: &'static str) -> Result<Bytes, WireError> {
        let left = self.bytes.len() as u64;
        if count > left {
            return Err(WireError::Short { field, needed: count, left });
        }
        Ok(self.bytes.split_to(count as usize))
    }

    /// Leaves out `count` bytes, or what is there of them.
    fn skip_padding(&mut self, count: usize) {
        let count = count.min(self.bytes.len());
        let _ = self.bytes.split_to(count);
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(self.take(1, field)?[0])
    }

    /// Four bytes.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        let mut word = [0; 4];
        word.copy_from_slice(&self.take(4, field)?);
        Ok(u32::from_le_bytes(word))
    }

    /// A word.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        let mut word = [0; WORD_BYTES];
        word.copy_from_slice(&self.take(WORD_BYTES as u64, field)?);
        Ok(u64::from_le_bytes(word))
    }

    /// The next word, without reading it.
    pub fn peek_u64(&self) -> Option<u64> {
        let word = self.bytes.get(..WORD_BYTES)?;
        Some(u64::from_le_bytes(word.try_into().ok()?))
    }

    /// A text up to its NUL.
    pub fn text(&mut self, field: &'static str) -> Result<String, WireError> {
        let end = self.bytes.iter().position(|b| *b == 0);
        let end = end.ok_or(WireError::Unterminated { field })?;
        let text = std::str::from_utf8(&self.bytes[..end]);
        let text = text.map_err(|_| WireError::NotUtf8 { field })?.to_string();
        self.skip_padding(padded(end + 1));
        Ok(text)
    }

    /// A blob with its length before it.
    pub fn blob(&mut self, field: &'static str) -> Result<Bytes, WireError> {
        let length = self.u64(field)?;
        let blob = self.take(length, field)?;
        self.skip_padding(padded(blob.len()) - blob.len());
        Ok(blob)
    }

    /// Fails when anything is left.
    pub fn end(self, message: &'static str) -> Result<(), WireError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(WireError::Trailing { message, left }),
        }
    }
}

/// Appends fields to a body.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut BytesMut,
    /// Where the body began, so that padding counts from there.
    start: usize,
}

impl<'a> Writer<'a> {
    /// Appends to `bytes`.
    pub fn new(bytes: &'a mut BytesMut) -> Writer<'a> {
        let start = bytes.len();
        Writer { bytes, start }
    }

    /// Bytes written so far.
    pub fn written(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.put_u8(value);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.put_u32_le(value);
    }

    /// A word.
    pub fn u64(&mut self, value: u64) {
        self.bytes.put_u64_le(value);
    }

    /// Zeros up to the next word.
    pub fn pad(&mut self) {
        let missing = padded(self.written()) - self.written();
        self.bytes.put_bytes(0, missing);
    }

    /// A text and its NUL; a NUL inside is refused, since the other side would cut the text there.
    pub fn text(&mut self, value: &str, field: &'static str) -> Result<(), WireError> {
        bounded(value.len(), field)?;
        if let Some(at) = value.bytes().position(|b| b == 0) {
            return Err(WireError::Nul { field, at });
        }
        self.bytes.put_slice(value.as_bytes());
        self.bytes.put_u8(0);
        self.pad();
        Ok(())
    }

    /// A blob with its length before it.
    pub fn blob(&mut self, value: &[u8], field: &'static str) -> Result<(), WireError> {
        bounded(value.len(), field)?;
        self.u64(value.len() as u64);
        self.bytes.put_slice(value);
        self.pad();
        Ok(())
    }
}

fn bounded(length: usize, what: &'static str) -> Result<(), WireError> {
    if length <= VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(WireError::TooLarge { what, value: length as u64, max: VALUE_BYTES_MAX as u64 })
}

/// The length up to the next word.
fn padded(length: usize) -> usize {
    length.next_multiple_of(WORD_BYTES)
}
