//! Decides: the record, a request, who asks, a moment; and out come changes, orders, or a refusal.
//! No clock, no disk, no network, no randomness.
//!
//! A decision holds only if what it read is still so when it is applied; otherwise it is made anew
//! on what is there then. So each is written to be made twice: what was done already is not an
//! error, and does nothing.
//!
//! ```text
//!             enter                confirm               leave: begin        finish
//!   stranger ───────> joining ───────────────> member ──────────────> leaving ────────┐
//!                      │  │                      │  ^─── cancel ────────┘             │
//!          undo, expire│  │remove                │ remove                             v
//!                      └──┴──────────────────────┴──────────────────────────────> removed
//!            the token gets its use back
//! ```

mod applicant;
mod caller;
mod confirm;
mod decision;
mod expire;
mod found;
mod join;
mod keys;
mod leave;
mod recover;
mod remove;
mod renew;
mod request;
mod restore;
mod rotation;
mod settings;
mod token;
mod undo;

use time::{Duration, OffsetDateTime};

pub use applicant::{CONTROL_PLANE_MAX, MEMBERS_MAX};
pub use caller::Caller;
pub use confirm::decide_confirm;
pub use decision::{Decision, Outcome, TurnAnswer};
pub use expire::{EXPIRED_AT_ONCE_MAX, decide_expire};
pub use found::{Founder, decide_found};
pub use join::{JOIN_TIME_MAX, decide_ask, decide_enter};
pub use keys::decide_keys;
pub use leave::decide_leave;
pub use recover::decide_recover;
pub use remove::{RemoveRequest, decide_remove};
pub use renew::decide_renew;
pub use restore::decide_restore;
pub use rotation::{
    ROTATION_SINCE, RotationRequest, decide_rotation_advance, decide_rotation_begin,
    decide_rotation_finish, decide_rotation_turn, decide_rotation_without, missing_in_rotation,
};
pub use settings::{decide_api_port, decide_set, decide_trial_turn, decide_turn, decide_turn_end};
pub use token::{TOKENS_MAX, TokenSpec, decide_add_token, decide_revoke_token};
pub use undo::decide_undo;

use crate::message::{Message, Refusal, RefusalCode, Request};
use crate::record::ClusterRecord;
use crate::trust::BACKDATE;
use crate::version::{Version, check_releases};

/// Clocks of members are so near to each other. A certificate begins twice as long ago, so it is
/// valid by every clock that may be here.
pub const CLOCKS_APART_MAX: Duration = Duration::minutes(5);

const _: () = assert!(2 * CLOCKS_APART_MAX.whole_seconds() <= BACKDATE.whole_seconds());

/// Decides on a message from port 7443. `ours` is the release here.
pub fn decide(
    record: &ClusterRecord,
    message: &Message,
    caller: &Caller,
    ours: Version,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    // Whoever wants to go may, whatever version it has; and who may begin to may think again.
    let goes = matches!(message.request, Request::Undo(_) | Request::Leave(_));
    if !goes {
        check_releases(ours, message.release).map_err(|error| {
            Refusal::new(RefusalCode::ReleasesApart, error)
                .hint("install a release that is one minor release apart at most")
        })?;
        check_clocks(message.sent, now)?;
    }
    match &message.request {
        Request::Ask(proven) => decide_ask(record, proven, now),
        Request::Enter(enter) => decide_enter(record, enter, message.release, caller, now),
        Request::Confirm {} => decide_confirm(record, caller, now),
        Request::Undo(undo) => decide_undo(record, undo, caller, now),
        Request::Renew(renew) => decide_renew(record, renew, message.release, caller, now),
        Request::Members {} => {
            caller.identify(record, now)?;
            Ok(Decision::of(Outcome::Members))
        }
        Request::Leave(step) => decide_leave(record, *step, caller, now),
        Request::Keys { recipient } => decide_keys(record, recipient, caller, now),
    }
}

/// Whether the sender's clock is near enough: certificates would not be valid yet, or not any
/// more, and a message that was kept back by somebody is an old one.
pub(crate) fn check_clocks(theirs: OffsetDateTime, now: OffsetDateTime) -> Result<(), Refusal> {
    let apart = theirs - now;
    if apart.abs() <= CLOCKS_APART_MAX {
        return Ok(());
    }
    let (size, side) =
        (in_words(apart.abs()), if apart.is_positive() { "ahead of" } else { "behind" });
    let message = format!("the sender's clock is {size} {side} this member's");
    Err(Refusal::new(RefusalCode::ClocksApart, message)
        .hint("set both clocks (timedatectl set-ntp true), then try again"))
}

fn in_words(duration: Duration) -> String {
    match duration.whole_seconds() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
#[path = "protocol_test.rs"]
mod tests;

#[cfg(test)]
#[path = "protocol_join_test.rs"]
mod join_tests;

#[cfg(test)]
#[path = "protocol_member_test.rs"]
mod member_tests;

#[cfg(test)]
#[path = "protocol_interleaving_test.rs"]
mod interleaving;

#[cfg(test)]
#[path = "protocol_again_test.rs"]
mod again_tests;

#[cfg(test)]
#[path = "protocol_fuzz_test.rs"]
mod fuzz;
