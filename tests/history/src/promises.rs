//! The promises that every history must keep, each with its name.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::record::{Came, Request, Told, Watched, Wish};
use crate::register::{Action, Held, Operation, is_linearizable};

/// Keys that clients use.
pub const KEYS: usize = 6;

/// The name of a key.
pub fn key_name(key: usize) -> String {
    format!("key-{key}")
}

/// What was committed: the truth that everything else is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Events of each revision, in order.
    pub events: BTreeMap<i64, Vec<(String, Held)>>,
    pub head: i64,
}

/// All that is promised of requests and watches, held against the truth.
pub fn check(requests: &[Request], watched: &[Watched], truth: &Truth) -> Vec<String> {
    let mut broken = Vec::new();
    check_dense(truth, &mut broken);
    check_writes(requests, truth, &mut broken);
    check_times(requests, &mut broken);
    check_reads(requests, truth, &mut broken);
    check_registers(requests, truth, &mut broken);
    watched.iter().for_each(|one| check_watch(one, truth, &mut broken));
    broken
}

/// `revisions-dense-unique`: every revision up to the last is a change.
fn check_dense(truth: &Truth, broken: &mut Vec<String>) {
    let holes: Vec<i64> = (2..=truth.head).filter(|at| !truth.events.contains_key(at)).collect();
    if !holes.is_empty() || truth.events.keys().next_back().is_some_and(|last| *last > truth.head) {
        broken.push(format!("revisions-dense-unique: up to {} are missing {holes:?}", truth.head));
    }
}

/// The number that a value is.
pub fn number(value: &Bytes) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// `linearizable`: each key is a register, whatever revisions say. Of what
/// nobody was told, the log says whether it happened, and before what.
fn check_registers(requests: &[Request], truth: &Truth, broken: &mut Vec<String>) {
    let answered = requests.iter().filter_map(|one| match one.came {
        Came::Done { revision, .. } => Some((revision, one.end)),
        _ => None,
    });
    let answered: Vec<(i64, u64)> = answered.collect();
    for key in 0..KEYS {
        let mut places: BTreeMap<u64, i64> = BTreeMap::new();
        for (revision, events) in &truth.events {
            let of_key = events.iter().filter(|(name, _)| *name == key_name(key));
            places.extend(of_key.filter_map(|(_, held)| Some(((*held)?, *revision))));
        }
        let seen_by = |value: u64| {
            let revision = places.get(&value)?;
            let later = answered.iter().filter(|(seen, _)| seen >= revision);
            Some(later.map(|(_, end)| *end).min().unwrap_or(u64::MAX))
        };
        let of_key = requests.iter().filter_map(|one| operation(one, key, seen_by));
        let operations: Vec<Operation> = of_key.collect();
        if !is_linearizable(&operations) {
            broken.push(format!("linearizable: no order explains what was seen of key {key}"));
        }
    }
}

fn operation(
    request: &Request,
    key: usize,
    seen_by: impl Fn(u64) -> Option<u64>,
) -> Option<Operation> {
    let begin = request.begin;
    let (swapped, read) = match &request.came {
        Came::Refused => return None,
        Came::Unknown => (None, None),
        Came::Done { swapped, read, .. } => (Some(*swapped), Some(read)),
    };
    let (action, value) = match &request.wish {
        Wish::Put { keys, value } if keys.contains(&key) => {
            (Action::Write(Some(*value)), Some(*value))
        }
        Wish::Delete { key: of } if *of == key => (Action::Write(None), None),
        Wish::Swap { key: of, from, to } if *of == key => {
            let done = swapped.or(Some(true));
            (Action::Swap { from: *from, to: *to, done }, Some(*to))
        }
        Wish::ReadAll => (Action::Read(*read?.get(key)?), None),
        _ => return None,
    };
    let end = match (&request.came, value) {
        (Came::Unknown, Some(value)) => Some(seen_by(value)?),
        (Came::Unknown, None) => None,
        _ => Some(request.end),
    };
    Some(Operation { begin, end, action })
}

