//! Random histories compared with a model so simple that it is plainly right:
//! a list of every version ever written.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;
use skiff_datastore::compactor::LayoutLimits;
use skiff_datastore::error::RequestError;
use skiff_datastore::index::pack::PackLimits;
use skiff_datastore::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use skiff_datastore::proto::{
    Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op::Request,
};
use skiff_datastore::record::LeaseId;
use skiff_datastore::shared::Limits;
use skiff_datastore::store::memory::MemoryStore;
use skiff_datastore::{Engine, KeyRange, Revision, Running};

#[derive(Clone, Debug)]
enum Action {
    Put {
        key: u8,
        lease: u8,
    },
    Delete {
        from: u8,
        to: u8,
    },
    /// Puts, if the key has this version, else deletes it.
    PutIfVersion {
        key: u8,
        version: i64,
    },
    Grant {
        lease: u8,
    },
    Revoke {
        lease: u8,
    },
    Compact {
        back: i64,
    },
    Restart,
    /// The process dies after the writer had so many turns to tidy up.
    Crash {
        turns: u8,
    },
    Range {
        from: u8,
        to: u8,
        limit: i64,
        back: i64,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let key = 0..16_u8;
    prop_oneof![
        6 => (key.clone(), 0..3_u8).prop_map(|(key, lease)| Action::Put { key, lease }),
        2 => (key.clone(), 0..17_u8).prop_map(|(from, to)| Action::Delete { from, to }),
        3 => (key.clone(), 0..4_i64).prop_map(|(key, version)| Action::PutIfVersion { key, version }),
        1 => (1..3_u8).prop_map(|lease| Action::Grant { lease }),
        1 => (1..3_u8).prop_map(|lease| Action::Revoke { lease }),
        2 => (-1..8_i64).prop_map(|back| Action::Compact { back }),
        1 => Just(Action::Restart),
        4 => (0..20_u8).prop_map(|turns| Action::Crash { turns }),
        5 => (key, 0..17_u8, 0..4_i64, -1..8_i64)
            .prop_map(|(from, to, limit, back)| Action::Range { from, to, limit, back }),
    ]
}

fn name(key: u8) -> bytes::Bytes {
    format!("key{key:02}").into()
}

/// Every version ever written, by revision and key; `None` is a deletion.
#[derive(Default)]
struct Model {
    versions: Vec<(i64, bytes::Bytes, Option<KeyValue>)>,
    leases: BTreeMap<u8, ()>,
    revision: i64,
    compacted: i64,
}

impl Model {
    fn at(&self, revision: i64) -> BTreeMap<bytes::Bytes, KeyValue> {
        let mut living = BTreeMap::new();
        for (at, key, version) in &self.versions {
            if *at > revision {
                break;
            }
            match version {
                Some(kv) => living.insert(key.clone(), kv.clone()),
                None => living.remove(key),
            };
        }
        living
    }

    fn put(&mut self, key: u8, value: String, lease: i64) {
        let former = self.at(self.revision).remove(&name(key));
        self.revision += 1;
        let kv = KeyValue {
            key: name(key),
            value: value.into(),
            create_revision: former.as_ref().map_or(self.revision, |kv| kv.create_revision),
            mod_revision: self.revision,
            version: former.map_or(1, |kv| kv.version + 1),
            lease,
        };
        self.versions.push((self.revision, name(key), Some(kv)));
    }

    fn delete(&mut self, doomed: impl Fn(&KeyValue) -> bool) -> i64 {
        let living = self.at(self.revision);
        let doomed: Vec<_> = living.into_values().filter(doomed).map(|kv| kv.key).collect();
        if !doomed.is_empty() {
            self.revision += 1;
        }
        let count = doomed.len() as i64;
        self.versions.extend(doomed.into_iter().map(|key| (self.revision, key, None)));
        count
    }
}

struct World {
    model: Model,
    store: MemoryStore,
    running: Option<Running>,
    step: usize,
}

impl World {
    fn engine(&self) -> &Engine {
        &self.running.as_ref().expect("it runs").engine
    }

    async fn act(&mut self, action: &Action) {
        self.step += 1;
        match action {
            Action::Put { key, lease } => self.put(*key, *lease).await,
            Action::Delete { from, to } => {
                let request =
                    DeleteRangeRequest { key: name(*from), range_end: name(*to), prev_kv: true };
                let range = KeyRange::from_wire(name(*from), name(*to));
                let expected: Vec<_> = self
                    .model
                    .at(self.model.revision)
                    .into_values()
                    .filter(|kv| range.contains(&kv.key))
                    .collect();
                let answer = self.engine().delete_range(request).await.unwrap();
                assert_eq!(answer.prev_kvs, expected);
                assert_eq!(answer.deleted, self.model.delete(|kv| range.contains(&kv.key)));
            }
            Action::PutIfVersion { key, version } => self.put_if(*key, *version).await,
            Action::Grant { lease } => {
                let result = self.engine().grant(LeaseId(i64::from(*lease)), 10_000).await;
                let is_new = self.model.leases.insert(*lease, ()).is_none();
                assert_eq!(result.is_ok(), is_new);
            }
            Action::Revoke { lease } => {
                let result = self.engine().revoke(LeaseId(i64::from(*lease))).await;
                assert_eq!(result.is_ok(), self.model.leases.remove(lease).is_some());
                if result.is_ok() {
                    self.model.delete(|kv| kv.lease == i64::from(*lease));
                }
            }
            Action::Compact { back } => self.compact(self.model.revision - back).await,
            Action::Restart => {
                self.running.take().expect("it runs").stop().await.unwrap();
                self.running = Some(start(&self.store).await);
            }
            Action::Crash { turns } => {
                for _ in 0..*turns {
                    tokio::task::yield_now().await;
                }
                self.store = self.store.copy();
                let running = self.running.take().expect("it runs");
                running.upkeep.abort();
                running.writer.abort();
                self.running = Some(start(&self.store).await);
            }
            Action::Range { from, to, limit, back } => {
                self.range(*from, *to, *limit, self.model.revision - back);
            }
        }
        assert_eq!(self.engine().revision(), Revision(self.model.revision));
    }

