//! Backups and restores in a process of their own, so that it can be killed.
//! The process is this test program again, asked for one of the two below.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use skiff_datastore::Listen;
use skiff_datastore::backup::restore;

use crate::{backup, restore_options};

const FROM: &str = "SKIFF_TEST_FROM";
const TO: &str = "SKIFF_TEST_TO";

fn start(test: &str, from: &str, to: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("child::{test}"), "--ignored"])
        .env(FROM, from)
        .env(TO, to)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Backs `from` up to `dir`/backup.
pub fn start_backup(from: &Listen, dir: &Path) -> Child {
    start("backs_up", &from.to_string(), dir)
}

/// Restores the file to `dir`, replacing what is there.
pub fn start_restore(file: &Path, dir: &Path) -> Child {
    start("restores", file.to_str().unwrap(), dir)
}

fn arguments() -> Option<(String, PathBuf)> {
    Some((std::env::var(FROM).ok()?, std::env::var_os(TO)?.into()))
}

#[tokio::test]
#[ignore = "the process that other tests kill"]
async fn backs_up() {
    let Some((from, to)) = arguments() else { return };
    backup(from.parse().unwrap(), &to).await.unwrap();
}

#[tokio::test]
#[ignore = "the process that other tests kill"]
async fn restores() {
    let Some((from, to)) = arguments() else { return };
    let mut options = restore_options(to);
    options.replace = true;
    options.stamp = std::process::id().to_string();
    restore(Path::new(&from), &options).await.unwrap();
}
