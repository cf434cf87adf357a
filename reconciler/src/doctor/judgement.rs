//! What a check makes of the facts, and the few ways to say it.

use super::Level;
use crate::model::inventory::Known;

/// How bad it is, what was found, and what to do.
pub(super) struct Judgement {
    pub(super) verdict: Level,
    pub(super) found: String,
    pub(super) todo: Option<String>,
}

pub(super) fn ok(found: impl Into<String>) -> Judgement {
    Judgement {
        verdict: Level::Ok,
        found: found.into(),
        todo: None,
    }
}

pub(super) fn warn(found: impl Into<String>, todo: impl Into<String>) -> Judgement {
    Judgement {
        verdict: Level::Warn,
        found: found.into(),
        todo: Some(todo.into()),
    }
}

pub(super) fn fail(found: impl Into<String>, todo: impl Into<String>) -> Judgement {
    Judgement {
        verdict: Level::Fail,
        ..warn(found, todo)
    }
}

pub(super) fn known(fact: &Known<String>, todo: &str) -> Judgement {
    match fact {
        Ok(found) => ok(found),
        Err(why) => fail(why, todo),
    }
}

pub(super) fn known_unit(fact: &Known<()>, found: &str, todo: &str) -> Judgement {
    match fact {
        Ok(()) => ok(found),
        Err(why) => fail(why, todo),
    }
}