    async fn put(&mut self, key: u8, lease: u8) {
        let value = format!("value {}", "x".repeat(self.step % 30 * 20)) + &self.step.to_string();
        let request = PutRequest {
            key: name(key),
            value: value.clone().into(),
            lease: i64::from(lease),
            prev_kv: true,
            ..Default::default()
        };
        let result = self.engine().put(request).await;
        if lease != 0 && !self.model.leases.contains_key(&lease) {
            assert_eq!(result, Err(RequestError::LeaseNotFound));
            return;
        }
        let former = self.model.at(self.model.revision).remove(&name(key));
        assert_eq!(result.unwrap().prev_kv, former);
        self.model.put(key, value, i64::from(lease));
    }

    async fn put_if(&mut self, key: u8, version: i64) {
        let value = format!("value {}", "x".repeat(self.step % 30 * 20)) + &self.step.to_string();
        let put = PutRequest { key: name(key), value: value.clone().into(), ..Default::default() };
        let delete = DeleteRangeRequest { key: name(key), ..Default::default() };
        let request = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Version as i32,
                key: name(key),
                target_union: Some(TargetUnion::Version(version)),
                ..Default::default()
            }],
            success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
            failure: vec![RequestOp { request: Some(Request::RequestDeleteRange(delete)) }],
        };
        let answer = self.engine().txn(request).await.unwrap();
        let living = self.model.at(self.model.revision);
        let holds = living.get(&name(key)).map_or(0, |kv| kv.version) == version;
        assert_eq!(answer.succeeded, holds);
        if holds {
            self.model.put(key, value, 0);
        } else {
            self.model.delete(|kv| kv.key == name(key));
        }
    }

    async fn compact(&mut self, revision: i64) {
        let expected = if revision <= self.model.compacted {
            Err(RequestError::Compacted)
        } else if revision > self.model.revision {
            Err(RequestError::FutureRevision)
        } else {
            self.model.compacted = revision;
            Ok(Revision(self.model.revision))
        };
        assert_eq!(self.engine().compact(Revision(revision)).await, expected);
    }

    fn range(&self, from: u8, to: u8, limit: i64, revision: i64) {
        let request = RangeRequest {
            key: name(from),
            range_end: name(to),
            limit,
            revision,
            ..Default::default()
        };
        let result = self.engine().range(&request);
        if revision > self.model.revision {
            assert_eq!(result, Err(RequestError::FutureRevision));
            return;
        }
        // 0 and below mean the newest revision.
        let at = if revision <= 0 { self.model.revision } else { revision };
        if at < self.model.compacted {
            assert_eq!(result, Err(RequestError::Compacted));
            return;
        }
        let range = KeyRange::from_wire(name(from), name(to));
        let mut expected: Vec<_> =
            self.model.at(at).into_values().filter(|kv| range.contains(&kv.key)).collect();
        let answer = result.unwrap();
        assert_eq!(answer.count, expected.len() as i64);
        assert_eq!(answer.more, limit > 0 && expected.len() as i64 > limit);
        if limit > 0 {
            expected.truncate(limit as usize);
        }
        assert_eq!(answer.kvs, expected);
    }
}

async fn start(store: &MemoryStore) -> Running {
    // So small that everything is merged, folded and divided all the time.
    let layout = LayoutLimits {
        chunk_bytes_max: 40,
        chunks_per_step: 1,
        small_row_bytes_max: 1000,
        merge_rows_min: 2,
        merge_rows_max: 3,
        merge_bytes_max: 1000,
        fold_bytes_min: 1000,
        fold_rows_min: 2,
    };
    // What is replaced is packed at once.
    let packing = PackLimits { revisions_whole: 0, bytes_min: 0, revisions_per_step: 1 };
    let limits = Limits { layout, packing, ..Limits::default() };
    Engine::start(store.clone(), limits, Instant::now).await.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_histories_read_as_the_model_says(
        actions in prop::collection::vec(action(), 1..400),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::default();
            let running = Some(start(&store).await);
            let model = Model { revision: 1, compacted: -1, ..Model::default() };
            let mut world = World { model, store, running, step: 0 };
            for action in &actions {
                world.act(action).await;
            }
            world.running.take().expect("it runs").stop().await.unwrap();
        });
    }
}
