//! Answers the kernel out of a tree. See fuse(4) and `struct fuse_operations`.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno as Code;
use nix::fcntl::{FallocateFlags, OFlag};

use crate::faults::{Counts, Faults};
use crate::tree::{Body, Dir, File, Node, Owner, Tree};

/// The kernel asks again each time: nothing changes behind its back but sizes
/// that are cheap to ask for.
const TTL: Duration = Duration::ZERO;
const BLOCK: u64 = 4096;

/// What a mounted disk and its owner share.
#[derive(Debug)]
pub struct State {
    pub tree: Tree,
    pub faults: Faults,
    pub counts: Counts,
}

/// The file system that the kernel talks to.
pub struct Served(pub Arc<Mutex<State>>);

/// The state, whatever happened to whoever had it before.
pub fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn errno(code: Code) -> Errno {
    Errno::from_i32(code as i32)
}

fn attributes(number: u64, node: &Node) -> FileAttr {
    let (kind, size) = match &node.body {
        Body::File(file) => (FileType::RegularFile, file.view.len() as u64),
        Body::Dir(_) => (FileType::Directory, 0),
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: node.owner.mode,
        nlink: 1,
        uid: node.owner.uid,
        gid: node.owner.gid,
        rdev: 0,
        blksize: BLOCK as u32,
        flags: 0,
    }
}

impl Served {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn attributes(&self, number: u64) -> Result<FileAttr, Code> {
        self.state().tree.node(number).map(|node| attributes(number, node))
    }

    fn make(
        &self,
        (parent, name): (INodeNo, &OsStr),
        request: &Request,
        mode: u32,
        body: Body,
    ) -> Result<FileAttr, Code> {
        let mode = (mode & 0o7777) as u16;
        let owner = Owner { mode, uid: request.uid(), gid: request.gid() };
        let mut state = self.state();
        let number = state.tree.create(parent.0, name, owner, body)?;
        state.tree.node(number).map(|node| attributes(number, node))
    }

    fn write_data(&self, number: u64, offset: u64, data: &[u8], synced: bool) -> Result<u32, Code> {
        let mut state = self.state();
        if state.faults.fail_writes {
            return Err(Code::EIO);
        }
        state.tree.write(number, offset, data)?;
        state.counts.written_bytes += data.len() as u64;
        drop(state);
        if synced {
            self.sync(number)?;
        }
        Ok(data.len() as u32)
    }

    fn sync(&self, number: u64) -> Result<(), Code> {
        // The tree stays free for its owner while the disk is slow.
        let delay = self.state().faults.sync_delay;
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let mut state = self.state();
        if state.faults.fail_writes {
            return Err(Code::EIO);
        }
        if !state.faults.ignore_syncs && state.tree.sync(number)? {
            state.counts.syncs += 1;
        }
        Ok(())
    }

    fn done(reply: ReplyEmpty, result: Result<(), Code>) {
        match result {
            Ok(()) => reply.ok(),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn entry(reply: ReplyEntry, result: Result<FileAttr, Code>) {
        match result {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(code) => reply.error(errno(code)),
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.state().tree.lookup(parent.0, name);
        Self::entry(reply, found.and_then(|number| self.attributes(number)));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(number.0) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        let resized = size.map_or(Ok(()), |size| state.tree.resize(number.0, size));
        let changed = resized.and_then(|()| {
            let node = state.tree.node_mut(number.0)?;
            node.owner.mode = mode.map_or(node.owner.mode, |mode| (mode & 0o7777) as u16);
            node.owner.uid = uid.unwrap_or(node.owner.uid);
            node.owner.gid = gid.unwrap_or(node.owner.gid);
            Ok(attributes(number.0, node))
        });
        match changed {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let body = Body::Dir(Dir::default());
        Self::entry(reply, self.make((parent, name), request, mode & !umask, body));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let body = Body::File(File::default());
        match self.make((parent, name), request, mode & !umask, body) {
            Ok(attributes) => {
                let flags = FopenFlags::empty();
                reply.created(&TTL, &attributes, Generation(0), FileHandle(0), flags);
            }
            Err(code) => reply.error(errno(code)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::done(reply, self.state().tree.remove(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::done(reply, self.state().tree.remove(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut state = self.state();
        let is_taken = state.tree.lookup(new_parent.0, new_name).is_ok();
        let result = match flags {
            flags if flags.is_empty() => Ok(()),
            RenameFlags::RENAME_NOREPLACE if is_taken => Err(Code::EEXIST),
            RenameFlags::RENAME_NOREPLACE => Ok(()),
            _ => Err(Code::EINVAL),
        };
        let to = (new_parent.0, new_name);
        Self::done(reply, result.and_then(|()| state.tree.rename((parent.0, name), to)));
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.state().tree.file(number.0) {
            Ok(file) => {
                let start = file.view.len().min(offset as usize);
                let end = file.view.len().min(start + size as usize);
                reply.data(&file.view[start..end]);
            }
            Err(code) => reply.error(errno(code)),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // O_SYNC includes O_DSYNC.
        let synced = flags.0 & OFlag::O_DSYNC.bits() != 0;
        match self.write_data(number.0, offset, data, synced) {
            Ok(length) => reply.written(length),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        Self::done(reply, self.sync(number.0));
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        Self::done(reply, self.sync(number.0));
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.state().tree.dir(number.0) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.state();
        let dir = match state.tree.dir(number.0) {
            Ok(dir) => dir,
            Err(code) => return reply.error(errno(code)),
        };
        for (position, (name, child)) in dir.view.iter().enumerate().skip(offset as usize) {
            let kind = match state.tree.dir(*child) {
                Ok(_) => FileType::Directory,
                Err(_) => FileType::RegularFile,
            };
            if reply.add(INodeNo(*child), position as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let state = self.state();
        let blocks = state.tree.capacity / BLOCK;
        let free = state.tree.capacity.saturating_sub(state.tree.used()) / BLOCK;
        reply.statfs(blocks, free, free, 1 << 20, 1 << 20, BLOCK as u32, 255, BLOCK as u32);
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut state = self.state();
        let end = offset + length;
        let result = match FallocateFlags::from_bits_truncate(mode) {
            flags if flags.is_empty() => match state.tree.file(number.0) {
                Ok(file) if (file.view.len() as u64) < end => state.tree.resize(number.0, end),
                found => found.map(drop),
            },
            // Space need not be reserved: it is memory.
            FallocateFlags::FALLOC_FL_KEEP_SIZE => Ok(()),
            _ => Err(Code::EOPNOTSUPP),
        };
        Self::done(reply, result);
    }
}
