//! Runs the made-up provider until it is killed.

use anyhow::Context as _;
use clap::Parser;
use model_server::{ModelServer, Rule};

/// A made-up model provider on loopback
#[derive(Debug, Parser)]
#[command(name = "model-server", version)]
struct Arguments {
    /// Where to listen; the port that was taken is written to standard output
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: String,
    /// The script: a JSON list of rules
    #[arg(long, value_name = "FILE")]
    script: Option<std::path::PathBuf>,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "its caller reads the address from there")]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, script } = Arguments::parse();
    let rules: Vec<Rule> = match &script {
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?
        }
        None => Vec::new(),
    };
    let server = ModelServer::bind(&listen, rules)
        .await
        .with_context(|| format!("listening on {listen}"))?;
    println!("{}", server.url());
    std::future::pending().await
}
