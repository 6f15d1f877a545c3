//! Addons as people see them.

use skiff_api::{Addon, AddonDetails, AddonDiff, AddonOption, ChangeAction, FieldChange};

use crate::cli::output::{self, COLUMNS, Cell};
use crate::cli::ui::Paint;
use crate::cli::word;

/// Why an addon is as it is, or else what it is for.
pub fn why(addon: &Addon) -> &str {
    if addon.message.is_empty() { &addon.description } else { &addon.message }
}

pub fn list(addons: &[Addon], paint: Paint) -> String {
    let mut rows = vec![["NAME", "STATE", "VERSION", "DESCRIPTION"].map(Cell::from).to_vec()];
    for addon in addons {
        let version = addon.applied.as_ref().unwrap_or(&addon.version);
        let state = word::addon(addon.state);
        rows.push(vec![(&addon.name).into(), state, version.into(), why(addon).into()]);
    }
    output::table(&rows, 0, paint)
}

pub fn one(details: &AddonDetails, paint: Paint) -> String {
    let addon = &details.addon;
    let version = match &addon.applied {
        None => addon.version.clone(),
        Some(applied) => {
            format!("{applied} ({} with skiff addons upgrade {})", addon.version, addon.name)
        }
    };
    let mut rows = vec![
        vec!["name".into(), (&addon.name).into()],
        vec!["state".into(), word::addon(addon.state)],
        vec!["version".into(), version.into()],
        vec!["description".into(), (&addon.description).into()],
    ];
    let mut row = |name: &str, text: String| {
        if !text.is_empty() {
            rows.push(vec![name.into(), text.into()]);
        }
    };
    row("also called", addon.aliases.join(", "));
    row("needs", details.needs.join(", "));
    row("not beside", details.conflicts.join(", "));
    row("runs on", details.architectures.join(", "));
    row("stores", details.data.join("; "));
    row("why", addon.message.clone());
    output::table(&rows, 0, paint) + &options(details, paint)
}

fn options(details: &AddonDetails, paint: Paint) -> String {
    let name = &details.addon.name;
    if details.options.is_empty() {
        return format!("\nskiff enable {name}; it has no options\n");
    }
    let mut rows = Vec::new();
    for AddonOption { name, form, description, default } in &details.options {
        let mut text = format!("{description} ({form}");
        if let Some(default) = default {
            text += &format!("; {default} when not given");
        }
        if details.positional.as_ref() == Some(name) {
            text += "; may stand behind the addon's name";
        }
        text.push(')');
        if let Some(chosen) = details.addon.chosen.get(name) {
            text += &format!(". Now: {chosen}");
        }
        rows.push(vec![Cell::from(name), text.into()]);
    }
    let behind = details.positional.as_ref().map(|name| format!("[:{name}]")).unwrap_or_default();
    let usage = format!("skiff enable {name}{behind} [--set OPTION=VALUE]..., with the options");
    format!("\n{}{}", output::paragraph(&usage, 0), output::table(&rows, 2, paint))
}

/// What would be changed in each addon.
pub fn diffs(diffs: &[AddonDiff]) -> String {
    diffs.iter().map(diff).collect()
}

pub fn diff(diff: &AddonDiff) -> String {
    let versions = match diff.from == diff.to {
        true => diff.to.clone(),
        false => format!("{} -> {}", diff.from, diff.to),
    };
    if diff.changes.is_empty() {
        return output::paragraph(&format!("{} ({versions}): nothing differs", diff.name), 0);
    }
    let mut text = output::paragraph(&format!("{} ({versions}):", diff.name), 0);
    for change in &diff.changes {
        let verb = match change.action {
            ChangeAction::Create => "create",
            ChangeAction::Change => "change",
            ChangeAction::Remove => "remove",
        };
        text += &output::paragraph(&format!("{verb} {}", change.object), 2);
        text.extend(change.fields.iter().map(field));
    }
    text
}

fn field(change: &FieldChange) -> String {
    let side = |mark: &str, value: &Option<String>| {
        let value = value.as_ref().map(|value| value.trim_end().replace('\n', "\\n"));
        value.map(|value| output::cut(&format!("      {mark} {value}"), COLUMNS) + "\n")
    };
    let sides = [side("-", &change.before), side("+", &change.after)];
    let path = output::cut(&format!("    {}", change.path), COLUMNS);
    format!("{path}\n{}", sides.into_iter().flatten().collect::<String>())
}
