//! Which keys a request means.

use std::ops::Bound;

use bytes::Bytes;

/// A set of neighbouring keys, as `key` and `range_end` of the protocol say it.
///
/// | `range_end` | meaning |
/// | --- | --- |
/// | empty | the one key |
/// | `"\0"` | every key from `key` on |
/// | else | from `key` up to, but without, `range_end` |
///
/// ```
/// use skiff_datastore::KeyRange;
/// let range = KeyRange::from_wire("/pods/".into(), "/pods0".into());
/// assert!(range.contains(b"/pods/a") && !range.contains(b"/services/a"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    pub start: Bytes,
    pub end: End,
}

/// Where a [`KeyRange`] ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The range is its first key.
    Single,
    /// The range has no end.
    Open,
    /// The range ends before this key.
    Before(Bytes),
}

impl KeyRange {
    /// Reads the protocol's pair of fields.
    pub fn from_wire(key: Bytes, range_end: Bytes) -> KeyRange {
        let end = match range_end.as_ref() {
            [] => End::Single,
            [0] => End::Open,
            _ => End::Before(range_end),
        };
        KeyRange { start: key, end }
    }

    /// The range that holds only `key`.
    pub fn single(key: Bytes) -> KeyRange {
        KeyRange { start: key, end: End::Single }
    }

    /// Every key there is.
    pub fn all() -> KeyRange {
        KeyRange { start: Bytes::new(), end: End::Open }
    }

    /// Every key there is, as the protocol's pair of fields.
    pub fn all_on_wire() -> (Bytes, Bytes) {
        (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"))
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == self.start,
            End::Open => key >= self.start.as_ref(),
            End::Before(end) => key >= self.start.as_ref() && key < end.as_ref(),
        }
    }

    /// Whether no key can be in the range.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.start)
    }

    /// Whether some key can be in both ranges.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        if self.is_empty() || other.is_empty() {
            return false;
        }
        self.starts_before_end_of(other) && other.starts_before_end_of(self)
    }

    fn starts_before_end_of(&self, other: &KeyRange) -> bool {
        match &other.end {
            End::Single => self.start <= other.start,
            End::Open => true,
            End::Before(end) => self.start < *end,
        }
    }

    /// The bounds to walk an ordered map with. An empty range gives bounds
    /// that hold nothing.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let start = Bound::Included(self.start.as_ref());
        let end = match &self.end {
            End::Single => Bound::Included(self.start.as_ref()),
            End::Open => Bound::Unbounded,
            End::Before(end) if *end <= self.start => {
                return (start, Bound::Excluded(self.start.as_ref()));
            }
            End::Before(end) => Bound::Excluded(end.as_ref()),
        };
        (start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_wire(start.into(), end.into())
    }

    #[test]
    fn wire_pairs_mean_what_etcd_means() {
        assert!(range("a", "").contains(b"a"));
        assert!(!range("a", "").contains(b"aa"));
        assert!(range("a", "\0").contains(b"zz"));
        assert!(!range("b", "\0").contains(b"a"));
        assert!(range("a", "c").contains(b"b"));
        assert!(!range("a", "c").contains(b"c"));
        assert!(range("c", "a").is_empty());
    }

    #[test]
    fn overlap_is_symmetric_and_exact() {
        let cases = [
            (range("a", ""), range("a", ""), true),
            (range("a", ""), range("a", "b"), true),
            (range("b", ""), range("a", "b"), false),
            (range("a", "c"), range("b", "d"), true),
            (range("a", "b"), range("b", "c"), false),
            (range("a", "\0"), range("x", ""), true),
            (range("x", "\0"), range("a", "c"), false),
            (range("c", "a"), range("a", "z"), false),
        ];
        for (left, right, expected) in cases {
            assert_eq!(left.overlaps(&right), expected, "{left:?} {right:?}");
            assert_eq!(right.overlaps(&left), expected, "{right:?} {left:?}");
        }
    }
}