/// `acknowledged-writes-stay`, `refused-writes-leave-nothing`,
/// `writes-happen-once`: what was said of a write is true of the log.
fn check_writes(requests: &[Request], truth: &Truth, broken: &mut Vec<String>) {
    let mut written: BTreeMap<(String, u64), Vec<i64>> = BTreeMap::new();
    for (revision, events) in &truth.events {
        for (key, held) in events {
            if let Some(value) = held {
                written.entry((key.clone(), *value)).or_default().push(*revision);
            }
        }
    }
    for ((key, value), revisions) in &written {
        if revisions.len() > 1 {
            broken.push(format!("writes-happen-once: {value} in {key} at {revisions:?}"));
        }
    }
    for request in requests {
        let (keys, value) = match &request.wish {
            Wish::Put { keys, value } => (keys.clone(), *value),
            Wish::Swap { key, to, .. } => (vec![*key], *to),
            _ => continue,
        };
        for key in keys {
            let found = written.get(&(key_name(key), value)).cloned().unwrap_or_default();
            match &request.came {
                Came::Done { revision, swapped: true, .. } if found != [*revision] => {
                    broken.push(format!(
                        "acknowledged-writes-stay: {value} in key {key} was acknowledged at \
                         {revision}, the log has it at {found:?}"
                    ));
                }
                Came::Done { swapped: false, .. } | Came::Refused if !found.is_empty() => {
                    broken.push(format!(
                        "refused-writes-leave-nothing: {value} in key {key} is at {found:?}"
                    ));
                }
                _ => {}
            }
        }
    }
}

/// `revisions-follow-time`: who began after another one was answered has a
/// later revision, or the same one when it only reads.
fn check_times(requests: &[Request], broken: &mut Vec<String>) {
    let mut answered: Vec<(u64, i64)> = Vec::new();
    let mut begun: Vec<&Request> = Vec::new();
    for request in requests {
        if let Came::Done { revision, .. } = request.came {
            answered.push((request.end, revision));
            begun.push(request);
        }
    }
    answered.sort_unstable();
    let mut newest = 0;
    for answer in &mut answered {
        newest = answer.1.max(newest);
        answer.1 = newest;
    }
    for request in begun {
        let Came::Done { revision, swapped, .. } = request.came else { continue };
        let before = answered.partition_point(|(end, _)| *end < request.begin);
        let Some((_, newest)) = before.checked_sub(1).map(|at| answered[at]) else { continue };
        let writes = swapped && !matches!(request.wish, Wish::ReadAll | Wish::Delete { .. });
        if revision < newest || (writes && revision == newest) {
            broken.push(format!(
                "revisions-follow-time: {:?} at {revision}, {newest} was answered before",
                request.wish
            ));
        }
    }
}

/// `reads-show-one-revision`: a read is the truth at the revision it names.
fn check_reads(requests: &[Request], truth: &Truth, broken: &mut Vec<String>) {
    let mut reads: Vec<(i64, &Vec<Held>)> = Vec::new();
    for request in requests {
        if let (Wish::ReadAll, Came::Done { revision, read, .. }) = (&request.wish, &request.came) {
            reads.push((*revision, read));
        }
    }
    reads.sort_by_key(|(revision, _)| *revision);
    let mut held: Vec<Held> = vec![None; KEYS];
    let mut events = truth.events.iter().peekable();
    for (revision, read) in reads {
        while let Some((_, changes)) = events.next_if(|(at, _)| **at <= revision) {
            for (key, value) in changes {
                let place = (0..KEYS).find(|at| key_name(*at) == *key);
                place.into_iter().for_each(|at| held[at] = *value);
            }
        }
        if *read != held || revision > truth.head {
            broken.push(format!(
                "reads-show-one-revision: {read:?} at {revision}, the log says {held:?}"
            ));
        }
    }
}

