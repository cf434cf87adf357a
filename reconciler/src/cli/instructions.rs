//! `hive cancel`, `compact`, `nap`, `wake` and `session new`: instructions to an agent's turn loop.

use jiff::SignedDuration;
use shared::instruction::{InstructionKind, InstructionRequest};

use super::Session;
use super::agent::{OverrideArgs, TimedOverrideArgs, post};
use super::error::CliError;
use super::exit::Exit;

/// Arguments of `hive nap`.
#[derive(Debug, clap::Args)]
pub(super) struct NapArgs {
    #[command(flatten)]
    timed: TimedOverrideArgs,
    /// Let a message end it
    #[arg(long)]
    wake_on_message: bool,
}

/// The verbs of `hive session`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum SessionCommand {
    /// Begin a new conversation with the agent's next turn
    New(OverrideArgs),
}

pub(super) async fn simple(
    session: &mut Session<'_>,
    kind: InstructionKind,
    of: OverrideArgs,
) -> Result<Exit, CliError> {
    instruction(session, kind, of, None, false).await
}

pub(super) async fn nap(session: &mut Session<'_>, args: NapArgs) -> Result<Exit, CliError> {
    let NapArgs {
        timed: TimedOverrideArgs { of, lasts },
        wake_on_message,
    } = args;
    instruction(session, InstructionKind::Nap, of, lasts, wake_on_message).await
}

pub(super) async fn conversation(
    session: &mut Session<'_>,
    command: SessionCommand,
) -> Result<Exit, CliError> {
    let SessionCommand::New(of) = command;
    instruction(session, InstructionKind::NewConversation, of, None, false).await
}

async fn instruction(
    session: &mut Session<'_>,
    kind: InstructionKind,
    of: OverrideArgs,
    lasts: Option<SignedDuration>,
    wake_on_message: bool,
) -> Result<Exit, CliError> {
    let OverrideArgs { agent, reason } = of;
    let request = InstructionRequest {
        kind,
        reason,
        until: lasts.map(|lasts| session.clock.now() + lasts),
        wake_on_message,
    };
    post(session, &format!("/v1/agents/{agent}/instructions"), &request).await
}
