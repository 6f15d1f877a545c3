//! Reading a log from its oldest line on, and on and on while it is written and rotated.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::rotated;

/// Between two looks at a file that is followed.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(150);
/// A line is given out in parts when it is longer.
const LINE_BYTES_MAX: usize = 1 << 20;
const CHUNK_BYTES: usize = 64 << 10;
/// Rotated files that are looked for.
const FILES_MAX: u32 = 100;

/// A rotated file that is recognised under its next name.
type Mark = (u64, i64, i64);

/// Reads lines, oldest first, across rotations. Any process that may read the files can use it.
pub struct LogReader {
    path: PathBuf,
    /// Rotated files still to be read, oldest first, each with the place to go on from.
    pending: VecDeque<(File, u64)>,
    current: Option<Current>,
    buffer: Vec<u8>,
}

struct Current {
    file: Arc<File>,
    offset: u64,
    /// What `.1` was when the offset was right: another one there means a rotation.
    newest: Option<Mark>,
}

impl LogReader {
    /// Begins `lines_max` lines before the end, or at the oldest line that there is. A file that
    /// is not there yet is an empty one.
    pub fn open(path: impl Into<PathBuf>, lines_max: Option<usize>) -> io::Result<Self> {
        let path = path.into();
        let mut reader = Self { path, pending: VecDeque::new(), current: None, buffer: Vec::new() };
        let Some(file) = open_if_there(&reader.path)? else { return Ok(reader) };
        let lock = Shared::lock(&file)?;
        for number in (1..=FILES_MAX).take_while(|n| rotated(&reader.path, *n).exists()) {
            if let Some(file) = open_if_there(&rotated(&reader.path, number))? {
                reader.pending.push_front((file, 0));
            }
        }
        let newest = mark(&reader.path, 1);
        drop(lock);
        reader.current = Some(Current { file: Arc::new(file), offset: 0, newest });
        if let Some(lines_max) = lines_max {
            reader.skip_to_last(lines_max)?;
        }
        Ok(reader)
    }

    /// The next whole line without its end; none when there is none yet.
    pub fn read_line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Waits until there is a next line.
    pub async fn next_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(line) = self.read_line()? {
                return Ok(line);
            }
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
    }

    /// What stands at the end without an end of line.
    pub fn remainder(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.buffer);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }

    fn take_line(&mut self) -> Option<String> {
        let end = match self.buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.buffer.len() > LINE_BYTES_MAX => self.buffer.len(),
            None => return None,
        };
        let line: Vec<u8> = self.buffer.drain(..end).collect();
        Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned())
    }

    /// Reads on into the buffer; 0 at the end.
    fn fill(&mut self) -> io::Result<usize> {
        loop {
            while let Some((file, offset)) = self.pending.front_mut() {
                let length = read_at(file, offset, &mut self.buffer)?;
                if length > 0 {
                    return Ok(length);
                }
                self.pending.pop_front();
            }
            let Some(current) = &mut self.current else {
                let Some(file) = open_if_there(&self.path)? else { return Ok(0) };
                let newest = mark(&self.path, 1);
                self.current = Some(Current { file: Arc::new(file), offset: 0, newest });
                continue;
            };
            let held = Arc::clone(&current.file);
            let _lock = Shared::lock(&held)?;
            if mark(&self.path, 1) != current.newest {
                self.pending = current.catch_up(&self.path)?;
                if !self.pending.is_empty() {
                    continue;
                }
            }
            if current.file.metadata()?.len() < current.offset {
                // Truncated by somebody else.
                current.offset = 0;
            }
            return read_at(&current.file, &mut current.offset, &mut self.buffer);
        }
    }

    /// Counts ends of lines back from the end: one more than there are lines, since the last line
    /// begins after the end of the one before it. A line may lie in two files.
    fn skip_to_last(&mut self, lines_max: usize) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let mut ends = lines_max.saturating_add(1);
        if let Some(offset) = find_back(&current.file, &mut ends)? {
            current.offset = offset;
            self.pending.clear();
            return Ok(());
        }
        let mut kept = VecDeque::new();
        while let Some((file, _)) = self.pending.pop_back() {
            let found = find_back(&file, &mut ends)?;
            kept.push_front((file, found.unwrap_or(0)));
            if found.is_some() {
                break;
            }
        }
        self.pending = kept;
        Ok(())
    }
}

impl Current {
    /// Files that were rotated since, from where reading had come to; moves the own offset to
    /// where these end.
    fn catch_up(&mut self, path: &Path) -> io::Result<VecDeque<(File, u64)>> {
        let known = self.newest;
        let is_new = |number: &u32| {
            let mark = mark(path, *number);
            mark.is_some() && mark != known
        };
        let newer: Vec<u32> = (1..=FILES_MAX).take_while(is_new).collect();
        let mut pending = VecDeque::new();
        for number in newer.into_iter().rev() {
            let Some(file) = open_if_there(&rotated(path, number))? else { continue };
            let length = file.metadata()?.len();
            let read = self.offset.min(length);
            self.offset -= read;
            if read < length {
                pending.push_back((file, read));
            }
        }
        self.newest = mark(path, 1);
        Ok(pending)
    }
}

/// A shared lock for as long as it lives: no rotation meanwhile.
struct Shared<'a>(&'a File);

impl<'a> Shared<'a> {
    fn lock(file: &'a File) -> io::Result<Self> {
        flock(file, FlockOperation::LockShared)?;
        Ok(Self(file))
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        // Closing the file would do it too.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number of a file may be used again once it is deleted; together with the time of its last
/// line it is not.
fn mark(path: &Path, number: u32) -> Option<Mark> {
    let metadata = fs::metadata(rotated(path, number)).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

fn read_at(file: &File, offset: &mut u64, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let start = buffer.len();
    buffer.resize(start + CHUNK_BYTES, 0);
    let length = file.read_at(&mut buffer[start..], *offset);
    buffer.truncate(start + length.as_ref().copied().unwrap_or(0));
    *offset += length.as_ref().copied().unwrap_or(0) as u64;
    length
}

/// Just after the end of line that is the `ends`th from the back; none when there are fewer, which
/// are counted off `ends`.
fn find_back(file: &File, ends: &mut usize) -> io::Result<Option<u64>> {
    let mut end = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK_BYTES];
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES as u64);
        let part = &mut chunk[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            *ends -= 1;
            if *ends == 0 {
                return Ok(Some(start + index as u64 + 1));
            }
        }
        end = start;
    }
    Ok(None)
}

/// Characters of a line that are shown when a daemon keeps failing.
const TAIL_LINE_CHARS_MAX: usize = 500;

/// The last lines, oldest first; none when the file cannot be read.
pub fn tail(path: &Path, lines_max: usize) -> Vec<String> {
    let Ok(mut reader) = LogReader::open(path, Some(lines_max)) else { return vec![] };
    let mut lines = Vec::new();
    while lines.len() < lines_max
        && let Ok(Some(line)) = reader.read_line()
    {
        lines.push(line.chars().take(TAIL_LINE_CHARS_MAX).collect());
    }
    lines
}