/// `watch-ordered`, `watch-unique`, `watch-true`, `watch-complete`: what a
/// watcher is told, over all resumptions, is the log from where it began.
fn check_watch(watched: &Watched, truth: &Truth, broken: &mut Vec<String>) {
    let mut newest = 0;
    let mut seen: BTreeSet<&Told> = BTreeSet::new();
    for told in &watched.events {
        if told.revision < newest {
            broken.push(format!("watch-ordered: {} after {newest}", told.revision));
        }
        newest = newest.max(told.revision);
        if !seen.insert(told) {
            broken.push(format!("watch-unique: {told:?} twice"));
        }
        let is_true = truth.events.get(&told.revision).is_some_and(|events| {
            events.iter().any(|(key, held)| (key, held) == (&told.key, &told.value))
        });
        if !is_true {
            broken.push(format!("watch-true: {told:?} is not in the log"));
        }
    }
    let in_gap = |at: i64| watched.gaps.iter().any(|(from, to)| (*from..*to).contains(&at));
    for (revision, events) in truth.events.range(watched.start..) {
        for (key, held) in events.iter().filter(|(key, _)| key.starts_with("key-")) {
            let told = Told { revision: *revision, key: key.clone(), value: *held };
            if !in_gap(*revision) && !seen.contains(&told) {
                broken.push(format!("watch-complete: {told:?} was not told"));
            }
        }
    }
    if !watched.ended {
        broken.push(format!("watch-complete: it came to {newest} of {} only", truth.head));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth() -> Truth {
        let event = |key: usize, held| vec![(key_name(key), held)];
        let events = [(2, event(0, Some(1))), (3, event(1, Some(2))), (4, event(0, None))];
        Truth { events: events.into(), head: 4 }
    }

    fn told(revision: i64, key: usize, value: Held) -> Told {
        Told { revision, key: key_name(key), value }
    }

    fn names(broken: &[String]) -> Vec<&str> {
        broken.iter().map(|text| text.split(':').next().unwrap()).collect()
    }

    fn watch(events: Vec<Told>) -> Vec<String> {
        let mut broken = Vec::new();
        let watched = Watched { start: 2, events, gaps: Vec::new(), ended: true };
        check_watch(&watched, &truth(), &mut broken);
        broken
    }

    #[test]
    fn each_broken_promise_of_a_watch_is_named() {
        let (one, two, three) = (told(2, 0, Some(1)), told(3, 1, Some(2)), told(4, 0, None));
        let good = vec![one.clone(), two.clone(), three.clone()];
        assert!(watch(good).is_empty());
        for (events, name) in [
            (vec![one.clone(), three.clone(), two.clone()], "watch-ordered"),
            (vec![one.clone(), one.clone(), two.clone(), three.clone()], "watch-unique"),
            (vec![one.clone(), three.clone()], "watch-complete"),
            (vec![one, told(3, 1, Some(9)), two, three], "watch-true"),
        ] {
            assert_eq!(names(&watch(events)), [name]);
        }
    }

    fn request(begin: u64, end: u64, wish: Wish, came: Came) -> Request {
        Request { begin, end, wish, came }
    }

    fn done(revision: i64, read: Vec<Held>) -> Came {
        Came::Done { revision, swapped: true, read }
    }

    #[test]
    fn each_broken_promise_of_requests_is_named() {
        let put = |value| Wish::Put { keys: vec![0], value };
        let all = |first, second| {
            let mut all = vec![None; KEYS];
            (all[0], all[1]) = (first, second);
            all
        };
        let judge = |requests: Vec<Request>| {
            let mut broken = Vec::new();
            check_writes(&requests, &truth(), &mut broken);
            check_times(&requests, &mut broken);
            check_reads(&requests, &truth(), &mut broken);
            broken
        };
        let good = vec![
            request(1, 2, put(1), done(2, vec![])),
            request(3, 4, Wish::ReadAll, done(3, all(Some(1), Some(2)))),
        ];
        assert_eq!(judge(good), Vec::<String>::new());
        for (requests, name) in [
            (vec![request(1, 2, put(7), done(2, vec![]))], "acknowledged-writes-stay"),
            (vec![request(1, 2, put(1), Came::Refused)], "refused-writes-leave-nothing"),
            (
                vec![request(1, 2, Wish::ReadAll, done(4, all(Some(1), Some(2))))],
                "reads-show-one-revision",
            ),
            (
                vec![
                    request(1, 2, Wish::ReadAll, done(3, all(Some(1), Some(2)))),
                    request(3, 4, Wish::ReadAll, done(2, all(Some(1), None))),
                ],
                "revisions-follow-time",
            ),
        ] {
            assert_eq!(names(&judge(requests)), [name]);
        }
    }
}
