use shared::agent_event::MAX_TEXT_BYTES;

use super::*;

struct Place {
    path: Utf8PathBuf,
    _dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let root = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("UTF-8 path");
        Self {
            path: root.join(FILE),
            _dir: dir,
        }
    }

    fn open(&self) -> Log {
        let (log, damaged) = Log::open(&self.path).expect("a log");
        assert_eq!(damaged, None);
        log
    }

    /// Does something to the file that only its agent would do.
    fn meddle(&self, sql: &str) {
        let db = Connection::open(self.path.as_std_path()).expect("a database");
        db.execute_batch(sql).expect("it is done");
    }
}

fn at(day: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + day * 86_400).expect("a time")
}

fn turn(number: u128) -> TurnId {
    TurnId(uuid::Uuid::from_u128(number))
}

fn event(seq: u64, day: i64) -> AgentEvent {
    AgentEvent {
        seq,
        at: at(day),
        turn: Some(turn(1)),
        kind: AgentEventKind::Notice,
        text: format!("number {seq}"),
        tool: None,
        ok: None,
        used: None,
    }
}

fn all() -> Wanted {
    Wanted {
        turn: None,
        last: 1000,
    }
}

fn seqs(log: &Log, wanted: &Wanted, now: Timestamp) -> Vec<u64> {
    let events = log.read(wanted, now).expect("events");
    events.iter().map(|event| event.seq).collect()
}

#[test]
fn what_was_kept_is_there_after_a_restart() {
    let place = Place::new();
    let events = [event(1, 0), event(2, 0)];
    place.open().append(&events, at(0)).expect("kept");
    place.open().append(&[event(3, 0)], at(0)).expect("kept");
    let log = place.open();
    assert_eq!(log.read(&all(), at(0)).expect("events")[..2], events);
    let last = Wanted { turn: None, last: 2 };
    assert_eq!(seqs(&log, &last, at(0)), [2, 3]);
}

#[test]
fn the_events_of_one_turn_are_found() {
    let place = Place::new();
    let mut log = place.open();
    let other = AgentEvent {
        turn: Some(turn(2)),
        ..event(2, 0)
    };
    log.append(&[event(1, 0), other, event(3, 0)], at(0))
        .expect("kept");
    let wanted = Wanted {
        turn: Some(turn(1)),
        ..all()
    };
    assert_eq!(seqs(&log, &wanted, at(0)), [1, 3]);
}

#[test]
fn what_is_older_than_a_week_is_not_shown_and_goes_with_the_next_write() {
    let place = Place::new();
    let mut log = place.open();
    log.append(&[event(1, 0), event(2, 5)], at(5)).expect("kept");
    assert_eq!(seqs(&log, &all(), at(8)), [2]);
    log.append(&[event(3, 8)], at(8)).expect("kept");
    let rows: i64 = log
        .db
        .query_row("SELECT count(*) FROM events", [], |row| row.get(0))
        .expect("a count");
    assert_eq!(rows, 2);
}

#[test]
fn a_full_log_drops_the_oldest_and_never_outgrows_its_bound() {
    let place = Place::new();
    let most_pages = 1024;
    let (mut log, _) = Log::open_within(&place.path, most_pages).expect("a log");
    let long = |seq| AgentEvent {
        text: "x".repeat(MAX_TEXT_BYTES),
        ..event(seq, 0)
    };
    // Four times as much as fits.
    for batch in 0..64 {
        let events: Vec<_> = (0..16).map(|n| long(batch * 16 + n)).collect();
        log.append(&events, at(0)).expect("kept");
    }
    let kept = seqs(
        &log,
        &Wanted {
            turn: None,
            last: 100_000,
        },
        at(0),
    );
    assert_eq!(kept.last(), Some(&(64 * 16 - 1)));
    assert!(kept.len() > 100, "{} are left", kept.len());
    let size = std::fs::metadata(&place.path).expect("the file").len();
    assert!(size <= (most_pages * PAGE).unsigned_abs(), "{size} bytes");
}

