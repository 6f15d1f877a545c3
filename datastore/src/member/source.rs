//! The leader's side of a follower's stream.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::database::Database;
use crate::feed::{Item, Next, Place};
use crate::proto::peer::follow_response::Part;
use crate::proto::peer::{Begin, Empty, Folded, FollowResponse};
use crate::shared::Shared;
use crate::store::node::SqlNode;
use crate::store::sql::SqlStore;
use crate::store::{Sequence, Store, StoreError};

/// Parts that wait for a slow follower; the rest waits in the ring.
const PARTS_MAX: usize = 8;

type Parts = mpsc::Sender<Result<FollowResponse, Status>>;

/// What ends a stream.
enum End {
    /// The follower has gone.
    Gone,
    /// It is told why.
    Told(Status),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> End {
        End::Told(Status::unavailable(format!("the store can't be read: {error}")))
    }
}

/// Tells a follower everything behind `after`, or everything, for as long as
/// this member leads.
pub fn follow(
    shared: Arc<Shared>,
    database: Database,
    node: Arc<dyn SqlNode>,
    after: Option<Sequence>,
) -> ReceiverStream<Result<FollowResponse, Status>> {
    let (parts, receiver) = mpsc::channel(PARTS_MAX);
    tokio::spawn(async move {
        let source = Source { shared, database, node, parts: parts.clone() };
        if let Err(End::Told(status)) = source.tell(after).await {
            let _ = parts.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver)
}

struct Source {
    shared: Arc<Shared>,
    database: Database,
    node: Arc<dyn SqlNode>,
    parts: Parts,
}

impl Source {
    async fn tell(&self, after: Option<Sequence>) -> Result<(), End> {
        let mut place = match after {
            Some(after) => {
                self.begin(false).await?;
                Place::after(after)
            }
            None => Place::after(self.tell_everything().await?),
        };
        let mut changed = self.shared.feed.subscribe();
        loop {
            changed.borrow_and_update();
            match self.shared.feed.next(place) {
                Next::Items(items, next) => {
                    for item in items {
                        self.send(part_of(item)).await?;
                    }
                    place = next;
                }
                Next::Wait => tokio::select! {
                    _ = changed.changed() => {}
                    () = self.parts.closed() => return Err(End::Gone),
                },
                Next::Behind => place = self.tell_rows(place.sequence).await?,
                Next::Closed => {
                    return Err(End::Told(Status::unavailable("this member does not lead")));
                }
            }
        }
    }

    /// Rows that the ring does not hold any more.
    async fn tell_rows(&self, after: Sequence) -> Result<Place, End> {
        let _guard = self.shared.feed.read_guard();
        let rows = SqlStore::on(self.node.clone(), self.database).read_log(after).await?;
        let last = rows.last().map(|row| row.sequence);
        for row in &rows {
            self.send(Part::Row(row.into())).await?;
        }
        last.map(Place::after)
            .ok_or_else(|| End::Told(Status::out_of_range("these rows are folded")))
    }

    /// Chunks and rows as they are stored; the last row's place.
    async fn tell_everything(&self) -> Result<Sequence, End> {
        let _guard = self.shared.feed.read_guard();
        let mut store = SqlStore::on(self.node.clone(), self.database);
        let mut last = self.begin_with(&mut store).await?;
        let mut after = None;
        loop {
            let chunks = store.read_chunks(after.as_ref()).await?;
            let Some(end) = chunks.last() else { break };
            after = Some(end.first_key.clone());
            for chunk in chunks {
                self.send(Part::Chunk(chunk.into())).await?;
            }
        }
        self.send(Part::ChunksEnd(Empty {})).await?;
        loop {
            let rows = store.read_log(last).await?;
            let Some(end) = rows.last() else { break };
            last = end.sequence;
            for row in &rows {
                self.send(Part::Row(row.into())).await?;
            }
        }
        self.send(Part::RowsEnd(Empty {})).await?;
        Ok(last)
    }

    async fn begin(&self, everything: bool) -> Result<(), End> {
        let identity = self.shared.identity();
        let (cluster_id, epoch) = (identity.cluster_id, identity.epoch);
        self.send(Part::Begin(Begin { cluster_id, epoch, everything, ..Begin::default() })).await
    }

    async fn begin_with(&self, store: &mut SqlStore) -> Result<Sequence, End> {
        let opened = store.peek().await?;
        let begin = Begin {
            cluster_id: opened.cluster_id,
            epoch: opened.epoch,
            everything: true,
            base_sequence: opened.base.sequence.0,
            base_revision: opened.base.revision.0,
            base_data: opened.base.data.into(),
        };
        self.send(Part::Begin(begin)).await?;
        Ok(opened.base.sequence)
    }

    async fn send(&self, part: Part) -> Result<(), End> {
        let part = FollowResponse { part: Some(part) };
        self.parts.send(Ok(part)).await.map_err(|_| End::Gone)
    }
}

fn part_of(item: Item) -> Part {
    match item {
        Item::Row(row) => Part::Row((&*row).into()),
        Item::Chunks { put, remove } => Part::Folded(Folded { put, remove }),
    }
}
