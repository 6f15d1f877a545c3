//! The order in which daemons start, from what they need.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::{DaemonName, DaemonSpec};

/// Specifications that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("there are two daemons named {0}")]
    Duplicate(DaemonName),
    #[error("{name:?} cannot be the name of a daemon: lower-case letters, digits and - only")]
    Name { name: String },
    #[error("{name} needs {need}, which does not exist")]
    UnknownNeed { name: DaemonName, need: DaemonName },
    #[error("these daemons need each other: {}", list(.0))]
    Cycle(Vec<DaemonName>),
}

fn list(names: &[DaemonName]) -> String {
    names.iter().map(DaemonName::as_str).collect::<Vec<_>>().join(", ")
}

/// Names, each after everything that it needs, by name where needs leave it open.
pub fn order(specs: &[DaemonSpec]) -> Result<Vec<DaemonName>, SpecError> {
    let mut needs: BTreeMap<&DaemonName, BTreeSet<&DaemonName>> = BTreeMap::new();
    for spec in specs {
        check_name(&spec.name)?;
        if needs.insert(&spec.name, spec.needs.iter().collect()).is_some() {
            return Err(SpecError::Duplicate(spec.name.clone()));
        }
    }
    for (name, needed) in &needs {
        if let Some(need) = needed.iter().find(|need| !needs.contains_key(*need)) {
            return Err(SpecError::UnknownNeed { name: (*name).clone(), need: (*need).clone() });
        }
    }
    let mut ordered: Vec<DaemonName> = Vec::new();
    while !needs.is_empty() {
        let free =
            needs.iter().find(|(_, needed)| needed.iter().all(|need| ordered.contains(need)));
        let Some((&name, _)) = free else {
            return Err(SpecError::Cycle(needs.into_keys().cloned().collect()));
        };
        needs.remove(name);
        ordered.push(name.clone());
    }
    Ok(ordered)
}

/// A name becomes part of paths: of records and control groups.
fn check_name(name: &DaemonName) -> Result<(), SpecError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.as_str().is_empty() && name.as_str().chars().all(fits) {
        return Ok(());
    }
    Err(SpecError::Name { name: name.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, needs: &[&str]) -> DaemonSpec {
        let builder = DaemonSpec::builder(name, "/bin/true", "/log");
        needs.iter().fold(builder, |builder, need| builder.needs(*need)).build()
    }

    #[test]
    fn what_is_needed_comes_first() {
        let specs = [spec("a", &["c"]), spec("b", &["a", "c"]), spec("c", &[])];
        assert_eq!(order(&specs), Ok(vec!["c".into(), "a".into(), "b".into()]));
    }

    #[test]
    fn specifications_that_do_not_fit_are_refused() {
        let cycle = [spec("a", &["b"]), spec("b", &["a"]), spec("c", &[])];
        let refusals = [
            (order(&cycle), "these daemons need each other: a, b"),
            (order(&[spec("a", &["x"])]), "a needs x, which does not exist"),
            (order(&[spec("a", &[]), spec("a", &[])]), "there are two daemons named a"),
            (
                order(&[spec("../a", &[])]),
                "\"../a\" cannot be the name of a daemon: lower-case letters, digits and - only",
            ),
        ];
        for (refusal, text) in refusals {
            assert_eq!(refusal.expect_err("refused").to_string(), text);
        }
    }
}
