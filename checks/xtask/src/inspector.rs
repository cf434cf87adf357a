//! The MCP inspector looks at `hive-harness mcp` from outside: a client that shares no code with the server.
//!
//! It speaks stdio, which the conformance suite of MCP does not.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::process::{Command, ExitCode};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use shared::canonical::{Encoding, digest_value};

use crate::{npm, toolchain};

/// What runs this alone.
pub(crate) const COMMAND: &str = "cargo xtask inspect-mcp";

/// The inspector's own entry.
const INSPECTOR: &str = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";
/// The first version of Node that the inspector runs on.
const OLDEST_NODE: (u32, u32) = (22, 19);

/// Runs `cargo xtask inspect-mcp`.
pub(crate) fn run() -> Result<ExitCode> {
    npm::ensure(npm::MCP, true)?;
    check()?;
    Ok(ExitCode::SUCCESS)
}

/// Lists all tools and calls one that succeeds and one that refuses.
pub(crate) fn check() -> Result<()> {
    npm::ensure(npm::MCP, false)?;
    toolchain::run(toolchain::cargo()?.args(["build", "--locked", "--package", "harness"]))?;
    let scratch = tempfile::Builder::new()
        .prefix("inspect-mcp-")
        .tempdir()
        .context("making a scratch folder")?;
    let scratch = Utf8Path::from_path(scratch.path()).context("the temporary folder's path is UTF-8")?;
    let look = Look::prepare(scratch)?;

    // `--strict` fails on schemas that some clients cannot read.
    let list = look.at(&["--method", "tools/list", "--strict"])?;
    let found = names(&list["tools"]);
    let wanted = reference()?;
    ensure!(
        found == wanted,
        "the inspector sees {found:?}, the reference has {wanted:?}"
    );
    println!(
        "the inspector sees {} tools and no fault in their schemas",
        found.len()
    );

    let answer = look.at(&["--method", "tools/call", "--tool-name", "whoami"])?;
    let text = answer["content"][0]["text"].as_str().unwrap_or_default();
    ensure!(
        text.starts_with("You are alice, a manager"),
        "whoami answered {answer}"
    );
    let answer = look.call(&[
        "--method",
        "tools/call",
        "--tool-name",
        "recv",
        "--tool-arg",
        "max=99",
    ])?;
    let said = String::from_utf8_lossy(&answer.stdout);
    ensure!(said.contains("max is 1 to 32"), "recv answered {said}");
    println!("the inspector called a tool that succeeds and one that refuses");
    Ok(())
}

/// The tools of the committed reference.
fn reference() -> Result<Vec<String>> {
    let path = toolchain::workspace_root()?.join("docs/reference/mcp-tools.json");
    let text = fs::read(&path).with_context(|| format!("reading {path}"))?;
    let tools: Value = serde_json::from_slice(&text).with_context(|| format!("reading {path}"))?;
    Ok([names(&tools["everyAgent"]), names(&tools["managers"])].concat())
}

