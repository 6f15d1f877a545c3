//! Damage in the memory of a member that runs: libdqlite keeps its database there.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// How a database begins, and how much of that is looked at.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;
/// Read at once; a header across two readings is seen in the second.
const STEP_BYTES: usize = 1 << 20;

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
    let memory = File::options().read(true).write(true).open(format!("/proc/{process}/mem"));
    let memory = memory.unwrap();
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    maps.lines().filter_map(writable).map(|(from, to)| change_within(&memory, from, to, change)).sum()
}

/// Memory that the process writes to and that is no file's.
fn writable(line: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let is_ours = fields[1].starts_with("rw") && fields.get(5).is_none_or(|name| *name == "[heap]");
    let (from, to) = fields[0].split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    is_ours.then_some((number(from)?, number(to)?))
}

fn change_within(memory: &File, from: u64, to: u64, change: fn(&mut Header)) -> usize {
    let (mut at, mut changed) = (from, 0);
    while at + (HEADER_BYTES as u64) <= to {
        let length = (to - at).min((STEP_BYTES + HEADER_BYTES) as u64) as usize;
        let mut bytes = vec![0; length];
        // Some kernels' own pages can't be read.
        if memory.read_exact_at(&mut bytes, at).is_err() {
            return changed;
        }
        let places = bytes.windows(MAGIC.len()).enumerate();
        let found: Vec<usize> = places
            .filter(|(place, window)| *window == MAGIC && place + HEADER_BYTES <= length)
            .map(|(place, _)| place)
            .collect();
        for place in found {
            let mut header: Header = bytes[place..place + HEADER_BYTES].try_into().unwrap();
            // Page sizes are powers of two; other places are not pages.
            if u16::from_be_bytes([header[16], header[17]]).is_power_of_two() {
                change(&mut header);
                memory.write_all_at(&header, at + place as u64).unwrap();
                changed += 1;
            }
        }
        at += STEP_BYTES as u64;
    }
    changed
}
