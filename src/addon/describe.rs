//! What people and programs are told of an addon beside its state. Pure.

use skiff_api::{Addon as State, AddonDetails, AddonOption};

use super::definition::Definition;
use super::option::{OptionDefinition, OptionType};

/// Everything about an addon whose state is `addon`.
pub fn details(addon: State, definition: &Definition) -> AddonDetails {
    AddonDetails {
        addon,
        needs: definition.needs.clone(),
        conflicts: definition.conflicts.clone(),
        architectures: definition.architectures.clone(),
        positional: definition.positional.clone(),
        options: definition.options.iter().map(option).collect(),
        data: definition.user_data.iter().map(|data| data.description.clone()).collect(),
    }
}

fn option(option: &OptionDefinition) -> AddonOption {
    AddonOption {
        name: option.name.clone(),
        form: form(option),
        description: option.description.clone(),
        default: option.default.as_ref().map(as_typed),
    }
}

/// What a value must be, in words.
fn form(option: &OptionDefinition) -> String {
    let mut words = match (option.kind, option.items) {
        (OptionType::List, items) => {
            format!("list of {}", word(items.unwrap_or(OptionType::String)))
        }
        (kind, _) => word(kind).to_owned(),
    };
    if !option.choices.is_empty() {
        words += &format!(": {}", option.choices.join(", "));
    }
    let unit = if option.kind == OptionType::List { " items" } else { "" };
    match (option.min, option.max) {
        (Some(min), Some(max)) => words += &format!(", {min} to {max}{unit}"),
        (Some(min), None) => words += &format!(", {min}{unit} at least"),
        (None, Some(max)) => words += &format!(", {max}{unit} at most"),
        (None, None) => {}
    }
    words
}

/// The words that `addon.toml` has for types.
fn word(kind: OptionType) -> &'static str {
    match kind {
        OptionType::String => "string",
        OptionType::Int => "int",
        OptionType::Bool => "bool",
        OptionType::Ip => "ip",
        OptionType::IpPort => "ip-port",
        OptionType::Cidr => "cidr",
        OptionType::Name => "name",
        OptionType::Quantity => "quantity",
        OptionType::List => "list",
    }
}

/// A default as it would be written on the command line.
fn as_typed(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(as_typed).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<AddonOption> {
        let text = format!("description = 'd'\nversion = '1'\n{text}");
        let definition = Definition::parse("sample", &text, &[]).unwrap();
        definition.options.iter().map(option).collect()
    }

    #[test]
    fn an_option_says_what_it_takes() {
        let described = |lines: &str| {
            let text = format!("[[option]]\nname = 'o'\ndescription = 'd'\n{lines}");
            let option = options(&text).remove(0);
            (option.form, option.default.unwrap_or_default())
        };
        for (lines, form, default) in [
            ("type = 'int'\ndefault = 1\nmin = 1\nmax = 100\n", "int, 1 to 100", "1"),
            ("type = 'int'\nmin = 1\n", "int, 1 at least", ""),
            (
                "type = 'list'\nitems = 'ip-port'\nmax = 15\n",
                "list of ip-port, 15 items at most",
                "",
            ),
            ("type = 'list'\ndefault = ['a', 'b']\n", "list of string", "a,b"),
            ("type = 'string'\nchoices = ['a', 'b']\ndefault = 'a'\n", "string: a, b", "a"),
        ] {
            assert_eq!(described(lines), (form.into(), default.into()), "{lines}");
        }
    }

    #[test]
    fn types_are_called_as_definitions_call_them() {
        for kind in ["string", "int", "bool", "ip", "ip-port", "cidr", "name", "quantity"] {
            let text = format!("[[option]]\nname = 'o'\ndescription = 'd'\ntype = '{kind}'\n");
            assert_eq!(options(&text)[0].form, kind);
        }
    }
}
