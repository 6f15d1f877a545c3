//! The follower's side of the leader's stream.

use std::time::Instant;

use bytes::Bytes;
use tonic::Streaming;

use crate::proto::peer::follow_response::Part;
use crate::proto::peer::{Begin, FollowResponse};
use crate::record::Revision;
use crate::state::{ChunkInfo, Layout, RowInfo, State, load};
use crate::store::{Base, Chunk, Fold, LogRow, Opened, Sequence, Size, Store, StoreError};

/// The parts of one stream.
pub type Incoming = Streaming<FollowResponse>;

/// Reads everything that a leader tells at first, as a start does from a
/// store.
pub async fn load_from(
    incoming: Incoming,
    begin: &Begin,
    now: Instant,
) -> Result<(State, Layout, Incoming), StoreError> {
    let base = Base {
        sequence: Sequence(begin.base_sequence),
        revision: Revision(begin.base_revision),
        data: begin.base_data.to_vec(),
    };
    let opened = Opened { cluster_id: begin.cluster_id, member_id: 0, epoch: begin.epoch, base };
    let mut told = Told { incoming, chunks_ended: false, rows_ended: false };
    let (state, layout) = load(&mut told, &opened, now).await?;
    Ok((state, layout, told.incoming))
}

/// A store that is told rather than read.
struct Told {
    incoming: Incoming,
    chunks_ended: bool,
    rows_ended: bool,
}

impl Told {
    async fn next(&mut self) -> Result<Part, StoreError> {
        match self.incoming.message().await {
            Ok(Some(FollowResponse { part: Some(part) })) => Ok(part),
            Ok(_) => Err(StoreError::Failed("the leader stopped telling".into())),
            Err(status) => Err(StoreError::Failed(Box::new(status))),
        }
    }
}

fn unexpected() -> StoreError {
    StoreError::Failed("the leader tells things in a strange order".into())
}

fn read_only() -> StoreError {
    StoreError::Failed("a follower writes nothing".into())
}

impl Store for Told {
    async fn open(&mut self) -> Result<Opened, StoreError> {
        Err(read_only())
    }

    async fn read_chunks(&mut self, _after: Option<&Bytes>) -> Result<Vec<Chunk>, StoreError> {
        if self.chunks_ended {
            return Ok(Vec::new());
        }
        match self.next().await? {
            Part::Chunk(chunk) => Ok(vec![chunk.into()]),
            Part::ChunksEnd(_) => {
                self.chunks_ended = true;
                Ok(Vec::new())
            }
            _ => Err(unexpected()),
        }
    }

    async fn read_log(&mut self, _after: Sequence) -> Result<Vec<LogRow>, StoreError> {
        if self.rows_ended {
            return Ok(Vec::new());
        }
        match self.next().await? {
            Part::Row(row) => Ok(vec![row.into()]),
            Part::RowsEnd(_) => {
                self.rows_ended = true;
                Ok(Vec::new())
            }
            _ => Err(unexpected()),
        }
    }

    async fn append(&mut self, _row: &LogRow) -> Result<(), StoreError> {
        Err(read_only())
    }

    async fn barrier(&mut self) -> Result<(), StoreError> {
        Err(read_only())
    }

    async fn read_layout(
        &mut self,
        _base: &Base,
    ) -> Result<(Vec<RowInfo>, Vec<ChunkInfo>), StoreError> {
        Err(read_only())
    }

    async fn fold(&mut self, _fold: &Fold) -> Result<bool, StoreError> {
        Err(read_only())
    }

    async fn size(&mut self) -> Result<Size, StoreError> {
        Ok(Size::default())
    }

    async fn close(&mut self) {}
}