#[test]
fn a_row_that_cannot_be_read_is_shown_as_one() {
    let place = Place::new();
    place
        .open()
        .append(&[event(1, 0), event(2, 0), event(3, 0)], at(0))
        .expect("kept");
    place.meddle(
        "UPDATE events SET doc = '{\"seq\":' WHERE id = 1;
         UPDATE events SET doc = '\"' || printf('%.*c', 200000, 'x') || '\"' WHERE id = 2",
    );
    let events = place.open().read(&all(), at(0)).expect("events");
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    let expected = [
        AgentEventKind::Unreadable,
        AgentEventKind::Unreadable,
        AgentEventKind::Notice,
    ];
    assert_eq!(kinds, expected);
    assert!(
        events[0].text.starts_with("row 1 of the log cannot be read: EOF"),
        "{}",
        events[0].text
    );
    assert!(
        events[1].text.ends_with("it is longer than 131072 bytes"),
        "{}",
        events[1].text
    );
}

#[test]
fn a_file_that_is_damaged_or_not_ours_is_set_aside() {
    for meddled in [
        "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END",
        "CREATE VIEW v AS SELECT * FROM events",
        "DROP TABLE events; CREATE TABLE events (id, at, turn, doc)",
        "PRAGMA user_version = 9",
    ] {
        let place = Place::new();
        place.open().append(&[event(1, 0)], at(0)).expect("kept");
        place.meddle(meddled);
        let (mut log, damaged) = Log::open(&place.path).expect("a new log");
        let damaged = damaged.expect(meddled);
        assert!(damaged.contains("a new one begins"), "{damaged}");
        log.append(&[event(2, 0)], at(0)).expect("kept");
        assert_eq!(seqs(&log, &all(), at(0)), [2], "{meddled}");
        assert!(std::fs::exists(format!("{}.damaged", place.path)).expect("a look"));
    }
    let place = Place::new();
    drop(place.open());
    #[expect(clippy::disallowed_methods, reason = "a file that is not ours")]
    std::fs::write(
        &place.path,
        "not a database, and long enough to be looked at".repeat(100),
    )
    .expect("written");
    assert!(Log::open(&place.path).expect("a new log").1.is_some());
}

#[test]
fn what_is_no_file_is_left_alone() {
    let place = Place::new();
    std::fs::create_dir_all(&place.path).expect("a folder");
    assert!(matches!(Log::open(&place.path), Err(LogError::NoFile { .. })));
    std::fs::remove_dir(&place.path).expect("removed");
    std::os::unix::fs::symlink("/etc/hostname", &place.path).expect("a link");
    let error = Log::open(&place.path).expect_err("a link");
    assert!(
        error.to_string().contains("is no file: remove what is there"),
        "{error}"
    );
}

#[test]
fn a_file_that_somebody_holds_fails_and_is_not_set_aside() {
    let place = Place::new();
    let mut log = place.open();
    let other = Connection::open(place.path.as_std_path()).expect("a database");
    other.execute_batch("BEGIN IMMEDIATE").expect("held");
    let error = log.append(&[event(1, 0)], at(0)).expect_err("held");
    assert!(matches!(error, LogError::Failed { .. }), "{error:?}");
    other.execute_batch("ROLLBACK").expect("free");
    log.append(&[event(1, 0)], at(0)).expect("kept");
    assert_eq!(seqs(&log, &all(), at(0)), [1]);
}

#[test]
fn a_log_that_is_not_there_is_not_made_by_a_look() {
    let place = Place::new();
    assert!(Log::open_existing(&place.path).expect("a look").is_none());
    assert!(!std::fs::exists(&place.path).expect("a look"));
}

#[test]
fn a_write_that_finds_no_room_fails_and_changes_nothing() {
    let place = Place::new();
    let (mut log, _) = Log::open_within(&place.path, 12).expect("a log");
    log.append(&[event(1, 0)], at(0)).expect("kept");
    let long = AgentEvent {
        text: "x".repeat(MAX_TEXT_BYTES),
        ..event(2, 0)
    };
    let error = log.append(&vec![long; 8], at(0)).expect_err("no room");
    assert!(matches!(error, LogError::Failed { .. }), "{error:?}");
    assert!(error.to_string().contains("is the disk full"), "{error}");
    assert_eq!(seqs(&log, &all(), at(0)), [1]);
    log.append(&[event(3, 0)], at(0)).expect("kept");
    assert_eq!(seqs(&log, &all(), at(0)), [1, 3]);
}
