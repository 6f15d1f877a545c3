//! Puts a distribution together from the cache: programs by hard link, images, table of contents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::builder::Built;
use super::cache::CacheShelf;
use crate::hash::hex;
use crate::image::{ImageFile, build_archive, image_digest};
use crate::project::{Arch, Project};
use crate::table::{Image, Table};

/// Files that only go into images lie under this name and not in a distribution.
const IMAGE_FILES: &str = "image-files/";
const MANIFEST: &str = "components.toml";

/// The table of contents that `skiff` reads.
#[derive(Serialize)]
struct Manifest {
    arch: &'static str,
    component: Vec<ManifestComponent>,
    image: Vec<ManifestImage>,
}

#[derive(Serialize)]
struct ManifestComponent {
    name: String,
    version: String,
    /// Another word for other contents, also where the version is the same.
    build: String,
    license: String,
    files: Vec<String>,
}

#[derive(Serialize)]
struct ManifestImage {
    name: String,
    reference: String,
    build: String,
    file: String,
    /// Under which the archive holds it.
    digest: String,
}

/// Makes `folder` hold what was built: the wanted images, and every program that is not only
/// part of one. Files of an earlier build that are no longer wanted go.
pub fn assemble(
    project: &Project,
    table: &Table,
    built: &[Built<'_>],
    images: &[&Image],
    arch: Arch,
    folder: &Path,
) -> Result<()> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut manifest = Manifest { arch: arch.name(), component: Vec::new(), image: Vec::new() };
    for one in built {
        let shipped: Vec<_> =
            one.component.programs.iter().filter(|p| !p.file.starts_with(IMAGE_FILES)).collect();
        files.extend(shipped.iter().map(|p| (p.file.clone(), one.folder.join(&p.file))));
        manifest.component.push(ManifestComponent {
            name: one.component.name.clone(),
            version: one.component.version.clone(),
            build: one.key.clone(),
            license: one.component.license.clone(),
            files: shipped.iter().map(|p| p.file.clone()).collect(),
        });
    }
    for image in images {
        let Some((build, archive)) = cached_image(project, image, built, arch)? else { continue };
        manifest.image.push(ManifestImage {
            name: image.name.clone(),
            reference: image.reference.clone(),
            build,
            file: image.file.clone(),
            digest: image_digest(&archive)?,
        });
        files.insert(image.file.clone(), archive);
    }
    for (name, source) in &files {
        place(source, &folder.join(name))?;
    }
    remove_others(folder, table, &files)?;
    write_if_changed(&folder.join(MANIFEST), &toml::to_string(&manifest)?)
}

/// Key and archive of an image from the cache, made when missing; none if a component of it was
/// skipped or a Debian package is not installed.
fn cached_image(
    project: &Project,
    image: &Image,
    built: &[Built<'_>],
    arch: Arch,
) -> Result<Option<(String, PathBuf)>> {
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(image)?);
    hash.update(arch.name());
    let mut files = Vec::new();
    for content in &image.contents {
        let source = if let Some(name) = &content.component {
            let Some(one) = built.iter().find(|one| one.component.name == *name) else {
                return Ok(None);
            };
            hash.update(&one.key);
            one.folder.join(&content.file)
        } else {
            let source = PathBuf::from(&content.file);
            if arch != Arch::host()? || !source.is_file() {
                println!(
                    "skipped: image {} for {}: {} is missing",
                    image.name,
                    arch.name(),
                    content.file
                );
                return Ok(None);
            }
            hash.update(fs::read(&source)?);
            source
        };
        files.push(ImageFile { source, to: content.to.clone() });
    }
    let key = hex(&hash.finalize())[..24].to_owned();
    let shelf = CacheShelf::open(&project.cache, &format!("image-{}", image.name))?;
    let entry = match shelf.find(&key) {
        Some(entry) => entry,
        None => shelf
            .make(&key, |folder| {
                build_archive(image, &files, arch.name(), &folder.join("image.tar"))
            })
            .with_context(|| format!("image {} was not made", image.name))?,
    };
    Ok(Some((key, entry.join("image.tar"))))
}

