//! How agents' programs name the tools of MCP servers, and which of these tools an agent may use (pure).

use std::collections::{BTreeMap, BTreeSet};

use shared::ServerName;
use shared::config::{AgentConfig, OWN_MCP_SERVER};
use shared::spec::McpServerSpec;

/// The tools that each declared server is known to offer.
pub type Offered = BTreeMap<ServerName, Vec<String>>;

/// The name of a tool as programs give it to models: what is no letter, digit, dash or underscore is an underscore. So
/// nothing that somebody wrote as one name is read as two, or as a pattern.
pub fn plain(tool: &str) -> String {
    let sane = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    tool.chars().map(|c| if sane(c) { c } else { '_' }).collect()
}

/// A tool of a server as programs name it, as in `mcp__wiki__look`.
pub fn full(server: &str, tool: &str) -> String {
    format!("mcp__{server}__{}", plain(tool))
}

/// Whether an agent may use this tool of a server.
pub fn allows(server: &McpServerSpec, tool: &str) -> bool {
    let allowed = &server.allowed_tools;
    allowed.contains("*") || allowed.iter().any(|allowed| plain(allowed) == plain(tool))
}

/// Whether a rule refuses this tool of a server whatever is allowed.
pub fn denies(rules: &BTreeSet<String>, server: &str, tool: &str) -> bool {
    let all = [format!("mcp__{server}"), format!("mcp__{server}__*")];
    rules.contains(&full(server, tool)) || all.iter().any(|rule| rules.contains(rule))
}

/// The declared servers, in order. The hive's own is not among them: none can be declared in its place.
pub fn declared(config: &AgentConfig) -> impl Iterator<Item = (&ServerName, &McpServerSpec)> {
    let servers = config.mcp_servers.iter();
    servers.filter(|(name, _)| name.as_str() != OWN_MCP_SERVER)
}

/// The full names of the tools that are offered and not allowed.
pub fn forbidden(config: &AgentConfig, offered: &Offered) -> Vec<String> {
    declared(config)
        .flat_map(|(name, server)| {
            let tools = offered.get(name).into_iter().flatten();
            tools
                .filter(|tool| !allows(server, tool))
                .map(|tool| full(name.as_str(), tool))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(allowed: &[&str]) -> McpServerSpec {
        McpServerSpec {
            allowed_tools: allowed.iter().map(|&tool| tool.to_owned()).collect(),
            ..McpServerSpec::default()
        }
    }

    #[test]
    fn a_name_is_one_name_whatever_is_in_it() {
        for (written, named) in [
            ("look", "mcp__wiki__look"),
            ("we.ird/x", "mcp__wiki__we_ird_x"),
            ("x,Bash", "mcp__wiki__x_Bash"),
            ("x Bash(*)", "mcp__wiki__x_Bash___"),
            ("*", "mcp__wiki___"),
        ] {
            assert_eq!(full("wiki", written), named);
        }
    }

    #[test]
    fn a_tool_is_allowed_by_its_name_or_with_all_others() {
        assert!(allows(&server(&["*"]), "draw"));
        assert!(allows(&server(&["look", "draw"]), "draw"));
        assert!(
            allows(&server(&["we.ird"]), "we_ird"),
            "programs know it by no other"
        );
        for allowed in [&[][..], &["look"], &["dra*"], &["draw,look"]] {
            assert!(!allows(&server(allowed), "draw"), "{allowed:?}");
        }
    }
}
