//! Options of an addon: their types, and the way from text to a checked value.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_json::{Value, json};

/// Values of all options of an addon by name, each of its option's type.
pub type Values = BTreeMap<String, Value>;

/// Longest value of one option, in bytes: options are settings, not files.
const VALUE_BYTES_MAX: usize = 4096;

/// What a value must be. Each is a single line without control characters, so that none of them
/// can end the line or the block that it is put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OptionType {
    String,
    Int,
    Bool,
    /// An address of either family.
    Ip,
    /// An address, optionally with a port: `10.0.0.1`, `10.0.0.1:5353`, `[fd00::1]:53`.
    IpPort,
    /// A network: `10.0.0.0/8`.
    Cidr,
    /// A DNS name.
    Name,
    /// An amount as Kubernetes writes it: `500m`, `40Gi`.
    Quantity,
    /// Several, separated by commas, each of the type that `items` says.
    List,
}

/// One option as `addon.toml` declares it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OptionDefinition {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: OptionType,
    /// Type of a list's items; texts when absent.
    #[serde(default)]
    pub items: Option<OptionType>,
    pub description: String,
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    pub default: Option<toml::Value>,
    /// The only values allowed, when there are any.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Bounds of an `int`, or of the number of items of a `list`.
    #[serde(default)]
    pub min: Option<i64>,
    #[serde(default)]
    pub max: Option<i64>,
}

impl OptionDefinition {
    /// What is wrong with the declaration itself.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let name = &self.name;
        if !is_word(name) {
            problems.push(format!("option {name:?}: a name is lower-case letters, digits and -"));
        }
        if self.description.trim().is_empty() {
            problems.push(format!("option {name}: the description is empty"));
        }
        if self.items.is_some() && self.kind != OptionType::List {
            problems.push(format!("option {name}: only a list has items"));
        }
        if self.items == Some(OptionType::List) {
            problems.push(format!("option {name}: a list of lists is not possible"));
        }
        if self.min.zip(self.max).is_some_and(|(min, max)| min > max) {
            problems.push(format!("option {name}: min is larger than max"));
        }
        if self.default.is_some()
            && let Err(problem) = self.default_value()
        {
            problems.push(format!("option {name}: its default: {problem}"));
        }
        problems
    }

    /// The value when the user says nothing: the declared one, or the type's empty one.
    pub fn default_value(&self) -> Result<Value, String> {
        match &self.default {
            None if self.kind == OptionType::List => Ok(json!([])),
            None => Ok(Value::Null),
            Some(toml::Value::String(text)) => self.parse(text),
            Some(toml::Value::Array(items)) => {
                let texts: Option<Vec<_>> = items.iter().map(toml::Value::as_str).collect();
                self.parse(&texts.ok_or("the items of a list are written as texts")?.join(","))
            }
            Some(other) => self.parse(&other.to_string()),
        }
    }

    /// Reads what a user wrote. The error says what was expected.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        if text.len() > VALUE_BYTES_MAX {
            return Err(format!("longer than {VALUE_BYTES_MAX} bytes"));
        }
        if self.kind == OptionType::List {
            return self.parse_list(text);
        }
        let value = parse_scalar(self.kind, text)?;
        self.check_choice(text)?;
        if let Some(number) = value.as_i64() {
            self.check_range(number, "")?;
        }
        Ok(value)
    }

    fn parse_list(&self, text: &str) -> Result<Value, String> {
        let kind = self.items.unwrap_or(OptionType::String);
        let mut items = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            items.push(parse_scalar(kind, part)?);
            self.check_choice(part)?;
        }
        self.check_range(i64::try_from(items.len()).unwrap_or(i64::MAX), " items")?;
        Ok(Value::Array(items))
    }

    fn check_choice(&self, text: &str) -> Result<(), String> {
        if self.choices.is_empty() || self.choices.iter().any(|choice| choice == text) {
            return Ok(());
        }
        Err(format!("{text:?} is not one of {}", self.choices.join(", ")))
    }

    fn check_range(&self, number: i64, unit: &str) -> Result<(), String> {
        if let Some(min) = self.min.filter(|min| number < *min) {
            return Err(format!("{number}{unit} is less than {min}"));
        }
        if let Some(max) = self.max.filter(|max| number > *max) {
            return Err(format!("{number}{unit} is more than {max}"));
        }
        Ok(())
    }
}

/// Every option's value: what the user gave, else the default. All problems at once.
pub fn resolve(
    options: &[OptionDefinition],
    positional: Option<&str>,
    given: &[(String, String)],
) -> Result<Values, Vec<String>> {
    let mut values = Values::new();
    let mut problems = Vec::new();
    for option in options {
        match option.default_value() {
            Ok(value) => drop(values.insert(option.name.clone(), value)),
            Err(problem) => problems.push(format!("{}: {problem}", option.name)),
        }
    }
    let mut seen = Vec::new();
    for (key, text) in given {
        let name = match (key.as_str(), positional) {
            ("", Some(positional)) => positional,
            ("", None) => {
                problems.push(format!("{text:?} has no name, and no option is meant without one"));
                continue;
            }
            (key, _) => key,
        };
        let Some(option) = options.iter().find(|option| option.name == name) else {
            problems.push(unknown(options, name));
            continue;
        };
        if seen.contains(&name) {
            problems.push(format!("{name} is given twice"));
            continue;
        }
        seen.push(name);
        match option.parse(text) {
            Ok(value) => drop(values.insert(name.into(), value)),
            Err(problem) => {
                problems.push(format!("{name}: {problem} ({})", option.description));
            }
        }
    }
    if problems.is_empty() { Ok(values) } else { Err(problems) }
}