/// Links `source` to `target`, or copies it where the cache is on another file system. The
/// target appears by its name alone, so a program that runs keeps the file it was started from.
fn place(source: &Path, target: &Path) -> Result<()> {
    let wanted =
        fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))?;
    if let Ok(present) = fs::metadata(target) {
        let linked = (present.dev(), present.ino()) == (wanted.dev(), wanted.ino());
        let copied = present.dev() != wanted.dev()
            && present.len() == wanted.len()
            && present.mtime() == wanted.mtime();
        if linked || copied {
            return Ok(());
        }
    }
    let folder = target.parent().context("a target lies in no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let name = target.file_name().context("a target has no name")?.to_string_lossy();
    let new = folder.join(format!(".{name}.new"));
    let _ = fs::remove_file(&new);
    if fs::hard_link(source, &new).is_err() {
        fs::copy(source, &new)
            .and_then(|_| {
                fs::File::options().write(true).open(&new)?.set_modified(wanted.modified()?)
            })
            .with_context(|| format!("cannot copy {} to {}", source.display(), new.display()))?;
    }
    fs::rename(&new, target).with_context(|| format!("cannot write {}", target.display()))
}

/// Removes what an earlier table named in the folders that are ours; `bin/skiff` and add-ons
/// come from elsewhere and stay.
fn remove_others(folder: &Path, table: &Table, files: &BTreeMap<String, PathBuf>) -> Result<()> {
    let programs = table.components.iter().flat_map(|c| &c.programs).map(|p| &p.file);
    let archives = table.images.iter().map(|image| &image.file);
    for name in programs.chain(archives).filter(|name| !files.contains_key(*name)) {
        let path = folder.join(name);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let new = path.with_extension("new");
    fs::create_dir_all(path.parent().context("a target lies in no folder")?)?;
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Puts a program that is built elsewhere into a distribution.
pub fn place_program(source: &Path, target: &Path) -> Result<()> {
    place(source, target)
}

/// Makes `target` a copy of the data in `source`, which may not exist: then neither does the copy.
pub fn place_tree(source: &Path, target: &Path) -> Result<()> {
    let mut wanted = BTreeSet::new();
    if source.is_dir() {
        copy_tree(source, target, &mut wanted)?;
    }
    if target.is_dir() {
        remove_unwanted(target, &wanted)?;
    }
    Ok(())
}

/// Copies, never links: who edits a file in the clone must not change what a node runs.
fn copy_tree(source: &Path, target: &Path, wanted: &mut BTreeSet<PathBuf>) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot create {}", target.display()))?;
    for entry in
        fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))?
    {
        let entry = entry?;
        let path = target.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &path, wanted)?;
        } else {
            let content = fs::read(entry.path())?;
            if fs::read(&path).ok().as_ref() != Some(&content) {
                fs::write(&path, content)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        wanted.insert(path);
    }
    Ok(())
}

fn remove_unwanted(folder: &Path, wanted: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let is_folder = entry.file_type()?.is_dir();
        match (wanted.contains(&path), is_folder) {
            (true, true) => remove_unwanted(&path, wanted)?,
            (true, false) => {}
            (false, true) => fs::remove_dir_all(&path)?,
            (false, false) => fs::remove_file(&path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_follows_its_source() {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (folder.path().join("addons"), folder.path().join("dist/addons"));
        fs::create_dir_all(source.join("dns/manifests")).unwrap();
        fs::write(source.join("dns/addon.toml"), "one").unwrap();
        fs::write(source.join("dns/manifests/a.yaml"), "a").unwrap();
        place_tree(&source, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("dns/manifests/a.yaml")).unwrap(), "a");

        fs::write(source.join("dns/addon.toml"), "two").unwrap();
        fs::remove_dir_all(source.join("dns/manifests")).unwrap();
        place_tree(&source, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("dns/addon.toml")).unwrap(), "two");
        assert!(!target.join("dns/manifests").exists());
    }

    #[test]
    fn a_program_is_replaced_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let target = folder.path().join("dist/bin/skiff");
        fs::write(&old, "old").unwrap();
        fs::write(&new, "new").unwrap();
        place(&old, &target).unwrap();
        let running = fs::File::open(&target).unwrap();
        place(&new, &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert_eq!(std::io::read_to_string(running).unwrap(), "old");
        assert_eq!(fs::read_to_string(&old).unwrap(), "old");
    }
}
