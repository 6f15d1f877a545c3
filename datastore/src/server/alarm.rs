//! Alarm: shows, raises and clears the alarms that stop requests.

use super::Server;
use crate::proto::alarm_request::AlarmAction;
use crate::proto::{AlarmMember, AlarmRequest, AlarmResponse, AlarmType};

/// There are two alarms. NOSPACE may be raised and cleared; clearing it lets
/// the next write try, and it comes back when there is still no space. CORRUPT
/// is raised and cleared by the member alone: nobody can talk damage away.
pub fn alarm(server: &Server, request: &AlarmRequest) -> AlarmResponse {
    let shared = server.engine.shared();
    let concerns = |alarm| request.alarm() == alarm || request.alarm() == AlarmType::None;
    let no_space = match request.action() {
        AlarmAction::Get => shared.no_space() && concerns(AlarmType::Nospace),
        AlarmAction::Activate => {
            if request.alarm() == AlarmType::Nospace {
                shared.set_no_space(true);
            }
            shared.no_space()
        }
        AlarmAction::Deactivate => concerns(AlarmType::Nospace) && shared.set_no_space(false),
    };
    let corrupt = shared.is_corrupt()
        && request.action() != AlarmAction::Deactivate
        && concerns(AlarmType::Corrupt);
    let identity = server.engine.identity();
    let raised = [(AlarmType::Nospace, no_space), (AlarmType::Corrupt, corrupt)];
    let raised = raised.into_iter().filter(|(_, is_raised)| *is_raised);
    let alarms =
        raised.map(|(alarm, _)| AlarmMember { member_id: identity.member_id, alarm: alarm as i32 });
    AlarmResponse { header: identity.header(server.engine.revision()), alarms: alarms.collect() }
}

#[cfg(test)]
#[path = "alarm_test.rs"]
mod tests;
