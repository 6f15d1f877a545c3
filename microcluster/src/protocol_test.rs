//! What the tables of the protocol have in common.

use time::OffsetDateTime;

use super::*;
use crate::record::{MemberRecord, NodeRole};
use crate::sample::{self, Joiner, NOW, RELEASE};
use crate::store::MemoryStore;

/// A cluster, and what is said to it.
pub(super) struct World {
    pub(super) store: MemoryStore,
    pub(super) now: OffsetDateTime,
}

impl World {
    /// One member, one token for a worker (seed 1).
    pub(super) fn new() -> Self {
        Self::with(&sample::spec(NodeRole::Worker))
    }

    pub(super) fn with(spec: &TokenSpec) -> Self {
        let store = sample::store();
        sample::add_token(&store, spec, 1);
        Self { store, now: NOW }
    }

    pub(super) fn record(&self) -> ClusterRecord {
        self.store.read_now().unwrap()
    }

    pub(super) fn say(&self, message: &Message, caller: &Caller) -> Result<Decision, Refusal> {
        let record = self.record();
        // What is said later is also sent later.
        let message = Message { sent: message.sent + (self.now - NOW), ..message.clone() };
        let decision = decide(&record, &message, caller, RELEASE, self.now)?;
        assert!(decision.is_guarded(), "{decision:?}");
        self.store.apply_now(&decision.changes).unwrap();
        self.record().check().unwrap();
        Ok(decision)
    }

    pub(super) fn stranger(&self, message: &Message) -> Result<Decision, Refusal> {
        self.say(message, &Caller::Stranger)
    }

    pub(super) fn code(&self, message: &Message, caller: &Caller) -> RefusalCode {
        let before = self.record();
        let refusal = self.say(message, caller).unwrap_err();
        assert_eq!(self.record(), before, "a refusal changed something");
        assert!(!refusal.message.ends_with('.'), "{refusal}");
        refusal.code
    }

    pub(super) fn node(&self, name: &str) -> MemberRecord {
        self.record().members[&name.parse().unwrap()].value.clone()
    }

    pub(super) fn uses_left(&self) -> u32 {
        sample::uses_left(&self.record())
    }

    /// A member by its whole way in.
    pub(super) fn join(&self, joiner: &Joiner) {
        self.stranger(&joiner.enter()).unwrap();
        self.say(&sample::confirm(), &joiner.caller()).unwrap();
    }

    pub(super) fn remove(
        &self,
        name: &str,
        is_reachable: bool,
        force: bool,
    ) -> Result<Decision, Refusal> {
        let (name, here) = (name.parse().unwrap(), "first".parse().unwrap());
        let request = RemoveRequest { name, force, is_reachable, here };
        let decision = decide_remove(&self.record(), &request, self.now)?;
        self.store.apply_now(&decision.changes).unwrap();
        Ok(decision)
    }

    pub(super) fn expire(&self) -> Decision {
        let decision = decide_expire(&self.record(), self.now);
        self.store.apply_now(&decision.changes).unwrap();
        decision
    }
}

pub(super) fn two_uses() -> TokenSpec {
    TokenSpec { uses: 2, ..sample::spec(NodeRole::Worker) }
}
