//! One run of the program, from its start until nothing of it is left that should not be.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::time::Instant;

use super::parse::{Line, parse};
use super::session::Session;
use super::story::{Exit, Story, Verdict};
use super::{command, find, servers};
use crate::driver::lines::Piece;
use crate::driver::process::{Next, Process, understood};
use crate::driver::program::{RunError, Turn, blocking};
use crate::driver::{TurnEnd, conversation, files, running};

/// How many processes of this container the kernel has killed for want of memory, where that is to be seen.
fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/memory.events").ok()?;
    count_of("oom_kill", &text)
}

fn count_of(what: &str, text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == what)?.1.trim().parse().ok()
}

/// Runs the program once.
///
/// # Errors
/// When it cannot be started; whatever happens later is a verdict.
pub(super) async fn run(
    turn: &Turn,
    prompt: &'static str,
    session: &mut Session,
) -> Result<Verdict, RunError> {
    let mut run = start(turn, prompt, session).await?;
    let kills = blocking(oom_kills).await?;
    let mut exit = run.follow(turn, session).await;
    if exit == Exit::Signal(Signal::KILL.as_raw()) && blocking(oom_kills).await? > kills {
        exit = Exit::OutOfMemory;
    }
    let errors = run.process.last_words().await;
    let mut verdict = run.story.judge(exit, &errors, crate::clock::now());
    // What an agent left running in a turn that went well may be meant to go on.
    let sweep = exit == Exit::Lingered || verdict != Verdict::Over(TurnEnd::Completed);
    run.process
        .finish(command::home(&turn.setup.state), sweep)
        .await?;
    if let Verdict::Over(TurnEnd::Failed(failure)) = &mut verdict {
        failure.error = crate::tame(&failure.error, 2000);
    }
    Ok(verdict)
}

async fn start(turn: &Turn, prompt: &'static str, session: &Session) -> Result<Run, RunError> {
    let (setup, spec) = (Arc::clone(&turn.setup), &turn.spec);
    let args = command::args(&spec.config, session, &setup.state, spec.cost_limit_usd);
    let mut environment =
        command::environment(&setup.settings.environment, &spec.config, &setup.state, spec.turn);
    environment.extend(setup.settings.ways.environment(&spec.config));
    let servers = servers::document(&setup.settings.own_server, &spec.config, spec.turn).to_string();
    let settings = command::settings(&spec.config, &spec.offered, &setup.state).to_string();
    let (kept, id, config) = (session.clone(), spec.turn, Arc::clone(&spec.config));
    let (program, secrets) = blocking(move || {
        let state = &setup.state;
        let secrets = setup.settings.secrets.variables_and_headers(&config)?;
        let home = command::home(state);
        running::end_stray(&home);
        files::write(&command::servers_file(state), servers.as_bytes()).map_err(RunError::Files)?;
        files::write(&command::settings_file(state), settings.as_bytes()).map_err(RunError::Files)?;
        // Before it is used for the first time: an id that is not kept would be a conversation that is lost.
        conversation::save(state, &kept)?;
        running::note(&home, id).map_err(RunError::Files)?;
        let program = find(&setup.settings).map_err(RunError::Missing)?;
        Ok::<_, RunError>((program, secrets))
    })
    .await??;
    environment.extend(secrets.environment());
    let servers = servers::names(&spec.config);
    Ok(Run {
        process: turn.start(program, &args, environment, |input| say(prompt, input))?,
        story: Story::new(spec.purpose, session.id.to_string(), servers),
        why: None,
        result_at: None,
    })
}

/// Writes the prompt; its end is that of the input.
async fn say(prompt: &'static str, mut input: ChildStdin) {
    // The program may end without reading; that is told by its end.
    if let Err(error) = input.write_all(prompt.as_bytes()).await {
        tracing::debug!(%error, "prompt not taken");
    }
}

struct Run {
    process: Process,
    story: Story,
    /// Why it was made to end, if it was.
    why: Option<Exit>,
    /// When the result came, if nothing happened after it.
    result_at: Option<Instant>,
}

impl Run {
    /// Follows the program until it is gone.
    async fn follow(&mut self, turn: &Turn, session: &mut Session) -> Exit {
        let settings = &turn.setup.settings;
        loop {
            let limit = self.result_at.map(|result_at| result_at + settings.grace);
            match self.process.next(limit).await {
                Next::Line(piece) => self.listen(piece, turn, session).await,
                Next::Interrupted => self.interrupt(Exit::Interrupted),
                // It is done, so there is nothing to interrupt.
                Next::Due if self.result_at.is_some() => self.terminate(Exit::Lingered),
                Next::Due => self.interrupt(Exit::Silent(settings.silence)),
                Next::Gone => return self.exit(),
            }
        }
    }

    fn interrupt(&mut self, why: Exit) {
        self.why = Some(why);
        self.process.interrupt();
    }

    fn terminate(&mut self, why: Exit) {
        self.why = Some(why);
        self.process.terminate();
    }

    async fn listen(&mut self, piece: Piece, turn: &Turn, session: &mut Session) {
        let Some(line) = understood(piece, parse, Line::Garbage) else {
            return;
        };
        for event in self.story.tell(line) {
            turn.tell(event).await;
        }
        let heard = self.process.heard();
        self.result_at = self.story.has_result().then(|| self.result_at.unwrap_or(heard));
        if self.story.began && !session.began {
            session.began = true;
            if let Err(error) = turn.keep(session).await {
                // It is found out at the next turn, when the program says that it has the conversation.
                tracing::warn!(
                    error = crate::error_chain(&error),
                    "conversation not noted as begun"
                );
            }
        }
        if let Some(fault) = self.story.fault
            && self.process.works()
        {
            self.terminate(fault);
        }
    }

    fn exit(&self) -> Exit {
        if let Some(why) = self.why {
            return why;
        }
        let status = self.process.status().unwrap_or_default();
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_for_want_of_memory_are_found_among_the_other_counts() {
        let text = "low 0\nhigh 3\noom 9\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(count_of("oom_kill", text), Some(2));
        assert_eq!(count_of("oom_kill", "oom_kill x\n"), None);
        assert_eq!(count_of("oom_kill", ""), None);
    }
}
