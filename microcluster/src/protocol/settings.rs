//! What all nodes share, when it has changed on the node that decides it: so far where API servers
//! listen.

use super::decision::{Decision, Outcome};
use crate::message::{Refusal, RefusalCode};
use crate::record::{ClusterRecord, ClusterSettings};
use crate::store::Change;

/// Writes down where the API server of the only control-plane node listens. Where there are
/// several, one of them cannot speak for the others: all are dialled at the same port.
pub fn decide_api_port(record: &ClusterRecord, port: u16) -> Result<Decision, Refusal> {
    let settings = &record.settings.value;
    if settings.api_port == port {
        return Ok(Decision::of(Outcome::SettingsChanged));
    }
    if record.control_plane().count() > 1 {
        let message = format!(
            "api.port is {port} on this node, and the cluster's API servers listen at {}",
            settings.api_port
        );
        return Err(Refusal::new(RefusalCode::NotAllowed, message)
            .hint("give `api.port` one value on all control-plane nodes"));
    }
    let settings = ClusterSettings { api_port: port, ..settings.clone() };
    let changes = vec![
        Change::PutSettings { settings, was: Some(record.settings.revision) },
        // Another control-plane node may be joining at this moment.
        Change::membership(record),
    ];
    Ok(Decision::changing(changes, Outcome::SettingsChanged))
}