fn names(tools: &Value) -> Vec<String> {
    let tools = tools.as_array().into_iter().flatten();
    tools
        .map(|tool| tool["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// A manager's surroundings, and the inspector.
struct Look {
    node: Utf8PathBuf,
    scratch: Utf8PathBuf,
}

impl Look {
    fn prepare(scratch: &Utf8Path) -> Result<Self> {
        let config = json!({
            "agent": "alice", "uid": "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f", "hive": "home", "role": "manager",
            "driver": { "kind": "scripted" }, "maxTurnMinutes": 60,
            "commit": "0123456789abcdef0123456789abcdef01234567",
        });
        let file = json!({ "digest": digest_value(Encoding::Config, &config), "config": config });
        fs::write(scratch.join("agent.json"), file.to_string()).context("writing the agent's config")?;
        let socket = scratch.join("hive.sock");
        let program = toolchain::target_folder()?.join("debug/hive-harness");
        let turn = "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f";
        let servers = json!({ "mcpServers": { "hive": { "command": program, "args": [
            "mcp", "--turn", turn, "--socket", socket, "--state", scratch, "--config", scratch,
        ] } } });
        fs::write(scratch.join("mcp.json"), servers.to_string()).context("writing the inspector's config")?;
        answer_whoami(&socket)?;
        Ok(Self {
            node: node()?,
            scratch: scratch.to_owned(),
        })
    }

    /// What the inspector writes; it must be content.
    fn at(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.call(arguments)?;
        if !output.status.success() {
            bail!(
                "the inspector, called with {}, {}:\n{}{}",
                arguments.join(" "),
                toolchain::describe(output.status),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        // It exits with 0 when it has warnings alone.
        let log = String::from_utf8_lossy(&output.stderr);
        if let Some(warning) = warning(&log) {
            bail!("the inspector warns: {warning}\n{log}");
        }
        serde_json::from_slice(&output.stdout).context("reading what the inspector wrote")
    }

    fn call(&self, arguments: &[&str]) -> Result<std::process::Output> {
        Command::new(&self.node)
            .current_dir(toolchain::workspace_root()?.join(npm::MCP))
            .args([INSPECTOR, "--cli", "--config"])
            .arg(self.scratch.join("mcp.json"))
            .args(["--server", "hive"])
            .args(arguments)
            .env("HOME", &self.scratch)
            .output()
            .with_context(|| format!("starting {}", self.node))
    }
}

/// The first line in which it finds fault with a tool.
fn warning(log: &str) -> Option<&str> {
    log.lines()
        .find(|line| line.starts_with("Warning: tool") || line.starts_with("Error: tool"))
}

/// A daemon that can only say who the agent is.
fn answer_whoami(socket: &Utf8Path) -> Result<()> {
    let listener = UnixListener::bind(socket).with_context(|| format!("listening on {socket}"))?;
    let body = json!({ "name": "alice", "hive": "home", "role": "manager", "now": "2026-01-02T03:04:05Z" })
        .to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // It ends with this program.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            if let Err(error) = stream.get_mut().write_all(answer.as_bytes()) {
                println!("the answer to whoami was not read: {error}");
            }
        }
    });
    Ok(())
}

/// The Node of this machine if it is new enough, else the one that npm brought.
fn node() -> Result<Utf8PathBuf> {
    let output = Command::new("node")
        .arg("--version")
        .output()
        .context("starting node")?;
    if is_new_enough(&String::from_utf8_lossy(&output.stdout)) {
        return Ok("node".into());
    }
    let machine = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => bail!(
            "the inspector needs Node {}.{} or newer, and npm has none for {other}: install it",
            OLDEST_NODE.0,
            OLDEST_NODE.1
        ),
    };
    let folder = toolchain::workspace_root()?.join(npm::MCP);
    Ok(folder.join(format!("node_modules/node-linux-{machine}/bin/node")))
}

/// Whether this is what a Node says that the inspector runs on.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim().trim_start_matches('v').split('.');
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    matches!((next(), next()), (Some(major), Some(minor)) if (major, minor) >= OLDEST_NODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inspector_runs_on_a_recent_node_alone() {
        for new in ["v22.19.0\n", "v22.20.1", "v26.10.0"] {
            assert!(is_new_enough(new), "{new}");
        }
        for old in ["v20.20.2\n", "v22.18.9", "", "v", "vx.y.z", "hello"] {
            assert!(!is_new_enough(old), "{old}");
        }
    }

    #[test]
    fn a_fault_in_a_schema_is_found_in_what_it_writes() {
        let log =
            "INFO harness: x\nWarning: tool \"x\"\n  Path: inputSchema\n0 errors, 1 warning across 1 tool.\n";
        assert_eq!(warning(log), Some("Warning: tool \"x\""));
        assert_eq!(warning("WARN harness::mcp: config not readable\n"), None);
    }

    #[test]
    fn tools_are_compared_by_name_and_order() {
        assert_eq!(names(&json!([{ "name": "b" }, { "name": "a" }])), ["b", "a"]);
        assert_eq!(names(&Value::Null), [""; 0]);
    }
}
