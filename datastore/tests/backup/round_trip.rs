//! What comes back is what was there.

use std::time::Instant;

use proptest::prelude::*;
use skiff_datastore::backup::build::build_and_compare;
use skiff_datastore::backup::restore::BUMP_REVISION;
use skiff_datastore::backup::source::SourceError;
use skiff_datastore::backup::{BackupError, Opening, Sealing, restore, take};
use skiff_datastore::digest::Digester;
use skiff_datastore::proto::watch_client::WatchClient;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::{WatchCreateRequest, WatchRequest};
use skiff_datastore::record::{LeaseId, Record};
use skiff_datastore::snapshot::{Summary, Writer};
use skiff_datastore::{Database, Revision};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::{backup, names, restore_options, take_options};

#[tokio::test]
async fn a_backup_comes_back_whole_and_revisions_go_on_above_all_that_were_given_out() {
    let home = TempDir::new().unwrap();
    let daemon = Daemon::start(&home.path().join("data")).await;
    daemon.fill(700).await;
    let before = daemon.all(0).await;
    let target = TempDir::new().unwrap();
    let taken = backup(daemon.listen(), target.path()).await.unwrap();
    assert!(taken.compared_with_source && !taken.is_sealed);
    assert_eq!(names(target.path()), ["backup"]);
    let revision = before.header.as_ref().unwrap().revision;
    assert_eq!(taken.summary.revision.0, revision);
    assert_eq!(taken.summary.keys, before.kvs.len() as u64);
    assert_eq!(taken.bytes, std::fs::metadata(&taken.path).unwrap().len());
    let leases = daemon.leases().await;
    assert_eq!(leases, [(7, 600), (8, 1200)]);
    // The lost datastore goes on for a while after its backup.
    let seen_since = daemon.put("/registry/later", "lost").await;

    let restored = restore(&taken.path, &restore_options(home.path().join("new"))).await.unwrap();
    assert_eq!(restored.former, None);
    let again = Daemon::start(&home.path().join("new")).await;
    let after = again.all(0).await;
    assert_eq!(after.kvs, before.kvs);
    assert_eq!(again.leases().await, leases);
    let header = after.header.unwrap();
    assert_eq!(header.revision, revision + BUMP_REVISION);
    assert!(header.revision > seen_since);
    assert_ne!(header.cluster_id, before.header.unwrap().cluster_id);
    assert_eq!(again.put("/registry/later", "new").await, header.revision + 1);
    for from in [2, revision, seen_since, header.revision] {
        assert_eq!(first_answer_from(&again, from).await, from < header.revision, "{from}");
    }
    // And it is a datastore like any other: it can be killed and backed up.
    drop(again);
    let again = Daemon::start(&home.path().join("new")).await;
    assert_eq!(again.all(0).await.count, after.count + 1);
    let once_more = backup(again.listen(), target.path()).await.unwrap();
    assert_eq!(once_more.summary.revision.0, header.revision + 1);
}

/// Whether a watch from `revision` on is told that it was compacted.
async fn first_answer_from(daemon: &Daemon, revision: i64) -> bool {
    let mut client = WatchClient::new(daemon.channel.clone());
    let create = WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        start_revision: revision,
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = futures::stream::iter([request]);
    let requests = futures::StreamExt::chain(requests, futures::stream::pending());
    let mut answers = client.watch(requests).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().created);
    let answer = answers.message().await.unwrap().unwrap();
    assert!(answer.canceled || !answer.events.is_empty(), "{answer:?}");
    answer.compact_revision > 0
}

