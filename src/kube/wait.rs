//! Waits on a state of objects, driven by a watch and bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use tokio::time::{Instant, sleep, timeout_at};

/// Pause before a watch that broke is begun again.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
#[error("waited {} s for {what}{}", bound.as_secs(), seen(.last))]
pub struct WaitError {
    /// What did not come true.
    pub what: String,
    pub bound: Duration,
    /// The last thing that was seen.
    pub last: String,
}

fn seen(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!(": {last}") }
}

/// Which objects a wait looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    Name(String),
    Labels(String),
}

impl Selection {
    fn config(&self) -> watcher::Config {
        match self {
            Self::Name(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
            Self::Labels(labels) => watcher::Config::default().labels(labels),
        }
    }
}

/// Waits until `judge` is content with the selected objects. While it is not, it answers a
/// sentence; each new one is handed to `tell`.
pub async fn wait_until(
    api: Api<DynamicObject>,
    selection: &Selection,
    what: &str,
    bound: Duration,
    judge: impl Fn(&[&DynamicObject]) -> Result<(), String>,
    mut tell: impl FnMut(&str),
) -> Result<(), WaitError> {
    let deadline = Instant::now() + bound;
    let mut last = String::new();
    let mut objects: BTreeMap<String, DynamicObject> = BTreeMap::new();
    let mut complete = false;
    let mut events = std::pin::pin!(watcher(api, selection.config()));
    loop {
        let sentence = match timeout_at(deadline, events.next()).await {
            Ok(Some(Ok(event))) => {
                complete = take(event, &mut objects, complete);
                if !complete {
                    continue;
                }
                match judge(&objects.values().collect::<Vec<_>>()) {
                    Ok(()) => return Ok(()),
                    Err(sentence) => sentence,
                }
            }
            // The stream heals itself at the next poll.
            Ok(Some(Err(_))) => {
                sleep(WATCH_PAUSE).await;
                "the API server does not answer".into()
            }
            Ok(None) | Err(_) => return Err(WaitError { what: what.into(), bound, last }),
        };
        if sentence != last {
            tell(&sentence);
            last = sentence;
        }
    }
}

/// Keeps `objects` as the cluster has them; answers whether they are all there.
fn take(
    event: Event<DynamicObject>,
    objects: &mut BTreeMap<String, DynamicObject>,
    complete: bool,
) -> bool {
    match event {
        Event::Init => {
            objects.clear();
            false
        }
        Event::InitDone => true,
        Event::InitApply(object) | Event::Apply(object) => {
            objects.insert(object.name_any(), object);
            complete
        }
        Event::Delete(object) => {
            objects.remove(&object.name_any());
            complete
        }
    }
}

/// Waits until an object is gone, or another one has its name.
pub async fn wait_gone(
    api: Api<DynamicObject>,
    name: &str,
    uid: &str,
    bound: Duration,
    tell: impl FnMut(&str),
) -> Result<(), WaitError> {
    let same = |object: &&&DynamicObject| object.metadata.uid.as_deref() == Some(uid);
    let judge = |objects: &[&DynamicObject]| match objects.iter().find(same) {
        Some(object) => Err(remaining(object)),
        None => Ok(()),
    };
    let what = format!("{name} to be gone");
    wait_until(api, &Selection::Name(name.into()), &what, bound, judge, tell).await
}

/// Why an object that is being deleted is still there.
fn remaining(object: &DynamicObject) -> String {
    match object.metadata.finalizers.as_deref() {
        Some([]) | None => "it is still there".into(),
        Some([one]) if one == "foregroundDeletion" => "what belongs to it is still ending".into(),
        Some(finalizers) => format!("it is held by {}", finalizers.join(", ")),
    }
}
