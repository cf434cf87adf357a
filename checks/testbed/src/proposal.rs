//! What an agent offers from inside its machine: a commit of its own, sent through its own socket.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::agent::Agent;
use crate::hive::STATE;
use crate::program;

/// Sends a request to the agent's socket and prints the body of the answer; fails unless it is a success.
const ASK: &str = r#"
use IO::Socket::UNIX; undef $/;
my ($method, $path) = @ARGV; my $body = <STDIN>;
my $door = IO::Socket::UNIX->new(Peer => "/run/hive/hive.sock") or die "the socket: $!";
print $door "$method $path HTTP/1.1\r\nhost: hive\r\nconnection: close\r\ncontent-length: ", length $body, "\r\n\r\n", $body;
$door->flush; my ($head, $answer) = split /\r\n\r\n/, <$door>, 2;
$head =~ m{^HTTP/1.1 200 } or die "$head\n$answer"; print $answer;
"#;

/// A commit as it was offered.
#[derive(Debug)]
pub(crate) struct Offered {
    /// The number of its proposal.
    pub(crate) number: u64,
    /// Its id.
    pub(crate) commit: String,
}

/// Commits these files on top of `main` and offers them, all of it inside, as the agent.
pub(crate) fn offer(agent: &Agent, title: &str, files: &[(&str, &str)]) -> Result<Offered> {
    let mut written = String::new();
    for (name, text) in files {
        written.push_str(&format!("printf %s {} > {name}\n", program::quoted(text)));
    }
    let line = format!(
        "rm -rf /state/offer && mkdir /state/offer && cd /state/offer
         ask() {{ perl -e {ask} \"$@\"; }}
         ask GET /v1/repo/bundle </dev/null >main.bundle
         git clone --quiet --branch main main.bundle repo && cd repo && git switch --quiet --create proposal
         {written}
         git add --all && git -c user.name=alice -c user.email=alice@hive commit --quiet --message={title}
         git bundle create --quiet ../offer.bundle proposal ^main
         ask POST /v1/proposals <../offer.bundle",
        ask = program::quoted(ASK),
        title = program::quoted(title),
    );
    let answer = agent.run("agent", &line)?;
    let answer: Value =
        serde_json::from_str(&answer).with_context(|| format!("the answer to a proposal is {answer:?}"))?;
    Ok(Offered {
        number: answer["number"].as_u64().context("a proposal has a number")?,
        commit: answer["commit"].as_str().context("and a commit")?.to_owned(),
    })
}

/// What git says of the agent's config repo on the host.
pub(crate) fn git<const N: usize>(agent: &str, arguments: [&str; N]) -> Result<String> {
    let repo = format!("{STATE}/repos/{agent}.git");
    let before = ["-c", "safe.directory=*", "-C", &repo];
    let said = program::run("git", before.into_iter().chain(arguments))?;
    Ok(said.trim().to_owned())
}

/// `main` and this tag are this commit.
pub(crate) fn is_deployed(agent: &str, offered: &Offered) -> Result<()> {
    let tag = format!("deployed/{}^{{commit}}", offered.number);
    for name in ["main", &tag] {
        let found = git(agent, ["rev-parse", "--verify", name])?;
        ensure!(
            found == offered.commit,
            "{name} of {agent} is {found}, not {offered:?}"
        );
    }
    Ok(())
}
