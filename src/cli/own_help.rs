//! `skiff enable dns --help`: an addon's own help instead of the verb's.

use std::ffi::OsString;

use super::commands::Verb;
use super::session::Origin;
use super::{Arguments, parse};

/// The command line that shows the addon which was named beside the wish for help; none when no
/// addon was.
pub fn instead(args: &[OsString]) -> Option<(Arguments, Origin)> {
    let is_wish = |arg: &OsString| arg == "--help" || arg == "-h";
    let without: Vec<OsString> = args.iter().filter(|arg| !is_wish(arg)).cloned().collect();
    if without.len() == args.len() {
        return None;
    }
    let (arguments, origin) = parse(&without).ok()?;
    let verb = Verb::show_addon(arguments.verb.addon()?);
    Some((Arguments { verb, ..arguments }, origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Option<String> {
        let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let (arguments, _) = instead(&args)?;
        Some(format!("{} {:?}", arguments.root.display(), arguments.verb))
    }

    #[test]
    fn help_beside_an_addon_is_about_the_addon() {
        for line in [
            "skiff --root /r enable dns --help",
            "skiff --root /r enable -h dns:10.0.0.1 --wait",
            "skiff disable dns other --help --root /r",
        ] {
            let shown = shown(line).unwrap();
            assert!(shown.starts_with("/r Addons(") && shown.contains("\"dns\""), "{shown}");
        }
    }

    #[test]
    fn help_of_a_verb_stays_what_it_is() {
        for line in
            ["skiff enable --help", "skiff status --help", "skiff --help", "skiff enable dns"]
        {
            assert_eq!(shown(line), None, "{line}");
        }
    }
}
