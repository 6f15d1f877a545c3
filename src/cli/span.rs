//! Spans of time as people type them.

/// `90m`, `12h`, `30d`, `45s` or `3600` in seconds.
pub fn seconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(place) => text.split_at(place),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(format!("{unit:?} is not a unit of time: use s, m, h or d")),
    };
    let count: u64 = digits.parse().map_err(|_| format!("{text:?} is not a span of time"))?;
    count.checked_mul(factor).ok_or_else(|| format!("{text} is too long"))
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(seconds("90m"), Ok(5400));
        assert_eq!(seconds("2d"), Ok(172_800));
        assert_eq!(seconds("5"), Ok(5));
        assert!(seconds("5w").is_err());
        assert!(seconds("h").is_err());
        assert!(seconds("99999999999999999999d").is_err());
        assert!(seconds("9999999999999999999d").is_err());
    }
}
