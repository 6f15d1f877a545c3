//! Lines of logs: when they were written, and how a person reads them.
//!
//! Daemons write in their own formats: ours one JSON object a line, containerd `time="…" …`,
//! Kubernetes `I0102 15:04:05.123456 …`. Nothing is rewritten on disk.

use std::fmt::Write as _;

use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime, Time};

use super::output;

/// When a line was written. None for a line that carries no time: it belongs to the one before.
/// `now` gives the year that Kubernetes leaves out.
pub fn written_at(line: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
    if line.starts_with('{') {
        let rest = line.split_once("\"timestamp\":\"")?.1;
        return rfc3339(rest.split('"').next()?);
    }
    if let Some((_, rest)) = line.split_once("time=\"") {
        return rfc3339(rest.split('"').next()?);
    }
    klog(line, now)
}

fn rfc3339(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// `I0102 15:04:05.123456`
fn klog(line: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let number = |range: std::ops::Range<usize>| line.get(range)?.parse::<u32>().ok();
    if !line.starts_with(['I', 'W', 'E', 'F']) || line.get(5..6)? != " " {
        return None;
    }
    let month = Month::try_from(u8::try_from(number(1..3)?).ok()?).ok()?;
    let part = |range| u8::try_from(number(range)?).ok();
    let time = Time::from_hms_micro(part(6..8)?, part(9..11)?, part(12..14)?, number(15..21)?);
    let time = time.ok()?;
    let day = part(3..5)?;
    let in_year = |year| Date::from_calendar_date(year, month, day).ok();
    let at = in_year(now.year())?.with_time(time).assume_utc();
    if at > now + time::Duration::days(1) {
        return Some(in_year(now.year() - 1)?.with_time(time).assume_utc());
    }
    Some(at)
}

/// A line as a person reads it: ours without the JSON around it, the others as they are.
pub fn render(line: &str) -> String {
    let Ok(Value::Object(object)) = serde_json::from_str::<Value>(line) else {
        return line.to_owned();
    };
    let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut out = format!("{} {:5}", word("timestamp"), word("level"));
    let Some(Value::Object(fields)) = object.get("fields") else { return line.to_owned() };
    if let Some(message) = fields.get("message") {
        let _ = write!(out, " {}", plain(message));
    }
    for (key, value) in fields.iter().filter(|(key, _)| *key != "message") {
        let _ = write!(out, " {key}={}", plain(value));
    }
    out.trim_start().to_owned()
}

/// A line among the causes of an error: as much as fits, the whole is in the log.
pub fn excerpt(line: &str) -> String {
    /// What stands before it on the screen.
    const LABEL: &str = "caused by:   ";
    output::cut(&render(line), output::COLUMNS - LABEL.len())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-02 00:00 UTC);

    #[test]
    fn every_daemons_time_is_understood() {
        let ours = r#"{"timestamp":"2026-01-01T10:00:00.5Z","level":"INFO","fields":{}}"#;
        let containerd = r#"time="2026-01-01T10:00:00.500000000Z" level=info msg="ready""#;
        let at = Some(datetime!(2026-01-01 10:00:00.5 UTC));
        assert_eq!(written_at(ours, NOW), at);
        assert_eq!(written_at(containerd, NOW), at);
        assert_eq!(written_at("I0101 10:00:00.500000   12 a.go:1] x", NOW), at);
    }

    #[test]
    fn a_month_that_is_still_to_come_was_last_years() {
        let line = "W1231 10:00:00.000000   12 a.go:1] x";
        assert_eq!(written_at(line, NOW), Some(datetime!(2025-12-31 10:00 UTC)));
    }

    #[test]
    fn lines_without_a_time_have_none() {
        for line in ["", "goroutine 1 [running]:", "Identity of x", "I9999 99:99:99.999999", "{"] {
            assert_eq!(written_at(line, NOW), None, "{line}");
        }
    }

    #[test]
    fn our_lines_are_shown_without_json() {
        let line =
            r#"{"timestamp":"T","level":"WARN","fields":{"message":"late","by_s":3},"target":"a"}"#;
        assert_eq!(render(line), "T WARN  late by_s=3");
        assert_eq!(render("I0101 plain"), "I0101 plain");
        assert_eq!(render("[1]"), "[1]");
    }
}
