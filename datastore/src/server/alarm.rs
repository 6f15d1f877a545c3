//! Alarm: shows, raises and clears the alarm that stops writes.

use super::Server;
use crate::proto::alarm_request::AlarmAction;
use crate::proto::{AlarmMember, AlarmRequest, AlarmResponse, AlarmType};

/// There is one alarm, NOSPACE. Clearing it lets the next write try; it comes
/// back when there is still no space.
pub fn alarm(server: &Server, request: &AlarmRequest) -> AlarmResponse {
    let shared = server.engine.shared();
    let concerns = matches!(request.alarm(), AlarmType::Nospace | AlarmType::None);
    let shown = match request.action() {
        AlarmAction::Get => shared.no_space() && concerns,
        AlarmAction::Activate => {
            if request.alarm() == AlarmType::Nospace {
                shared.set_no_space(true);
            }
            shared.no_space()
        }
        AlarmAction::Deactivate => concerns && shared.set_no_space(false),
    };
    let identity = server.engine.identity();
    let alarm = AlarmMember { member_id: identity.member_id, alarm: AlarmType::Nospace as i32 };
    AlarmResponse {
        header: identity.header(server.engine.revision()),
        alarms: if shown { vec![alarm] } else { Vec::new() },
    }
}
