//! The proxy: CONNECT alone, to listed hosts, to addresses of the public Internet.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use shared::egress::RefusalReason;
use tokio::net::{TcpStream, UnixStream};

use super::count::Counted;
use super::door::{Caller, HEAD_TIME, say};
use super::policy::AgentPolicy;
use super::resolve::{self, ReachError};
use super::rule::Target;

/// The largest head; a CONNECT has no more than a line.
const MAX_HEAD: usize = 8 * 1024;
/// A tunnel over which nothing goes for so long is closed.
const IDLE_TIME: Duration = Duration::from_secs(30 * 60);

/// Serves one connection to its end.
pub async fn connection(near: UnixStream, caller: Caller) {
    let open: Arc<Mutex<Option<Tunnel>>> = Arc::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (caller, open) = (caller.clone(), Arc::clone(&open));
        async move {
            let (answer, tunnel) = answer(request, &caller).await;
            *open.lock().unwrap_or_else(PoisonError::into_inner) = tunnel;
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(near), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(agent = %caller.agent, error = error.to_string(), "a connection broke off");
        return;
    }
    let tunnel = open.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel {
        tunnel.run(caller).await;
    }
}

/// What was agreed on.
struct Tunnel {
    target: Target,
    near: OnUpgrade,
    far: TcpStream,
}

async fn answer(mut request: Request<Incoming>, caller: &Caller) -> (Response<Body>, Option<Tunnel>) {
    if request.method() != Method::CONNECT {
        let text = "this proxy knows CONNECT alone: use https, or CONNECT for other protocols";
        return (say(StatusCode::METHOD_NOT_ALLOWED, text), None);
    }
    let authority = request
        .uri()
        .authority()
        .map_or("", |authority| authority.as_str());
    let Some(target) = Target::parse(authority) else {
        let text = "expected CONNECT HOST:PORT, with a host name or a full address";
        return (say(StatusCode::BAD_REQUEST, text), None);
    };
    match reach(&target, caller).await {
        Ok(far) => {
            let near = hyper::upgrade::on(&mut request);
            (Response::new(Body::empty()), Some(Tunnel { target, near, far }))
        }
        Err(error) => (refused(&target, &error, caller), None),
    }
}

/// Why a target is not reached.
enum Denial {
    NotListed,
    Reach(ReachError),
}

async fn reach(target: &Target, caller: &Caller) -> Result<TcpStream, Denial> {
    if !caller.policy.borrow().allows(target) {
        return Err(Denial::NotListed);
    }
    let outside = &caller.outside;
    let addresses = resolve::addresses(&*outside.resolver, target, outside.judge).await;
    let addresses = addresses.map_err(Denial::Reach)?;
    resolve::connect(&addresses, &target.to_string())
        .await
        .map_err(Denial::Reach)
}

fn refused(target: &Target, denial: &Denial, caller: &Caller) -> Response<Body> {
    let agent = &caller.agent;
    let refuse = |reason| caller.outside.refuse(agent, target, reason);
    let (status, text) = match denial {
        Denial::NotListed => {
            refuse(RefusalReason::NotListed);
            let remedy = match target.as_rule() {
                Some(rule) => {
                    format!("the operator is told; it is allowed with: hive egress allow {agent} {rule}")
                }
                None => "it cannot be listed either: only network \"host\" reaches it".to_owned(),
            };
            let text =
                format!("{agent} may not connect to {target}, which is not in its list of hosts; {remedy}");
            (StatusCode::FORBIDDEN, text)
        }
        Denial::Reach(error @ ReachError::Refused { .. }) => {
            refuse(RefusalReason::PrivateAddress);
            let text = format!(
                "{agent} may not connect to {target}: {error}; only addresses of the public Internet are connected to"
            );
            (StatusCode::FORBIDDEN, text)
        }
        Denial::Reach(error @ ReachError::TimedOut { .. }) => {
            (StatusCode::GATEWAY_TIMEOUT, error.to_string())
        }
        Denial::Reach(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
    };
    say(status, &text)
}

impl Tunnel {
    /// Carries bytes until one side ends, nothing moves any more, or the target is no longer allowed.
    async fn run(self, caller: Caller) {
        let Self { target, near, far } = self;
        let Ok(near) = near.await else { return };
        let mut near = TokioIo::new(near);
        let mut far = Counted::new(far, Arc::clone(&caller.counter));
        let moved = far.moved();
        tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut near, &mut far) => {
                if let Err(error) = copied {
                    tracing::debug!(agent = %caller.agent, %target, %error, "a tunnel ended early");
                }
            }
            () = idle(&moved) => tracing::debug!(agent = %caller.agent, %target, "an idle tunnel is closed"),
            () = forbidden(caller.policy, &target) => {
                tracing::info!(agent = %caller.agent, %target, "closed: no longer allowed");
            }
        }
    }
}

/// Returns when nothing has moved for a while.
async fn idle(moved: &AtomicU64) {
    let mut before = None;
    loop {
        let now = moved.load(Ordering::Relaxed);
        if before == Some(now) {
            return;
        }
        before = Some(now);
        tokio::time::sleep(IDLE_TIME).await;
    }
}

/// Returns when the target is not allowed any more.
async fn forbidden(mut policy: tokio::sync::watch::Receiver<AgentPolicy>, target: &Target) {
    // An error means that the door is being closed, and this with it.
    if policy.wait_for(|policy| !policy.allows(target)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
