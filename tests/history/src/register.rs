//! Whether what clients saw of one key fits a single register that does one
//! thing after the other (Wing and Gong's search, with the memory of Lowe).
//!
//! ```text
//!   write 1 |-----|            fits: write 1, read 1
//!   read 1       |----|
//!   read 0             |--|    does not: the write was over before
//! ```

use std::collections::BTreeSet;

/// What a key holds; values are unique.
pub type Held = Option<u64>;

/// What a client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Read(Held),
    Write(Held),
    /// Writes if the key holds `from`; whether it did, when that is known.
    Swap {
        from: Held,
        to: u64,
        done: Option<bool>,
    },
}

/// When, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub begin: u64,
    /// Missing when nobody knows whether it was done.
    pub end: Option<u64>,
    pub action: Action,
}

/// Which operations have been put in order: all before a place, and some behind.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Done {
    before: usize,
    more: BTreeSet<usize>,
}

impl Done {
    fn has(&self, at: usize) -> bool {
        at < self.before || self.more.contains(&at)
    }

    fn with(&self, at: usize) -> Done {
        let mut done = self.clone();
        done.more.insert(at);
        while done.more.remove(&done.before) {
            done.before += 1;
        }
        done
    }
}

/// Whether there is an order that explains everything, beginning with nothing.
pub fn is_linearizable(operations: &[Operation]) -> bool {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|one| one.begin);
    let mut seen: BTreeSet<(Done, Held)> = BTreeSet::new();
    let mut open: Vec<(Done, Held)> = vec![(Done::default(), None)];
    while let Some((done, held)) = open.pop() {
        if !seen.insert((done.clone(), held)) {
            continue;
        }
        let is_left = |at: &usize| !done.has(*at);
        let mut first_end = None;
        // Whatever begins behind the first end has to come later.
        let mut next = Vec::new();
        for at in (done.before..operations.len()).filter(is_left) {
            if first_end.is_some_and(|end| operations[at].begin > end) {
                break;
            }
            let ends = [first_end, operations[at].end];
            first_end = ends.into_iter().flatten().min();
            next.push(at);
        }
        let Some(first_end) = first_end else { return true };
        for at in next.into_iter().rev().filter(|at| operations[*at].begin <= first_end) {
            if let Some(held) = apply(operations[at].action, held) {
                open.push((done.with(at), held));
            }
        }
    }
    false
}

/// What the key holds afterwards; nothing when the action can't come here.
fn apply(action: Action, held: Held) -> Option<Held> {
    match action {
        Action::Read(seen) => (seen == held).then_some(held),
        Action::Write(value) => Some(value),
        Action::Swap { from, to, done } => match (held == from, done) {
            (true, Some(true) | None) => Some(Some(to)),
            (false, Some(false) | None) => Some(held),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: u64, end: u64, action: Action) -> Operation {
        Operation { begin, end: Some(end), action }
    }

    fn unknown(begin: u64, action: Action) -> Operation {
        Operation { begin, end: None, action }
    }

    #[test]
    fn histories_that_fit_a_register_are_accepted() {
        for history in [
            vec![at(1, 2, Action::Read(None)), at(3, 4, Action::Write(Some(1)))],
            // A read beside a write sees it or not.
            vec![at(1, 5, Action::Write(Some(1))), at(2, 3, Action::Read(None))],
            vec![at(1, 5, Action::Write(Some(1))), at(2, 3, Action::Read(Some(1)))],
            // What is unknown may happen late, or never.
            vec![
                unknown(1, Action::Write(Some(1))),
                at(2, 3, Action::Write(Some(2))),
                at(4, 5, Action::Read(Some(2))),
                at(6, 7, Action::Read(Some(1))),
            ],
            vec![unknown(1, Action::Write(Some(1))), at(2, 3, Action::Read(None))],
            vec![
                at(1, 2, Action::Write(Some(1))),
                at(3, 9, Action::Swap { from: Some(1), to: 2, done: Some(true) }),
                at(4, 8, Action::Swap { from: Some(1), to: 3, done: Some(false) }),
                at(10, 11, Action::Read(Some(2))),
            ],
        ] {
            assert!(is_linearizable(&history), "{history:?}");
        }
    }

    #[test]
    fn histories_that_fit_no_register_are_refused() {
        for history in [
            // A stale read.
            vec![at(1, 2, Action::Write(Some(1))), at(3, 4, Action::Read(None))],
            // A lost write.
            vec![
                at(1, 2, Action::Write(Some(1))),
                at(3, 4, Action::Write(Some(2))),
                at(5, 6, Action::Read(Some(1))),
            ],
            // Time goes back between two reads.
            vec![
                at(1, 9, Action::Write(Some(1))),
                at(2, 3, Action::Read(Some(1))),
                at(4, 5, Action::Read(None)),
            ],
            // A value out of nowhere.
            vec![at(1, 2, Action::Read(Some(7)))],
            // A write that happens twice.
            vec![
                at(1, 2, Action::Write(Some(1))),
                at(3, 4, Action::Write(Some(2))),
                at(5, 6, Action::Read(Some(2))),
                at(7, 8, Action::Read(Some(1))),
            ],
            // Two who both swapped the same.
            vec![
                at(1, 9, Action::Swap { from: None, to: 1, done: Some(true) }),
                at(1, 9, Action::Swap { from: None, to: 2, done: Some(true) }),
            ],
            // Something of unknown outcome that was seen before it began.
            vec![at(1, 2, Action::Read(Some(1))), unknown(3, Action::Write(Some(1)))],
        ] {
            assert!(!is_linearizable(&history), "{history:?}");
        }
    }
}
