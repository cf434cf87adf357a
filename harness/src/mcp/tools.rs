//! The tools, one a file.

mod agent_status;
mod answer;
mod ask;
mod broadcast;
mod cancel_loose_end;
mod config_status;
mod get_config;
mod get_logs;
mod list_agents;
mod loose_ends;
mod nap;
mod orders;
mod propose_config;
mod recv;
mod remind;
mod send;
mod sent;
mod spawn;
mod spawn_commit;
mod spawn_draft;
mod whoami;

use super::tool::{Entry, of_everybody, of_managers};

/// All of them, in the order in which they are listed.
pub(super) fn all() -> Vec<Entry> {
    vec![
        of_everybody::<recv::Recv>(),
        of_everybody::<send::SendMessage>(),
        of_everybody::<sent::Sent>(),
        of_everybody::<ask::Ask>(),
        of_everybody::<answer::Answer>(),
        of_everybody::<remind::Remind>(),
        of_everybody::<loose_ends::LooseEnds>(),
        of_everybody::<cancel_loose_end::CancelLooseEnd>(),
        of_everybody::<whoami::Whoami>(),
        of_everybody::<nap::Nap>(),
        of_everybody::<propose_config::ProposeConfig>(),
        of_everybody::<config_status::ConfigStatus>(),
        of_everybody::<get_logs::GetLogs>(),
        of_managers::<list_agents::ListAgents>(),
        of_managers::<agent_status::StatusOf>(),
        of_managers::<get_config::GetConfig>(),
        of_managers::<orders::Start>(),
        of_managers::<orders::Stop>(),
        of_managers::<orders::Restart>(),
        of_managers::<orders::Rebuild>(),
        of_managers::<orders::Update>(),
        of_managers::<orders::Archive>(),
        of_managers::<broadcast::Broadcast>(),
        of_managers::<spawn::Spawn>(),
        of_managers::<spawn_draft::SpawnDraft>(),
        of_managers::<spawn_commit::SpawnCommit>(),
    ]
}
