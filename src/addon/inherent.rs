//! Names that people of other distributions enable and that are always so here. Pure.

/// Each name with what is so, in the order of names.
const INHERENT: [(&str, &str); 2] = [
    ("ha-cluster", "every cluster with three control-plane nodes outlives the loss of one"),
    ("rbac", "every request to the API server is checked by RBAC"),
];

/// What is always so under this name.
pub fn look_up(name: &str) -> Option<&'static str> {
    INHERENT.iter().find(|(known, _)| *known == name).map(|(_, fact)| *fact)
}

/// All of these names.
pub fn names<'a>() -> impl Iterator<Item = &'a str> {
    INHERENT.iter().map(|(name, _)| -> &'a str { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_so_has_a_sentence() {
        assert!(look_up("rbac").is_some_and(|fact| fact.contains("RBAC")));
        assert!(look_up("ha-cluster").is_some());
        for not_yet in ["helm3", "community", "dns", ""] {
            assert_eq!(look_up(not_yet), None);
        }
    }
}
