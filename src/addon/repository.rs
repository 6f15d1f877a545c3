//! Repositories of users' own: their addons are kept in the cluster, so that every node has the
//! same ones, whatever becomes of the place that they came from.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams};
use kube::{Client, ResourceExt};
use sha2::{Digest, Sha256};
use skiff_api::{Repository as Told, RepositoryContent};

use super::gzip;
use super::option::is_word;
use super::registry::Addon;
use super::store::NAMESPACE;
use super::texts;
use crate::kube::{ClusterError, FIELD_MANAGER, bounded};

/// Label of every repository; its value is the repository's name.
pub const LABEL: &str = "skiff.io/addon-repository";
const CONTENT: &str = "content.json.gz";
const DIGEST: &str = "digest";
/// Longest name of a repository, and of an addon in one: both together name objects.
const NAME_CHARS_MAX: usize = 24;
/// Most addons of one repository.
const ADDONS_MAX: usize = 200;

/// A repository as it was read.
#[derive(Clone, Debug)]
pub struct Repository {
    pub told: Told,
    pub addons: Vec<Addon>,
}

/// Checks a repository as a whole: one addon that is not well defined refuses all.
pub fn check(
    name: &str,
    content: &RepositoryContent,
    images: &[&str],
) -> Result<Repository, Vec<String>> {
    let mut problems = Vec::new();
    let is_name = |text: &str| is_word(text) && text.len() <= NAME_CHARS_MAX;
    if !is_name(name) {
        problems.push(format!(
            "{name:?}: a repository's name is {NAME_CHARS_MAX} lower-case letters, digits and - at \
             most"
        ));
    }
    if content.addons.is_empty() {
        problems.push("there is no addon in it: each is a folder with an addon.toml".into());
    }
    if content.addons.len() > ADDONS_MAX {
        problems.push(format!("it has more than {ADDONS_MAX} addons"));
        return Err(problems);
    }
    let mut addons = Vec::new();
    for (addon, texts) in &content.addons {
        if !is_name(addon) {
            let rule = "lower-case letters, digits and - at most";
            problems.push(format!("{addon:?}: an addon's name is {NAME_CHARS_MAX} {rule}"));
            continue;
        }
        match texts::parse(addon, texts, images) {
            Ok(parsed) => addons.push(parsed.in_repository(name)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let told = Told {
        name: name.into(),
        source: content.source.clone(),
        revision: content.revision.clone(),
        digest: digest(content),
        addons: content.addons.keys().cloned().collect(),
        problem: None,
    };
    Ok(Repository { told, addons })
}

/// Of everything that the addons consist of.
pub fn digest(content: &RepositoryContent) -> String {
    let text = serde_json::to_vec(&content.addons).expect("texts are JSON");
    let hash = Sha256::digest(&text);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The object that a repository is kept in; `None`: it is too large for one.
pub fn config_map(repository: &Told, content: &RepositoryContent) -> Option<ConfigMap> {
    let labels = [(LABEL, &*repository.name), ("app.kubernetes.io/managed-by", "skiff")];
    Some(ConfigMap {
        metadata: ObjectMeta {
            name: Some(object_name(&repository.name)),
            namespace: Some(NAMESPACE.into()),
            labels: Some(labels.map(|(key, value)| (key.into(), value.into())).into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(DIGEST.into(), repository.digest.clone())])),
        binary_data: Some(BTreeMap::from([(CONTENT.into(), ByteString(gzip::pack(content)?))])),
        ..ConfigMap::default()
    })
}

/// Reads a repository back, and checks it again: whoever may write into the cluster may have.
pub fn parse(map: &ConfigMap, images: &[&str]) -> Result<Repository, String> {
    let name = map.labels().get(LABEL).ok_or("it bears no name")?;
    let packed = map.binary_data.as_ref().and_then(|data| data.get(CONTENT));
    let content: Option<RepositoryContent> = packed.and_then(|packed| gzip::unpack(&packed.0));
    let content = content.ok_or("its content cannot be read")?;
    let recorded = map.data.as_ref().and_then(|data| data.get(DIGEST));
    if recorded != Some(&digest(&content)) {
        return Err("its content is not the one that was added: the digest differs".into());
    }
    check(name, &content, images).map_err(|problems| problems.join("; "))
}

/// What is told of one, usable or not. None: it bears no name, and nobody could ask for it.
pub fn tell(map: &ConfigMap, images: &[&str]) -> Option<Told> {
    let name = map.labels().get(LABEL)?;
    let problem = match parse(map, images) {
        Ok(repository) => return Some(repository.told),
        Err(problem) => problem,
    };
    Some(Told {
        name: name.clone(),
        source: String::new(),
        revision: None,
        digest: String::new(),
        addons: vec![],
        problem: Some(problem),
    })
}

/// All that the cluster has.
pub async fn list(client: &Client) -> Result<Vec<ConfigMap>, ClusterError> {
    let params = ListParams::default().labels(LABEL);
    let list = bounded("reading the repositories of addons", api(client).list(&params)).await?;
    Ok(list.items)
}

pub async fn write(client: &Client, map: &ConfigMap) -> Result<(), ClusterError> {
    let name = map.name_any();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let what = "writing a repository of addons";
    bounded(what, api(client).patch(&name, &params, &Patch::Apply(map))).await.map(drop)
}

pub async fn remove(client: &Client, name: &str) -> Result<(), ClusterError> {
    let what = format!("removing the repository {name}");
    match bounded(&what, api(client).delete(&object_name(name), &DeleteParams::default())).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

pub fn api(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn object_name(repository: &str) -> String {
    format!("skiff-addon-repository-{repository}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(addons: &[(&str, &str)]) -> RepositoryContent {
        let texts = |definition: &str| {
            BTreeMap::from([(texts::DEFINITION.to_owned(), definition.to_owned())])
        };
        RepositoryContent {
            source: "/srv/addons".into(),
            revision: None,
            addons: addons.iter().map(|(name, text)| ((*name).into(), texts(text))).collect(),
        }
    }

    const GOOD: &str = "description = 'd'\nversion = '1'\n";

    #[test]
    fn a_repository_is_read_back_as_it_was_added() {
        let content = content(&[("web", GOOD)]);
        let repository = check("mine", &content, &[]).unwrap();
        assert_eq!(repository.addons[0].name, "mine.web");
        let map = config_map(&repository.told, &content).unwrap();
        assert_eq!(parse(&map, &[]).unwrap().told, repository.told);
    }

    #[test]
    fn one_that_was_changed_in_the_cluster_is_not_taken() {
        let original = content(&[("web", GOOD)]);
        let told = check("mine", &original, &[]).unwrap().told;
        let other = content(&[("web", "description = 'other'\nversion = '1'\n")]);
        let map = config_map(&told, &other).unwrap();
        assert!(parse(&map, &[]).unwrap_err().ends_with("the digest differs"));
        let shown = tell(&map, &[]).unwrap();
        assert_eq!((&*shown.name, shown.addons.len()), ("mine", 0));
        assert!(shown.problem.unwrap().ends_with("the digest differs"));
        let mut map = config_map(&told, &original).unwrap();
        map.binary_data = None;
        assert_eq!(parse(&map, &[]).unwrap_err(), "its content cannot be read");
    }

    #[test]
    fn every_problem_of_a_repository_is_told_and_none_of_it_is_taken() {
        let content = content(&[("../etc", GOOD), ("good", GOOD), ("ill", "version = '1'\n")]);
        let problems = check("Mine", &content, &[]).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("\"Mine\": a repository's name is"), "{problems:?}");
        assert!(problems[1].starts_with("\"../etc\": an addon's name is"), "{problems:?}");
        assert!(problems[2].contains("missing field `description`"), "{problems:?}");
        let empty = RepositoryContent { addons: BTreeMap::new(), ..content };
        assert!(check("mine", &empty, &[]).unwrap_err()[0].starts_with("there is no addon in it"));
    }
}
