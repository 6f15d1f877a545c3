//! What stands first in an archive: of which cluster it is, when it was taken, and what each part
//! must be.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::form::FormError;
use super::part;

/// The form of the archive; a later one is refused.
pub const FORMAT: u64 = 1;
/// A manifest is no longer than this: thousands of parts have room.
pub const BYTES_MAX: u64 = 1 << 20;

/// See the module's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u64,
    /// Versions that made it.
    pub skiff: String,
    pub kubernetes: String,
    /// The beginning of the sha256 of the authority's certificate, which names the cluster.
    pub cluster: String,
    /// The node on which it was taken.
    pub node: String,
    #[serde(with = "time::serde::rfc3339")]
    pub taken: OffsetDateTime,
    /// Of Kubernetes' objects.
    pub revision: i64,
    pub keys: u64,
    pub leases: u64,
    /// Who belonged to the cluster; nobody when the node was alone.
    #[serde(default)]
    pub members: Vec<Member>,
    /// In the order in which they follow.
    pub parts: Vec<Part>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    pub role: String,
}

/// A file in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

impl Manifest {
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("texts and numbers can be written")
    }

    /// Reads one, of whatever version, and believes no name in it.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormError> {
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let damaged = |why: String| FormError::Damaged(format!("its manifest: {why}"));
        let Format { format } =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if format > FORMAT {
            return Err(FormError::NewerFormat { found: format });
        }
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let mut seen = BTreeSet::new();
        for part in &manifest.parts {
            if !part::is_name(&part.name) || !seen.insert(&part.name) {
                return Err(damaged(format!("{:?} is no part, or stands twice", part.name)));
            }
        }
        match seen.contains(&part::KUBE.to_owned()) {
            true => Ok(manifest),
            false => Err(damaged("there are no objects".into())),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn sample(parts: &[(&str, &[u8])]) -> Manifest {
        let part = |(name, content): &(&str, &[u8])| Part {
            name: (*name).into(),
            bytes: content.len() as u64,
            sha256: super::super::form::sum_of(content),
        };
        Manifest {
            format: FORMAT,
            skiff: "0.1.0".into(),
            kubernetes: "1.36.3".into(),
            cluster: "0123456789abcdef".into(),
            node: "alpha".into(),
            taken: OffsetDateTime::UNIX_EPOCH,
            revision: 7,
            keys: 1,
            leases: 0,
            members: vec![],
            parts: parts.iter().map(part).collect(),
        }
    }

    #[test]
    fn a_manifest_reads_back_and_one_of_a_later_form_is_told_from_a_damaged_one() {
        let manifest = sample(&[("kube.snapshot", b"objects"), ("pki/ca.key", b"key")]);
        assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
        let later = br#"{"format": 2, "colour": "blue"}"#;
        assert!(matches!(Manifest::parse(later), Err(FormError::NewerFormat { found: 2 })));
        for bad in ["", "{", "[]", r#"{"format": 1}"#, r#"{"format": -1}"#] {
            assert!(matches!(Manifest::parse(bad.as_bytes()), Err(FormError::Damaged(_))), "{bad}");
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["../kube.snapshot", "/etc/passwd", "pki/../ca.key", "pki/", "a", "pki/.x"] {
            let manifest = sample(&[("kube.snapshot", b""), (name, b"")]);
            let parsed = Manifest::parse(&manifest.to_bytes());
            assert!(matches!(parsed, Err(FormError::Damaged(_))), "{name}");
        }
        let twice = sample(&[("kube.snapshot", b""), ("kube.snapshot", b"")]);
        assert!(Manifest::parse(&twice.to_bytes()).is_err());
        assert!(Manifest::parse(&sample(&[("pki/ca.key", b"")]).to_bytes()).is_err());
    }
}
