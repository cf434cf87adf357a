//! What a harness says about itself, bounded field by field. The agent may have replaced its harness: every text in a
//! report is the agent's, is kept in memory, and is shown to the operator.

use shared::agent_api::Report;
use shared::login::{LoginState, MAX_URL_BYTES};
use shared::status::McpServerState;
use shared::wire_error::ErrorCode;

use crate::api::error::{ApiError, ApiResult};
use crate::untrusted::{is_hazard, line};

/// The longest id of a run in bytes, and the longest version in characters.
const MAX_ID: usize = 64;
/// The longest error, in characters.
const MAX_ERROR: usize = 4096;
/// The most MCP servers.
const MAX_SERVERS: usize = 256;
/// The most tools of one server, and the longest name of one in characters; no less than what our harness sends.
const MAX_TOOLS: usize = 512;
const MAX_TOOL_NAME: usize = 128;

/// The report as it is kept. What is for people is made safe and cut; what is compared must be as it should.
pub(super) fn bounded(report: Report) -> ApiResult<Report> {
    let Report {
        version,
        run_id,
        seq,
        lease,
        config,
        config_error,
        turn_error,
        events_error,
        instructed,
        model,
        turn,
        mcp,
        login,
    } = report;
    let refused = |message: String| Err(ApiError::new(ErrorCode::BadRequest, message));
    if run_id.is_empty() || run_id.len() > MAX_ID || run_id.contains(is_hazard) {
        return refused(format!(
            "the run's id must have 1 to {MAX_ID} bytes and no control or invisible characters"
        ));
    }
    if mcp.len() > MAX_SERVERS {
        return refused(format!(
            "{} MCP servers are reported, at most {MAX_SERVERS} are accepted",
            mcp.len()
        ));
    }
    let server = |state: McpServerState| McpServerState {
        health: state.health,
        more_tools: state.more_tools,
        schema_tokens: state.schema_tokens,
        tools: state
            .tools
            .iter()
            .take(MAX_TOOLS)
            .map(|tool| line(tool, MAX_TOOL_NAME))
            .collect(),
        error: state.error.map(|error| line(&error, MAX_ERROR)),
    };
    Ok(Report {
        version: line(&version, MAX_ID),
        run_id,
        seq,
        lease,
        config,
        config_error: config_error.map(|error| line(&error, MAX_ERROR)),
        turn_error: turn_error.map(|error| line(&error, MAX_ERROR)),
        events_error: events_error.map(|error| line(&error, MAX_ERROR)),
        instructed,
        model: model.map(|model| line(&model, MAX_ID)),
        turn,
        mcp: mcp
            .into_iter()
            .map(|(name, state)| (name, server(state)))
            .collect(),
        login: login.map(bounded_login),
    })
}

/// What is shown as an address to open is one, and nothing that a terminal acts on.
fn bounded_login(login: LoginState) -> LoginState {
    let LoginState {
        id,
        phase,
        url,
        error,
    } = login;
    let is_address = |url: &String| {
        url.len() <= MAX_URL_BYTES
            && url.starts_with("https://")
            && url.bytes().all(|byte| byte.is_ascii_graphic())
    };
    LoginState {
        id,
        phase,
        url: url.filter(is_address),
        error: error.map(|error| line(&error, MAX_ERROR)),
    }
}

#[cfg(test)]
mod tests {
    use shared::login::LoginPhase;
    use shared::status::{McpHealth, TurnState};

    use super::*;

    fn report() -> Report {
        Report {
            version: "1".into(),
            run_id: "one".into(),
            seq: 0,
            lease: None,
            config: None,
            config_error: None,
            turn_error: None,
            events_error: None,
            instructed: 0,
            model: None,
            turn: TurnState::Idle,
            mcp: [].into(),
            login: None,
        }
    }

    fn server(tools: Vec<String>, error: Option<String>) -> McpServerState {
        McpServerState {
            tools,
            error,
            schema_tokens: Some(7),
            ..McpServerState::of(McpHealth::Failed)
        }
    }

    #[test]
    fn an_address_to_open_is_one_or_is_not_shown() {
        let shown = |url: &str| {
            let login = LoginState {
                id: shared::LoginId(uuid::Uuid::from_u128(1)),
                phase: LoginPhase::WaitingForCode,
                url: Some(url.to_owned()),
                error: Some("\x1b[2J".to_owned()),
            };
            let kept = bounded(Report {
                login: Some(login),
                ..report()
            });
            let kept = kept.expect("a good report").login.expect("a login");
            assert!(!kept.error.expect("an error").contains('\x1b'));
            kept.url
        };
        let good = "https://claude.com/cai/oauth/authorize?code=true&state=x";
        assert_eq!(shown(good).as_deref(), Some(good));
        for bad in [
            "http://claude.com/",
            "https://a b",
            "https://a\u{202e}b",
            "javascript:x",
            "https://\x1b[2J",
        ] {
            assert_eq!(shown(bad), None, "{bad}");
        }
        assert_eq!(shown(&format!("https://{}", "a".repeat(5000))), None);
    }

    #[test]
    fn an_honest_report_is_kept_as_it_is() {
        let honest = Report {
            config_error: Some("bad value at config.driver.kind".into()),
            mcp: [(
                "wiki".parse().unwrap(),
                server(vec!["search".into()], Some("ended".into())),
            )]
            .into(),
            ..report()
        };
        assert_eq!(bounded(honest.clone()).unwrap(), honest);
    }

    #[test]
    fn texts_that_would_fool_a_terminal_or_fill_the_memory_are_made_safe() {
        let hostile = "\x1b]0;owned\x07\u{202e}".repeat(100_000);
        let kept = bounded(Report {
            version: hostile.clone(),
            config_error: Some(hostile.clone()),
            mcp: [(
                "wiki".parse().unwrap(),
                server(vec![hostile.clone(); 1000], Some(hostile)),
            )]
            .into(),
            ..report()
        })
        .unwrap();
        let wiki = &kept.mcp["wiki"];
        assert_eq!(wiki.tools.len(), MAX_TOOLS);
        let texts = [
            (&kept.version, MAX_ID),
            (kept.config_error.as_ref().unwrap(), MAX_ERROR),
            (wiki.error.as_ref().unwrap(), MAX_ERROR),
            (&wiki.tools[0], MAX_TOOL_NAME),
        ];
        for (text, max) in texts {
            assert!(
                text.chars().count() <= max + 1,
                "{} characters",
                text.chars().count()
            );
            assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text:?}");
        }
    }

    #[test]
    fn an_id_that_is_none_is_refused() {
        for bad in [
            String::new(),
            "x".repeat(65),
            "a\n".into(),
            "a\0".into(),
            "a\u{202e}".into(),
        ] {
            let error = bounded(Report {
                run_id: bad.clone(),
                ..report()
            })
            .unwrap_err();
            assert_eq!(error.0.code, ErrorCode::BadRequest, "{bad:?}");
        }
    }

    #[test]
    fn thousands_of_servers_are_refused() {
        let of = |count: usize| Report {
            mcp: (0..count)
                .map(|n| (format!("s{n}").parse().unwrap(), server(Vec::new(), None)))
                .collect(),
            ..report()
        };
        assert!(bounded(of(MAX_SERVERS)).is_ok());
        let error = bounded(of(MAX_SERVERS + 1)).unwrap_err();
        assert_eq!(error.0.code, ErrorCode::BadRequest);
    }
}
