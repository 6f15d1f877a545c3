//! Files of an addon's folder, which may come from anybody: links are not followed, nothing but
//! plain files is read, and no more of them than is allowed.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// The text of a file directly in `folder`.
pub fn read_text(folder: &Path, name: &str, bytes_max: u64) -> Result<String, String> {
    require_folder(folder)?;
    let path = folder.join(name);
    let words = |e: std::io::Error| e.to_string();
    if fs::symlink_metadata(&path).map_err(words)?.is_symlink() {
        return Err("it is a link, which is not followed".into());
    }
    // Whoever puts a link or a pipe there in between is refused and waited for by nobody.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(&path);
    let file = file.map_err(words)?;
    if !file.metadata().map_err(words)?.is_file() {
        return Err("it is not a file".into());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(words)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it is larger than {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".into())
}

/// Names of the files in `folder` that end with `.yaml`, sorted.
pub fn list_yaml(folder: &Path, files_max: usize) -> Result<Vec<String>, String> {
    require_folder(folder)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| e.to_string())? {
        let name = entry.map_err(|e| e.to_string())?.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.ends_with(".yaml") || name.starts_with('.') {
            continue;
        }
        if names.len() == files_max {
            return Err(format!("there are more than {files_max} files"));
        }
        names.push(name.to_owned());
    }
    names.sort();
    Ok(names)
}

fn require_folder(folder: &Path) -> Result<(), String> {
    let words = |e: std::io::Error| format!("cannot read {}: {e}", folder.display());
    let found = fs::symlink_metadata(folder).map_err(words)?;
    if found.is_symlink() {
        return Err(format!("{} is a link, which is not followed", folder.display()));
    }
    if !found.is_dir() {
        return Err(format!("{} is not a folder", folder.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_out_of_the_folder_and_within_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("manifests");
        fs::create_dir(&folder).unwrap();
        fs::write(dir.path().join("outside.yaml"), "x").unwrap();
        fs::write(folder.join("own.yaml"), "x").unwrap();
        symlink("../outside.yaml", folder.join("out.yaml")).unwrap();
        symlink("own.yaml", folder.join("in.yaml")).unwrap();
        symlink(dir.path(), dir.path().join("linked")).unwrap();
        assert_eq!(read_text(&folder, "own.yaml", 1).unwrap(), "x");
        for name in ["out.yaml", "in.yaml"] {
            assert_eq!(
                read_text(&folder, name, 9).unwrap_err(),
                "it is a link, which is not followed"
            );
        }
        let linked = dir.path().join("linked");
        assert!(read_text(&linked, "outside.yaml", 9).unwrap_err().ends_with("is not followed"));
        assert!(list_yaml(&linked, 9).unwrap_err().ends_with("is not followed"));
    }

    #[test]
    fn a_pipe_holds_nobody_up_and_what_is_too_much_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mode = nix::sys::stat::Mode::S_IRWXU;
        nix::unistd::mkfifo(&dir.path().join("pipe.yaml"), mode).unwrap();
        fs::write(dir.path().join("large.yaml"), "12").unwrap();
        fs::write(dir.path().join("other.yaml"), [0xff]).unwrap();
        fs::create_dir(dir.path().join("folder.yaml")).unwrap();
        let problem = |name| read_text(dir.path(), name, 1).unwrap_err();
        assert_eq!(problem("pipe.yaml"), "it is not a file");
        assert_eq!(problem("folder.yaml"), "it is not a file");
        assert_eq!(problem("large.yaml"), "it is larger than 1 bytes");
        assert_eq!(problem("other.yaml"), "it is not UTF-8");
        assert_eq!(list_yaml(dir.path(), 4).unwrap().len(), 4);
        assert_eq!(list_yaml(dir.path(), 3).unwrap_err(), "there are more than 3 files");
    }
}
