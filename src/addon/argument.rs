//! The short form in which people name an addon and its options.

/// Takes `dns`, `dns:10.0.0.1` or `registry:size=40Gi:class=fast` apart.
///
/// What follows the first colon is a list of `key=value`, separated by colons, when every part
/// has a `=`; otherwise all of it is one value without a key (its key is empty), which the
/// addon's definition assigns to an option. So an IPv6 address needs no quoting: `dns:fd00::1`.
pub fn parse(text: &str) -> (String, Vec<(String, String)>) {
    let Some((name, rest)) = text.split_once(':') else { return (text.into(), Vec::new()) };
    if rest.is_empty() {
        return (name.into(), Vec::new());
    }
    let pairs: Option<Vec<_>> = rest
        .split(':')
        .map(|part| part.split_once('=').map(|(key, value)| (key.into(), value.into())))
        .collect();
    (name.into(), pairs.unwrap_or_else(|| vec![(String::new(), rest.into())]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<(String, String)> {
        parse(text).1
    }

    #[test]
    fn a_name_alone_has_no_options() {
        assert_eq!(parse("dns"), ("dns".into(), vec![]));
        assert_eq!(parse("dns:"), ("dns".into(), vec![]));
    }

    #[test]
    fn addresses_of_both_families_are_one_value() {
        assert_eq!(options("dns:10.0.0.1,10.0.0.2"), [("".into(), "10.0.0.1,10.0.0.2".into())]);
        assert_eq!(options("dns:fd00::1"), [("".into(), "fd00::1".into())]);
    }

    #[test]
    fn keys_with_values_are_options() {
        let expected = [("size".into(), "40Gi".into()), ("class".into(), "fast".into())];
        assert_eq!(options("registry:size=40Gi:class=fast"), expected);
    }
}
