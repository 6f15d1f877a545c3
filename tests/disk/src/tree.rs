//! Files and directories in memory, each with what is seen and what is durable.
//! Pure.
//!
//! ```text
//!   write "ab"        view "ab"    durable ""
//!   sync the file     view "ab"    durable "ab"     its name: not yet
//!   sync the parent                                 its name: durable
//!   write "cd" at 0   view "cd"    durable "ab"     pending 0..2
//!   power cut         view "ab"
//! ```
//!
//! A name is durable only once its directory was synced, as POSIX has it; most
//! file systems are kinder, so what passes here passes there.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::ops::Range;

use nix::errno::Errno;

/// The number of the root directory.
pub const ROOT: u64 = 1;
/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// What becomes of writes that were not synced when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// None of them was written.
    All,
    /// Each sector was written or not, as this seed says.
    Torn(u64),
}

/// Who owns a node and who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
}

/// A file or a directory.
#[derive(Debug)]
pub struct Node {
    pub owner: Owner,
    pub body: Body,
}

/// What a node holds.
#[derive(Debug)]
pub enum Body {
    File(File),
    Dir(Dir),
}

/// The bytes of a file.
#[derive(Debug, Default)]
pub struct File {
    pub view: Vec<u8>,
    durable: Vec<u8>,
    /// Written since the last sync.
    pending: Vec<Range<usize>>,
    /// Length that the file had at least, at any time since the last sync.
    shortest: Option<usize>,
}

/// The names in a directory.
#[derive(Debug, Default)]
pub struct Dir {
    pub view: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
}

/// A whole file system.
#[derive(Debug)]
pub struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// How many bytes the files may hold together.
    pub capacity: u64,
}

impl File {
    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if self.view.len() < end {
            self.resize(end);
        }
        self.view[offset..end].copy_from_slice(data);
        self.pending.push(offset..end);
    }

    fn resize(&mut self, length: usize) {
        let shortest = self.shortest.unwrap_or(self.view.len());
        self.shortest = Some(shortest.min(length));
        self.view.resize(length, 0);
    }

    /// Whether there was something to sync.
    fn sync(&mut self) -> bool {
        if self.pending.is_empty() && self.shortest.is_none() {
            return false;
        }
        self.durable.truncate(self.shortest.take().unwrap_or(usize::MAX));
        self.durable.resize(self.view.len(), 0);
        for range in std::mem::take(&mut self.pending) {
            let range = range.start.min(self.view.len())..range.end.min(self.view.len());
            self.durable[range.clone()].copy_from_slice(&self.view[range]);
        }
        true
    }

    fn lose(&mut self, mut is_written: impl FnMut() -> bool) {
        for range in std::mem::take(&mut self.pending) {
            let end = range.end.min(self.view.len());
            let mut start = range.start;
            while start < end {
                let stop = (start / SECTOR * SECTOR + SECTOR).min(end);
                if is_written() {
                    if self.durable.len() < stop {
                        self.durable.resize(stop, 0);
                    }
                    self.durable[start..stop].copy_from_slice(&self.view[start..stop]);
                }
                start = stop;
            }
        }
        self.shortest = None;
        self.view.clone_from(&self.durable);
    }
}

impl Tree {
    /// An empty file system of so many bytes.
    pub fn new(capacity: u64) -> Tree {
        let owner = Owner { mode: 0o755, uid: 0, gid: 0 };
        let root = Node { owner, body: Body::Dir(Dir::default()) };
        Tree { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, capacity }
    }

    pub fn node(&self, number: u64) -> Result<&Node, Errno> {
        self.nodes.get(&number).ok_or(Errno::ENOENT)
    }

