//! Labels and taints as Kubernetes writes them: `key=value` and `key=value:Effect`.

/// Labels that a token gives.
pub const LABELS_MAX: usize = 64;
/// Taints that a token gives.
pub const TAINTS_MAX: usize = 64;
/// A part of a key and a value are no longer.
const PART_LENGTH_MAX: usize = 63;
const PREFIX_LENGTH_MAX: usize = 253;
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Why a text is no label or taint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error("{0:?} is no key of a label: it is like example.com/rack or rack")]
    Key(String),
    #[error("{0:?} is no value of a label: 63 characters of letters, digits, '-', '_' and '.'")]
    Value(String),
    #[error("{0:?} is no taint: it is like key=value:NoSchedule or key:NoExecute")]
    Taint(String),
}

/// Checks one label.
pub fn check_label(key: &str, value: &str) -> Result<(), LabelError> {
    let shown = |text: &str| text.chars().take(80).collect();
    if !is_key(key) {
        return Err(LabelError::Key(shown(key)));
    }
    if !(value.is_empty() || is_part(value)) {
        return Err(LabelError::Value(shown(value)));
    }
    Ok(())
}

/// Checks one taint.
pub fn check_taint(text: &str) -> Result<(), LabelError> {
    let failed = || LabelError::Taint(text.chars().take(80).collect());
    let (label, effect) = text.rsplit_once(':').ok_or_else(failed)?;
    let (key, value) = label.split_once('=').unwrap_or((label, ""));
    check_label(key, value).map_err(|_| failed())?;
    if EFFECTS.contains(&effect) { Ok(()) } else { Err(failed()) }
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_part(key),
        Some((prefix, name)) => is_prefix(prefix) && is_part(name),
    }
}

fn is_prefix(prefix: &str) -> bool {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let part = |part: &str| {
        !part.is_empty()
            && part.chars().all(known)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    prefix.len() <= PREFIX_LENGTH_MAX && prefix.split('.').all(part)
}

fn is_part(part: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    (1..=PART_LENGTH_MAX).contains(&part.len())
        && part.chars().all(known)
        && is_end(part.chars().next())
        && is_end(part.chars().last())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_and_taints_are_those_of_kubernetes() {
        for (key, value, right) in [
            ("rack", "a1", true),
            ("example.com/rack", "", true),
            ("Example.com/rack", "a", false),
            ("rack/", "a", false),
            ("/rack", "a", false),
            ("ra ck", "a", false),
            ("rack", "-a", false),
            ("rack", "a b", false),
        ] {
            assert_eq!(check_label(key, value).is_ok(), right, "{key}={value}");
        }
        for (taint, right) in [
            ("gpu=yes:NoSchedule", true),
            ("gpu:NoExecute", true),
            ("gpu", false),
            ("gpu:Never", false),
            ("=a:NoExecute", false),
        ] {
            assert_eq!(check_taint(taint).is_ok(), right, "{taint}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_label_or_a_taint_panic(one in ".*", near in "[a-zé/=:._-]{0,80}") {
            for text in [&one, &near] {
                let _ = check_label(text, &one);
                let _ = check_label("a", text);
                let _ = check_taint(text);
                let _ = check_taint(&format!("{text}:NoSchedule"));
            }
        }
    }
}
