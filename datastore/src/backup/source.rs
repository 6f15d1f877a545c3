//! The running datastore that a backup is taken of, as its client.

use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::digest::Digester;
use crate::key_range::KeyRange;
use crate::listen::Listen;
use crate::probe::connect;
use crate::proto::kv_client::KvClient;
use crate::proto::maintenance_client::MaintenanceClient;
use crate::proto::{KeyValue, RangeRequest, SnapshotRequest, SnapshotResponse};
use crate::record::{LeaseId, Record, Revision};
use crate::server::snapshot::REVISION_METADATA;

/// Why the source did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("can't connect to {from}")]
    Connect {
        from: Listen,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("revision {wanted} was compacted: the datastore holds it no more")]
    Compacted { wanted: Revision },
    #[error("revision {wanted} is in the future, the newest is {newest}")]
    Future { wanted: Revision, newest: Revision },
    #[error("{from} answered {code}: {message}")]
    Refused { from: Listen, code: Code, message: String },
    #[error("{from} stopped before the backup was complete")]
    Ended { from: Listen },
}

/// A connection to a datastore.
pub struct Source {
    from: Listen,
    channel: Channel,
}

impl Source {
    /// Connects.
    pub async fn connect(from: &Listen) -> Result<Source, SourceError> {
        let failed = |source| SourceError::Connect { from: from.clone(), source };
        let channel = connect(from).await.map_err(failed)?;
        Ok(Source { from: from.clone(), channel })
    }

    /// The newest revision, at least as new as everything acknowledged so far.
    pub async fn revision(&self) -> Result<Revision, SourceError> {
        let (key, range_end) = KeyRange::all_on_wire();
        let request = RangeRequest { key, range_end, count_only: true, ..Default::default() };
        let answer = KvClient::new(self.channel.clone()).range(request).await;
        let header = answer.map_err(|status| self.refused(&status))?.into_inner().header;
        Ok(Revision(header.map_or(0, |header| header.revision)))
    }

    /// Begins a snapshot of the newest revision, or of `wanted`.
    pub async fn snapshot(
        &self,
        wanted: Option<Revision>,
    ) -> Result<Streaming<SnapshotResponse>, SourceError> {
        let mut request = Request::new(SnapshotRequest {});
        if let Some(Revision(number)) = wanted {
            request.metadata_mut().insert(REVISION_METADATA, number.into());
        }
        let mut client =
            MaintenanceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        match client.snapshot(request).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(match (wanted, is_compacted(&status)) {
                (Some(wanted), true) => SourceError::Compacted { wanted },
                _ => self.refused(&status),
            }),
        }
    }

    /// The next piece of a snapshot; `None` at its end.
    pub async fn piece(
        &self,
        pieces: &mut Streaming<SnapshotResponse>,
    ) -> Result<Option<bytes::Bytes>, SourceError> {
        let piece = pieces.message().await.map_err(|status| self.refused(&status))?;
        Ok(piece.map(|piece| piece.blob))
    }

    /// The digest of the keys at `revision`, asked for as any client asks;
    /// `None` when that was compacted meanwhile.
    pub async fn keys_digest(&self, revision: Revision) -> Result<Option<[u8; 32]>, SourceError> {
        let (key, range_end) = KeyRange::all_on_wire();
        let request = RangeRequest { key, range_end, revision: revision.0, ..Default::default() };
        let mut client = KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let mut pieces = match client.range_stream(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if is_compacted(&status) => return Ok(None),
            Err(status) => return Err(self.refused(&status)),
        };
        let mut digester = Digester::default();
        let mut is_whole = false;
        while let Some(piece) = pieces.message().await.map_err(|status| self.refused(&status))? {
            let piece = piece.range_response.unwrap_or_default();
            is_whole |= piece.header.is_some();
            for kv in piece.kvs {
                digester.key(&record(kv));
            }
        }
        match is_whole {
            true => Ok(Some(digester.finish().keys)),
            false => Err(SourceError::Ended { from: self.from.clone() }),
        }
    }

    fn refused(&self, status: &Status) -> SourceError {
        let (code, message) = (status.code(), status.message().to_owned());
        SourceError::Refused { from: self.from.clone(), code, message }
    }
}

/// In etcd's words, which ours are as well.
fn is_compacted(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("has been compacted")
}

fn record(kv: KeyValue) -> Record {
    Record {
        key: kv.key,
        value: kv.value,
        created: Revision(kv.create_revision),
        modified: Revision(kv.mod_revision),
        version: kv.version,
        lease: LeaseId(kv.lease),
    }
}
