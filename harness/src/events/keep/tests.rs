use camino::Utf8Path;
use tokio::task::JoinHandle;

use super::super::Told;
use super::super::log::Wanted;
use super::*;
use crate::driver::{TurnEnd, TurnEvent};

const TIMES: Times = Times {
    gather: Duration::from_millis(1),
    again: Duration::from_millis(1),
    longest: Duration::from_millis(20),
};

struct Keeper {
    feed: Feed,
    path: Utf8PathBuf,
    fault: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Keeper {
    fn start(prepare: impl FnOnce(&Utf8Path)) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let root = Utf8Path::from_path(dir.path()).expect("UTF-8 path");
        let path = root.join("log/events.sqlite");
        prepare(&path);
        let feed = Feed::default();
        let (sender, fault) = watch::channel(None);
        let task = tokio::spawn(keep(feed.clone(), path.clone(), TIMES, sender));
        Self {
            feed,
            path,
            fault,
            task,
            _dir: dir,
        }
    }

    fn turn(&self) {
        let turn = TurnId(uuid::Uuid::from_u128(1));
        self.feed.tell(turn, Told::started(&[]));
        let text = TurnEvent::Text("hello".to_owned());
        self.feed.tell(turn, Told::of(&text).expect("an event"));
        self.feed.tell(turn, Told::ended(&TurnEnd::Completed));
    }

    async fn until_fault(&mut self, is: bool) {
        let wait = self.fault.wait_for(|fault| fault.is_some() == is);
        let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
        drop(waited.expect("in time").expect("it is still kept"));
    }

    async fn kept(self) -> Vec<AgentEvent> {
        self.feed.close();
        let ended = tokio::time::timeout(Duration::from_secs(30), self.task).await;
        ended.expect("in time").expect("no panic");
        let log = Log::open_existing(&self.path)
            .expect("a log")
            .expect("it is there");
        let wanted = Wanted {
            turn: None,
            last: 100,
        };
        log.read(&wanted, crate::clock::now()).expect("events")
    }
}

#[tokio::test]
async fn what_is_told_up_to_the_end_is_kept() {
    let keeper = Keeper::start(|_| {});
    keeper.turn();
    let kept = keeper.kept().await;
    let kinds: Vec<_> = kept.iter().map(|event| event.kind).collect();
    let expected = [
        AgentEventKind::Started,
        AgentEventKind::Text,
        AgentEventKind::Ended,
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn without_a_turn_there_is_no_file() {
    let keeper = Keeper::start(|_| {});
    keeper.feed.close();
    keeper.task.await.expect("no panic");
    assert!(!std::fs::exists(&keeper.path).expect("a look"));
}

#[tokio::test]
async fn what_cannot_be_kept_is_said_and_kept_once_it_can() {
    let mut keeper = Keeper::start(|path| std::fs::create_dir_all(path).expect("in the way"));
    keeper.turn();
    keeper.until_fault(true).await;
    let fault = keeper.fault.borrow().clone().expect("a fault");
    assert!(fault.contains("is no file: remove what is there"), "{fault}");
    std::fs::remove_dir(&keeper.path).expect("out of the way");
    keeper.until_fault(false).await;
    assert_eq!(keeper.kept().await.len(), 3);
}

/// A log whose schema can be read, and nothing else.
#[expect(clippy::disallowed_methods, reason = "damage")]
fn damaged_within(path: &Utf8Path) {
    let (mut log, _) = Log::open(path).expect("a log");
    let event = AgentEvent {
        text: "x".repeat(3000),
        ..said("before", None)
    };
    let now = crate::clock::now();
    log.append(&vec![event; 100], now).expect("kept");
    drop(log);
    let mut bytes = std::fs::read(path).expect("the file");
    bytes[4096..].fill(0xa5);
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn damage_that_shows_only_at_a_write_is_set_aside_too() {
    let keeper = Keeper::start(damaged_within);
    keeper.turn();
    let kept = keeper.kept().await;
    assert_eq!((kept.len(), kept[0].kind), (4, AgentEventKind::Lost));
    assert!(kept[0].text.contains("is damaged"), "{}", kept[0].text);
}

#[tokio::test]
async fn the_log_that_follows_a_damaged_one_says_so_first() {
    let keeper = Keeper::start(|path| {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        #[expect(clippy::disallowed_methods, reason = "a file that is not ours")]
        std::fs::write(path, "no database".repeat(1000)).expect("written");
    });
    keeper.turn();
    let kept = keeper.kept().await;
    assert_eq!((kept.len(), kept[0].kind), (4, AgentEventKind::Lost));
    assert!(kept[0].text.contains("is damaged"), "{}", kept[0].text);
}
