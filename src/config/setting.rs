//! The table of settings: every name once, with what it does.

/// One setting.
#[derive(Debug)]
pub struct Known {
    /// Dotted: group, then name.
    pub key: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// Cannot change once the node has been started.
    pub fixed: bool,
}

const fn free(key: &'static str, description: &'static str) -> Known {
    Known { key, description, fixed: false }
}

const fn fixed(key: &'static str, description: &'static str) -> Known {
    Known { key, description, fixed: true }
}

pub const KNOWN: &[Known] = &[
    fixed("node.name", "the node's name; the machine's host name when absent"),
    free("node.address", "the address by which others reach it; followed when absent"),
    fixed("network.pod-cidr", "addresses of pods; each node gets a /24 of it"),
    fixed("network.service-cidr", "addresses of Services; the API server has the first"),
    free("network.dns-address", "where pods ask for names, inside the Services' addresses"),
    fixed("network.dns-domain", "the domain of names inside the cluster"),
    free("network.mtu", "largest packet of pods in bytes; 0 takes that of the machine's link"),
    free("api.port", "where the API server listens"),
    free("api.extra-sans", "names and addresses that its certificate holds besides its own"),
    free("pki.leaf-ttl-minutes", "life of certificates, which are renewed at half of it"),
    free("kube.api-server-args", "flags of kube-apiserver, after Skiff's own"),
    free("kube.controller-manager-args", "flags of kube-controller-manager"),
    free("kube.scheduler-args", "flags of kube-scheduler"),
    free("kube.kubelet-args", "flags of the kubelet"),
    free("kube.proxy-args", "flags of kube-proxy"),
];

/// The known name that looks most like it, if any does.
pub fn like(key: &str) -> Option<&'static str> {
    /// Below this it is another word, not a slip (Jaro-Winkler, 0 to 1).
    const LIKENESS_MIN: f64 = 0.85;
    let scored = KNOWN.iter().map(|known| (strsim::jaro_winkler(key, known.key), known.key));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= LIKENESS_MIN).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_table_and_the_types_have_the_same_settings() {
        let config: Config =
            toml::from_str("node = {name = \"a\", address = \"192.0.2.1\"}").unwrap();
        let value = toml::Value::try_from(&config).unwrap();
        let mut names: Vec<String> = Vec::new();
        for (group, settings) in value.as_table().unwrap() {
            names.extend(settings.as_table().unwrap().keys().map(|name| format!("{group}.{name}")));
        }
        let mut known: Vec<&str> = KNOWN.iter().map(|known| known.key).collect();
        names.sort();
        known.sort_unstable();
        assert_eq!(names, known);
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        assert_eq!(like("network.pod-cdir"), Some("network.pod-cidr"));
        assert_eq!(like("kube.kublet-args"), Some("kube.kubelet-args"));
        assert_eq!(like("storage.size"), None);
    }

    /// docs/reference/configuration.md is written by this test when SKIFF_REGENERATE is set.
    #[test]
    fn the_reference_page_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/configuration.md");
        let page = page();
        if std::env::var_os("SKIFF_REGENERATE").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "out of date: SKIFF_REGENERATE=1 cargo test -p skiff --lib config"
        );
    }

    fn page() -> String {
        let mut page = String::from(
            "# Configuration\n\n\
             The node reads `/etc/skiff/skiff.toml` (in another root: `skiff.toml` inside it), then\n\
             the files `*.toml` of the directory `skiff.toml.d` beside it, by name. What is read later\n\
             wins. All of it is read at the start of skiffd; `skiff get` shows every value and where it\n\
             comes from. A mistake anywhere keeps the node from starting and is told with its line.\n\n\
             ```toml\n[node]\nname = \"alpha\"\n\n[network]\nmtu = 1400\n```\n\n\
             Settings marked * are decided by the first start: pods and Services hold addresses and\n\
             names of it. Another value is refused later; `skiff reset` begins anew.\n\n\
             | Setting | Default | What it does |\n|---|---|---|\n",
        );
        let defaults = Config::default().settings();
        for (known, default) in KNOWN.iter().zip(defaults) {
            let mark = if known.fixed { " *" } else { "" };
            let value = if default.value.is_empty() {
                String::new()
            } else {
                format!("`{}`", default.value)
            };
            writeln!(page, "| `{}`{mark} | {value} | {} |", known.key, known.description).unwrap();
        }
        page
    }
}
