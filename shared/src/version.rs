//! Versions of the two protocols, and who must understand whom.
//!
//! The harness in a container may be one release behind or ahead of the daemon: a container keeps the harness it
//! was started with until its next restart. Both sides therefore accept the previous and the next version, ignore
//! fields they do not know, and give every new field a default.

/// The agent API that this build speaks.
pub const AGENT_API: u32 = 1;

/// The header in which either side names its version of the agent API.
pub const AGENT_API_HEADER: &str = "hive-agent-api";

/// Whether this build can talk to a peer that speaks `theirs`.
pub fn agent_api_accepts(theirs: u32) -> bool {
    theirs.abs_diff(AGENT_API) <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_versions_are_accepted_and_others_are_not() {
        assert!(agent_api_accepts(AGENT_API));
        assert!(agent_api_accepts(AGENT_API + 1));
        assert!(!agent_api_accepts(AGENT_API + 2));
    }
}
