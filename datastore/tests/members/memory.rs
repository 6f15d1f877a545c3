//! Damage in the memory of a member that runs: libdqlite keeps its database there.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// How a database begins, and how much of that is looked at.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;
/// Of memory.
const PAGE_BYTES: u64 = 4096;

/// The first 100 bytes of a database's first page.
pub type Header = [u8; HEADER_BYTES];

/// Another magic: SQLite says NOTADB, 26.
pub fn no_database(header: &mut Header) {
    header[..MAGIC.len()].copy_from_slice(b"SQLite format 7\0");
}

/// More pages than there are: SQLite says CORRUPT, 11.
pub fn too_long(header: &mut Header) {
    header[28..32].copy_from_slice(&0x7fff_ffff_u32.to_be_bytes());
    // Else that number is not believed.
    header.copy_within(24..28, 92);
}

/// Changes every copy of a database's header in the memory of a process that
/// stands still; how many there were.
pub fn change_headers(process: u32, change: fn(&mut Header)) -> usize {
    let place = |name| format!("/proc/{process}/{name}");
    let memory = File::options().read(true).write(true).open(place("mem")).unwrap();
    let present = File::open(place("pagemap")).unwrap();
    let maps = fs::read_to_string(place("maps")).unwrap();
    let held = maps.lines().filter_map(writable).flat_map(|map| runs(&present, map));
    held.map(|(from, to)| change_within(&memory, from, to, change)).sum()
}

/// Memory that the process writes to and that is no file's.
fn writable(line: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let is_ours = fields[1].starts_with("rw") && fields.get(5).is_none_or(|name| *name == "[heap]");
    let (from, to) = fields[0].split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    is_ours.then_some((number(from)?, number(to)?))
}

/// Of that what is there: most of it only has addresses.
fn runs(present: &File, (from, to): (u64, u64)) -> Vec<(u64, u64)> {
    let mut entries = vec![0; ((to - from) / PAGE_BYTES * 8) as usize];
    present.read_exact_at(&mut entries, from / PAGE_BYTES * 8).unwrap();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (entry, at) in entries.chunks(8).zip((from..).step_by(PAGE_BYTES as usize)) {
        // The highest bit says so.
        if entry[7] & 0x80 == 0 {
            continue;
        }
        match runs.last_mut() {
            Some((_, end)) if *end == at => *end += PAGE_BYTES,
            _ => runs.push((at, at + PAGE_BYTES)),
        }
    }
    runs
}

fn change_within(memory: &File, from: u64, to: u64, change: fn(&mut Header)) -> usize {
    let mut bytes = vec![0; (to - from) as usize];
    memory.read_exact_at(&mut bytes, from).unwrap();
    let mut changed = 0;
    // Whatever is allocated begins at a multiple of eight.
    for (place, word) in bytes.chunks(8).enumerate().map(|(number, word)| (8 * number, word)) {
        if *word != MAGIC[..8] || !bytes[place..].starts_with(MAGIC) {
            continue;
        }
        let Some(header) = bytes.get(place..place + HEADER_BYTES) else { continue };
        let mut header: Header = header.try_into().unwrap();
        // Pages are as large as a power of two; what is no page says something else there.
        if u16::from_be_bytes([header[16], header[17]]).is_power_of_two() {
            change(&mut header);
            memory.write_all_at(&header, from + place as u64).unwrap();
            changed += 1;
        }
    }
    changed
}