#[tokio::test]
async fn a_backup_under_load_is_of_one_revision_and_holds_what_was_acknowledged() {
    let home = TempDir::new().unwrap();
    let daemon = Daemon::start(&home.path().join("data")).await;
    daemon.fill(200).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (mut client, stopped) = (daemon.kv(), stopped.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    if *stopped.borrow() {
                        break;
                    }
                    let request = skiff_datastore::proto::PutRequest {
                        key: format!("load/{writer}/{}", number % 50).into(),
                        value: format!("{number}").into(),
                        ..Default::default()
                    };
                    client.put(request).await.unwrap();
                }
            })
        })
        .collect();
    let target = TempDir::new().unwrap();
    for _ in 0..3 {
        let acknowledged = daemon.put("acknowledged", "before the backup").await;
        let taken = backup(daemon.listen(), target.path()).await.unwrap();
        assert!(taken.compared_with_source);
        assert!(taken.summary.revision.0 >= acknowledged);
    }
    stop.send_replace(true);
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn an_older_revision_can_be_backed_up_until_it_is_compacted() {
    let home = TempDir::new().unwrap();
    let daemon = Daemon::start(&home.path().join("data")).await;
    daemon.fill(50).await;
    let before = daemon.all(0).await;
    let wanted = before.header.as_ref().unwrap().revision;
    // The mistake that makes one wish for yesterday.
    daemon.delete("/registry/key00001").await;
    let newest = daemon.put("/registry/key00002", "overwritten").await;
    let target = TempDir::new().unwrap();
    let mut options = take_options(daemon.listen(), target.path());
    options.revision = Some(Revision(wanted));
    let taken = take(&options, target.path(), |_| "older".into()).await.unwrap();
    assert_eq!(taken.summary.revision.0, wanted);
    restore(&taken.path, &restore_options(home.path().join("new"))).await.unwrap();
    let again = Daemon::start(&home.path().join("new")).await;
    assert_eq!(again.all(0).await.kvs, before.kvs);

    options.revision = Some(Revision(newest + 1));
    let error = take(&options, target.path(), |_| "future".into()).await.unwrap_err();
    assert!(matches!(error, BackupError::Source(SourceError::Future { .. })), "{error:?}");
    daemon.compact(newest).await;
    options.revision = Some(Revision(wanted));
    let error = take(&options, target.path(), |_| "gone".into()).await.unwrap_err();
    assert!(matches!(error, BackupError::Source(SourceError::Compacted { .. })), "{error:?}");
    assert_eq!(names(target.path()), ["older"]);
}

#[tokio::test]
async fn an_encrypted_backup_is_proven_without_the_owners_key_and_opened_by_it_alone() {
    let home = TempDir::new().unwrap();
    let daemon = Daemon::start(&home.path().join("data")).await;
    daemon.fill(50).await;
    let key = age::x25519::Identity::generate();
    let mut options = take_options(daemon.listen(), home.path());
    options.sealing = Sealing::Recipients(vec![key.to_public()]);
    let taken = take(&options, home.path(), |_| "sealed".into()).await.unwrap();
    assert!(taken.is_sealed && taken.compared_with_source);
    let bytes = std::fs::read(&taken.path).unwrap();
    assert!(bytes.starts_with(b"age-encryption.org/v1"));
    let mut options = restore_options(home.path().join("new"));
    assert!(restore(&taken.path, &options).await.is_err());
    options.opening = Opening::Identities(vec![age::x25519::Identity::generate()]);
    assert!(restore(&taken.path, &options).await.is_err());
    assert!(!options.dir.exists());
    options.opening = Opening::Identities(vec![key]);
    restore(&taken.path, &options).await.unwrap();
    let again = Daemon::start(&options.dir).await;
    assert_eq!(again.all(0).await.kvs, daemon.all(0).await.kvs);
}

fn any_record() -> impl Strategy<Value = (Vec<u8>, Record)> {
    let key = proptest::collection::vec(any::<u8>(), 1..20);
    let value = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..300),
        1 => (0usize..200_000).prop_map(|length| vec![7; length]),
    ];
    (key, value, 2i64..1000, 0i64..1000, 1i64..50, 0i64..4).prop_map(
        |(key, value, created, later, version, lease)| {
            let record = Record {
                key: key.clone().into(),
                value: value.into(),
                created: Revision(created),
                modified: Revision(created + later),
                version,
                lease: LeaseId(lease),
            };
            (key, record)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn whatever_a_snapshot_holds_a_datastore_made_of_it_holds(
        records in proptest::collection::btree_map(any::<Vec<u8>>(), any_record(), 0..60),
        bump in 0i64..1000,
    ) {
        let records: std::collections::BTreeMap<_, _> = records.into_values().collect();
        let began = Instant::now();
        let head = Summary {
            revision: Revision(5000),
            cluster_id: 3,
            leases: 3,
            keys: records.len() as u64,
            ..Summary::default()
        };
        let mut writer = Writer::new(&head);
        let mut digester = Digester::default();
        for lease in 1..4 {
            writer.lease(LeaseId(lease), 600 * lease);
            digester.lease(LeaseId(lease), 600 * lease);
        }
        for record in records.values() {
            writer.key(record);
            digester.key(record);
        }
        let bytes = writer.finish();
        let dir = TempDir::new().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let source = std::io::Cursor::new(bytes);
        let built = runtime.block_on(build_and_compare(dir.path(), Database::Kube, source, bump)).unwrap();
        prop_assert_eq!(built.1.digest, digester.finish());
        prop_assert_eq!(built.1.revision, Revision(5000 + bump));
        prop_assert!(began.elapsed().as_secs() < 60);
    }
}
