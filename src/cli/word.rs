//! States as words, each with the tone in which it is shown.

use skiff_api::{AddonState, Phase, ServiceState};

use super::output::Cell;
use super::ui::Tone;

pub fn phase(phase: Phase) -> (&'static str, Tone) {
    match phase {
        Phase::Starting => ("starting", Tone::Warn),
        Phase::Ready => ("ready", Tone::Good),
        Phase::Degraded => ("degraded", Tone::Bad),
        Phase::Stopping => ("stopping", Tone::Warn),
        Phase::Stopped => ("stopped", Tone::Dim),
    }
}

pub fn service(state: ServiceState) -> Cell {
    let (word, tone) = match state {
        ServiceState::Stopped => ("stopped", Tone::Dim),
        ServiceState::Waiting => ("waiting", Tone::Warn),
        ServiceState::Starting => ("starting", Tone::Warn),
        ServiceState::Ready => ("ready", Tone::Good),
        ServiceState::Unready => ("unready", Tone::Bad),
        ServiceState::Stopping => ("stopping", Tone::Warn),
        ServiceState::BackOff => ("back-off", Tone::Bad),
        ServiceState::CrashLoop => ("crash-loop", Tone::Bad),
    };
    Cell::new(word, tone)
}

pub fn addon(state: AddonState) -> Cell {
    let (word, tone) = match state {
        AddonState::Disabled => ("disabled", Tone::Dim),
        AddonState::Progressing => ("progressing", Tone::Warn),
        AddonState::Enabled => ("enabled", Tone::Good),
        AddonState::Unhealthy => ("unhealthy", Tone::Bad),
        AddonState::Unknown => ("unknown", Tone::Warn),
    };
    Cell::new(word, tone)
}
