//! `hive egress` as a child of the daemon, where no service manager runs it.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Ids;
use super::layout::Layout;

/// The pause before it is started again doubles from here…
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// …up to here.
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// One that ran so long did not fail at once.
const STEADY: Duration = Duration::from_secs(60);
/// How long it may take to end.
const END_TIME: Duration = Duration::from_secs(3);

/// Runs the service as long as `needed` is true, until this is dropped: then it ends, as it does when the daemon dies.
pub async fn supervise(
    program: Utf8PathBuf,
    layout: Layout,
    ids: Arc<dyn Ids>,
    mut needed: watch::Receiver<bool>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        if needed.wait_for(|needed| *needed).await.map(drop).is_err() {
            return;
        }
        let began = Instant::now();
        match start(&program, &layout) {
            Ok((mut child, leash)) => tokio::select! {
                ended = child.wait() => {
                    let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                    tracing::error!(status, "hive egress ended: agents without the host's network have no way out");
                }
                gone = async { needed.wait_for(|needed| !*needed).await.map(drop) } => {
                    end(child, leash).await;
                    if gone.is_err() {
                        return;
                    }
                    continue;
                }
            },
            Err(error) => tracing::error!(%program, %error, "hive egress cannot be started"),
        }
        pause = if began.elapsed() >= STEADY {
            FIRST_PAUSE
        } else {
            (pause * 2).min(LAST_PAUSE)
        };
        tokio::time::sleep(pause.mul_f64(0.5 + ids.jitter() / 2.0)).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "programs are started in host/ alone; this is one of the places"
)]
fn start(program: &Utf8PathBuf, layout: &Layout) -> std::io::Result<(Child, Option<ChildStdin>)> {
    let mut child = Command::new(program)
        .arg("egress")
        .args(["--policy", layout.egress_policy().as_str()])
        .args(["--dir", layout.egress().as_str()])
        .args(["--daemon", layout.egress_socket().as_str()])
        .args(["--until-input-ends", "--log", "warn,reconciler::egress=info"])
        .env_clear()
        .current_dir("/")
        // It ends when this pipe does, and that is when the daemon is gone, however it went.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    // Whoever waits for a child closes its input, if he has it.
    let leash = child.stdin.take();
    Ok((child, leash))
}

async fn end(mut child: Child, leash: Option<ChildStdin>) {
    drop(leash);
    if tokio::time::timeout(END_TIME, child.wait()).await.is_err()
        && let Err(error) = child.kill().await
    {
        tracing::warn!(%error, "hive egress was not ended");
    }
}