    pub fn node_mut(&mut self, number: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&number).ok_or(Errno::ENOENT)
    }

    pub fn file(&self, number: u64) -> Result<&File, Errno> {
        match &self.node(number)?.body {
            Body::File(file) => Ok(file),
            Body::Dir(_) => Err(Errno::EISDIR),
        }
    }

    fn file_mut(&mut self, number: u64) -> Result<&mut File, Errno> {
        match &mut self.node_mut(number)?.body {
            Body::File(file) => Ok(file),
            Body::Dir(_) => Err(Errno::EISDIR),
        }
    }

    pub fn dir(&self, number: u64) -> Result<&Dir, Errno> {
        match &self.node(number)?.body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn dir_mut(&mut self, number: u64) -> Result<&mut Dir, Errno> {
        match &mut self.node_mut(number)?.body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }

    /// The node with this name.
    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        self.dir(parent)?.view.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// Makes an empty file or directory.
    pub fn create(
        &mut self,
        parent: u64,
        name: &OsStr,
        owner: Owner,
        body: Body,
    ) -> Result<u64, Errno> {
        let number = self.next;
        let dir = self.dir_mut(parent)?;
        if dir.view.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        dir.view.insert(name.to_owned(), number);
        self.nodes.insert(number, Node { owner, body });
        self.next += 1;
        Ok(number)
    }

    /// Takes a name away; the node stays for those who have it open.
    pub fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let number = self.lookup(parent, name)?;
        if let Body::Dir(dir) = &self.node(number)?.body
            && !dir.view.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.dir_mut(parent)?.view.remove(name);
        Ok(())
    }

    /// Moves a name, over another one if there is one.
    pub fn rename(
        &mut self,
        (parent, name): (u64, &OsStr),
        (new_parent, new_name): (u64, &OsStr),
    ) -> Result<(), Errno> {
        let number = self.lookup(parent, name)?;
        self.dir(new_parent)?;
        self.dir_mut(parent)?.view.remove(name);
        self.dir_mut(new_parent)?.view.insert(new_name.to_owned(), number);
        Ok(())
    }

    pub fn write(&mut self, number: u64, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let offset = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        self.reserve(number, offset + data.len())?;
        self.file_mut(number)?.write(offset, data);
        Ok(())
    }

    pub fn resize(&mut self, number: u64, length: u64) -> Result<(), Errno> {
        let length = usize::try_from(length).map_err(|_| Errno::EFBIG)?;
        self.reserve(number, length)?;
        self.file_mut(number)?.resize(length);
        Ok(())
    }

    fn reserve(&self, number: u64, length: usize) -> Result<(), Errno> {
        let more = length.saturating_sub(self.file(number)?.view.len()) as u64;
        if more > 0 && self.used() + more > self.capacity {
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    /// Makes a file's bytes or a directory's names durable; whether there was
    /// something to do.
    pub fn sync(&mut self, number: u64) -> Result<bool, Errno> {
        match &mut self.node_mut(number)?.body {
            Body::File(file) => Ok(file.sync()),
            Body::Dir(dir) => {
                let changed = dir.durable != dir.view;
                dir.durable.clone_from(&dir.view);
                Ok(changed)
            }
        }
    }

    /// Makes everything durable, as an unmount does.
    pub fn sync_all(&mut self) {
        for node in self.nodes.values_mut() {
            match &mut node.body {
                Body::File(file) => drop(file.sync()),
                Body::Dir(dir) => dir.durable.clone_from(&dir.view),
            }
        }
    }

    /// Bytes in files that have a name.
    pub fn used(&self) -> u64 {
        let mut sum = 0;
        self.walk(|node| {
            if let Body::File(file) = &node.body {
                sum += file.view.len() as u64;
            }
        });
        sum
    }

    fn walk(&self, mut visit: impl FnMut(&Node)) {
        let mut open = vec![ROOT];
        while let Some(number) = open.pop() {
            let Some(node) = self.nodes.get(&number) else { continue };
            visit(node);
            if let Body::Dir(dir) = &node.body {
                open.extend(dir.view.values());
            }
        }
    }

    /// The power fails: only what is durable stays. Nobody may have a file open.
    pub fn power_cut(&mut self, loss: Loss) {
        let mut random = match loss {
            Loss::All => None,
            Loss::Torn(seed) => Some(seed | 1),
        };
        let mut is_written = || {
            let Some(state) = &mut random else { return false };
            // xorshift64 (Marsaglia 2003)
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *state >> 63 == 1
        };
        for node in self.nodes.values_mut() {
            match &mut node.body {
                Body::File(file) => file.lose(&mut is_written),
                Body::Dir(dir) => dir.view.clone_from(&dir.durable),
            }
        }
        self.forget_nameless();
    }

    fn forget_nameless(&mut self) {
        let mut named = std::collections::BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(number) = open.pop() {
            if let Some(Node { body: Body::Dir(dir), .. }) = self.nodes.get(&number) {
                open.extend(dir.view.values().filter(|number| named.insert(**number)));
            }
        }
        self.nodes.retain(|number, _| named.contains(number));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OWNER: Owner = Owner { mode: 0o600, uid: 0, gid: 0 };

    fn with_file() -> (Tree, u64) {
        let mut tree = Tree::new(1 << 20);
        let number = tree.create(ROOT, OsStr::new("a"), OWNER, Body::File(File::default()));
        (tree, number.unwrap())
    }

    #[test]
    fn what_was_not_synced_is_lost_and_what_was_is_not() {
        let (mut tree, number) = with_file();
        tree.write(number, 0, b"ab").unwrap();
        assert!(tree.sync(number).unwrap() && tree.sync(ROOT).unwrap());
        assert!(!tree.sync(number).unwrap(), "nothing is left to sync");
        tree.write(number, 1, b"cd").unwrap();
        assert_eq!(tree.file(number).unwrap().view, b"acd");
        tree.power_cut(Loss::All);
        assert_eq!(tree.file(number).unwrap().view, b"ab");
    }

    #[test]
    fn a_name_is_durable_with_its_directory_only() {
        let (mut tree, number) = with_file();
        tree.write(number, 0, b"ab").unwrap();
        tree.sync(number).unwrap();
        tree.power_cut(Loss::All);
        assert_eq!(tree.lookup(ROOT, OsStr::new("a")), Err(Errno::ENOENT));
        assert_eq!(tree.file(number).err(), Some(Errno::ENOENT));
    }

    #[test]
    fn a_rename_that_was_not_synced_is_undone() {
        let (mut tree, number) = with_file();
        tree.sync(ROOT).unwrap();
        tree.rename((ROOT, OsStr::new("a")), (ROOT, OsStr::new("b"))).unwrap();
        tree.power_cut(Loss::All);
        assert_eq!(tree.lookup(ROOT, OsStr::new("a")), Ok(number));
        assert!(tree.lookup(ROOT, OsStr::new("b")).is_err());
    }

    #[test]
    fn bytes_behind_a_cut_that_was_synced_are_zero_when_the_file_grows_again() {
        let (mut tree, number) = with_file();
        tree.write(number, 0, b"abcdef").unwrap();
        tree.sync(number).unwrap();
        tree.sync(ROOT).unwrap();
        tree.resize(number, 2).unwrap();
        tree.resize(number, 4).unwrap();
        tree.sync(number).unwrap();
        tree.power_cut(Loss::All);
        assert_eq!(tree.file(number).unwrap().view, b"ab\0\0");
    }

    #[test]
    fn torn_writes_keep_whole_sectors_as_the_seed_says() {
        let torn = |seed| {
            let (mut tree, number) = with_file();
            tree.sync(ROOT).unwrap();
            tree.write(number, 0, &[1; 64 * SECTOR]).unwrap();
            tree.power_cut(Loss::Torn(seed));
            tree.file(number).unwrap().view.clone()
        };
        let (one, other) = (torn(3), torn(5));
        assert_eq!(one, torn(3), "a seed says the same each time");
        assert_ne!(one, other);
        for sector in one.chunks(SECTOR) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is torn");
        }
        assert!(one.contains(&0) && one.contains(&1));
    }

    #[test]
    fn a_full_disk_refuses_what_does_not_fit_and_has_room_after_a_removal() {
        let (mut tree, number) = with_file();
        assert_eq!(tree.write(number, 0, &vec![0; (1 << 20) + 1]), Err(Errno::ENOSPC));
        tree.write(number, 0, &vec![0; 1 << 20]).unwrap();
        tree.write(number, 0, b"over what is there").unwrap();
        let other = tree.create(ROOT, OsStr::new("b"), OWNER, Body::File(File::default()));
        let other = other.unwrap();
        assert_eq!(tree.write(other, 0, b"x"), Err(Errno::ENOSPC));
        tree.remove(ROOT, OsStr::new("a")).unwrap();
        tree.write(other, 0, b"x").unwrap();
    }
}