fn unknown(options: &[OptionDefinition], name: &str) -> String {
    let names: Vec<&str> = options.iter().map(|option| option.name.as_str()).collect();
    match names.as_slice() {
        [] => format!("there is no option {name}: this addon has none"),
        names => format!("there is no option {name}: there are {}", names.join(", ")),
    }
}

fn parse_scalar(kind: OptionType, text: &str) -> Result<Value, String> {
    if text.chars().any(char::is_control) {
        return Err("a control character or line break is not allowed".into());
    }
    let expected = |what: &str| format!("{text:?} is not {what}");
    match kind {
        OptionType::String => Ok(json!(text)),
        OptionType::Int => {
            text.parse::<i64>().map(|n| json!(n)).map_err(|_| expected("a whole number"))
        }
        OptionType::Bool => match text {
            "true" | "yes" | "on" => Ok(json!(true)),
            "false" | "no" | "off" => Ok(json!(false)),
            _ => Err(expected("true or false")),
        },
        OptionType::Ip => {
            text.parse::<IpAddr>().map(|ip| json!(ip)).map_err(|_| expected("an IP address"))
        }
        OptionType::IpPort => {
            let plain = text.parse::<IpAddr>().map(|ip| json!(ip));
            plain
                .or_else(|_| text.parse::<SocketAddr>().map(|address| json!(address)))
                .map_err(|_| expected("an IP address, alone or with a port"))
        }
        OptionType::Cidr => cidr(text).ok_or_else(|| expected("a network like 10.0.0.0/8")),
        OptionType::Name => {
            is_dns_name(text).then(|| json!(text)).ok_or_else(|| expected("a DNS name"))
        }
        OptionType::Quantity => {
            is_quantity(text).then(|| json!(text)).ok_or_else(|| expected("an amount like 40Gi"))
        }
        OptionType::List => Err("a list has no lists".into()),
    }
}

fn cidr(text: &str) -> Option<Value> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then(|| json!(format!("{address}/{bits}")))
}

fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn is_quantity(text: &str) -> bool {
    const SUFFIXES: [&str; 15] =
        ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[digits.len()..];
    let number = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    all_digits(number.0) && all_digits(number.1) && SUFFIXES.contains(&suffix)
}

/// Whether a text is made of lower-case letters, digits and inner hyphens.
pub fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase()) && is_dns_name(text) && !text.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(kind: OptionType, items: Option<OptionType>) -> OptionDefinition {
        OptionDefinition {
            name: "upstream".into(),
            kind,
            items,
            description: "resolvers".into(),
            default: None,
            choices: vec![],
            min: None,
            max: None,
        }
    }

    #[test]
    fn each_type_takes_what_it_says_and_nothing_else() {
        let cases: &[(OptionType, &[&str], &[&str])] = &[
            (OptionType::Int, &["0", "-7"], &["", "1.5", "0x1", "one"]),
            (OptionType::Bool, &["true", "off"], &["", "1", "True"]),
            (OptionType::Ip, &["10.0.0.1", "fd00::1"], &["10.0.0", "10.0.0.1:53", "a"]),
            (OptionType::IpPort, &["10.0.0.1", "10.0.0.1:53", "[fd00::1]:53"], &["host:53", "1:2"]),
            (OptionType::Cidr, &["10.0.0.0/8", "fd00::/64"], &["10.0.0.0", "10.0.0.0/33"]),
            (OptionType::Name, &["a", "lan.example"], &["", "-a", "a..b", "A", "a b", "a}"]),
            (OptionType::Quantity, &["40Gi", "500m", "1.5"], &["", "Gi", "4GG", "1.", "-1"]),
            (OptionType::String, &["", "two words"], &["a\nb", "a\u{0}"]),
        ];
        for (kind, good, bad) in cases {
            for text in *good {
                assert!(option(*kind, None).parse(text).is_ok(), "{kind:?} {text:?}");
            }
            for text in *bad {
                assert!(option(*kind, None).parse(text).is_err(), "{kind:?} {text:?}");
            }
        }
    }

    #[test]
    fn a_value_without_a_name_goes_to_the_positional_option() {
        let options = [option(OptionType::List, Some(OptionType::IpPort))];
        let given = [(String::new(), "10.0.0.1, fd00::1".to_owned())];
        let values = resolve(&options, Some("upstream"), &given).unwrap();
        assert_eq!(values["upstream"], json!(["10.0.0.1", "fd00::1"]));
        assert!(resolve(&options, None, &given).is_err());
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let options = [option(OptionType::Int, None)];
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let given = [pair("upstream", "x"), pair("size", "1")];
        let problems = resolve(&options, None, &given).unwrap_err();
        assert_eq!(
            problems,
            [
                "upstream: \"x\" is not a whole number (resolvers)",
                "there is no option size: there are upstream"
            ]
        );
    }
}
