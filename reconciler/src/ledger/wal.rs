//! Damage in the write-ahead log.
//!
//! SQLite reads the log up to the first frame whose checksum is wrong and takes the rest for what a crash left behind.
//! That is right for the transaction that was being written, and only for that one: every commit is synced before the
//! next begins. A frame that is wrong with *two* commits behind it is damage, and opening the ledger would drop what
//! was accepted without a word.
//!
//! The format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};

use camino::Utf8Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Its lowest bit says in which order the checksums read bytes.
const MAGIC: u32 = 0x377f_0682;
/// Commits behind a wrong frame that a crash can leave.
const UNSYNCED_COMMITS: usize = 1;

/// What is damaged in the log of the ledger at `path`; `None`: nothing. Changes nothing.
pub(super) fn damage(path: &Utf8Path) -> io::Result<Option<String>> {
    let file = match File::open(format!("{path}-wal")) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = scan(&mut BufReader::with_capacity(1 << 16, file))?;
    Ok(found.map(|what| format!("its log {path}-wal {what}")))
}

fn scan(log: &mut impl Read) -> io::Result<Option<String>> {
    let mut header = [0; HEADER];
    if !fill(log, &mut header)? || header == [0; HEADER] {
        return Ok(None);
    }
    let magic = word(&header, 0);
    let big = magic & 1 == 1;
    let mut sum = checksum((0, 0), &header[..24], big);
    let page = word(&header, 8) as usize;
    let sound = magic & !1 == MAGIC
        && page.is_power_of_two()
        && (512..=65536).contains(&page)
        && sum == (word(&header, 24), word(&header, 28));
    if !sound {
        return Ok(Some("has a damaged header".to_owned()));
    }
    let salts = &header[16..24];
    let mut frame = vec![0; FRAME_HEADER + page];
    let mut at = HEADER;
    let mut wrong = None;
    let mut commits = 0;
    while fill(log, &mut frame)? {
        let of_this_log = frame[8..16] == *salts;
        if wrong.is_none() {
            let sums = checksum(checksum(sum, &frame[..8], big), &frame[FRAME_HEADER..], big);
            if of_this_log && word(&frame, 0) != 0 && sums == (word(&frame, 16), word(&frame, 20)) {
                sum = sums;
            } else {
                wrong = Some(at);
            }
        }
        if wrong.is_some() && of_this_log && word(&frame, 4) != 0 {
            commits += 1;
        }
        at += frame.len();
    }
    Ok(wrong.filter(|_| commits > UNSYNCED_COMMITS).map(|wrong| {
        format!("is damaged from byte {wrong} on: {commits} transactions that were committed are behind it")
    }))
}

/// Fills the buffer; false when there is not that much left.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

fn checksum(before: (u32, u32), bytes: &[u8], big: bool) -> (u32, u32) {
    let (mut first, mut second) = before;
    let (pairs, _) = bytes.as_chunks::<8>();
    for [a, b, c, d, e, f, g, h] in pairs {
        let read = if big {
            u32::from_be_bytes
        } else {
            u32::from_le_bytes
        };
        first = first.wrapping_add(read([*a, *b, *c, *d])).wrapping_add(second);
        second = second.wrapping_add(read([*e, *f, *g, *h])).wrapping_add(first);
    }
    (first, second)
}
