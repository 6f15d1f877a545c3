//! Pages of the database that hold nothing: when they are given back.
//!
//! What is deleted leaves free pages behind, which the next rows take. After a compaction of much
//! they are more than will be taken soon, and each of them costs memory on every member, and time and disk in
//! every snapshot. Giving one back costs about one written page, that of the last page which moves into
//! its place; so it is done only when most of the database is free, and then for nearly all of it:
//!
//! ```text
//! free   0 ........ 1/8 ........ 1/2 ........ 1
//!        ends here ──┘            └── begins above
//! ```
//!
//! Whoever writes and compacts a constant amount stays below and moves nothing.

/// Fewer are not worth it, however small the database is: 4 MiB.
const FREE_PAGES_MIN: u64 = 1024;

/// How many pages there are, and how many of them are free.
pub const QUERY: &str = "SELECT (SELECT page_count FROM pragma_page_count), \
     (SELECT freelist_count FROM pragma_freelist_count)";

/// How the pages of the database are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub pages: u64,
    pub free: u64,
}

impl Space {
    /// Whether pages are worth giving back, given that some already were just before.
    pub fn is_worth_giving_back(self, is_under_way: bool) -> bool {
        if is_under_way {
            return self.free > self.pages / 8;
        }
        self.free >= FREE_PAGES_MIN && self.free > self.pages / 2
    }
}

/// Gives back up to so many pages. It answers with a row for each.
pub fn vacuum(pages_max: u32) -> String {
    // Without a limit, as with one of 0, it would be all of them.
    format!("PRAGMA incremental_vacuum({})", pages_max.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_given_back_when_most_are_free_and_then_nearly_all() {
        let worth =
            |pages, free, is_under_way| Space { pages, free }.is_worth_giving_back(is_under_way);
        assert!(!worth(10_000, 5_000, false));
        assert!(worth(10_000, 5_001, false));
        assert!(worth(100_000, 12_501, true));
        assert!(!worth(100_000, 12_500, true));
        assert!(!worth(1_100, FREE_PAGES_MIN - 1, false));
        assert!(worth(1_100, FREE_PAGES_MIN - 1, true));
        assert!(!worth(0, 0, true));
    }
}
