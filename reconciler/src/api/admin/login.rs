//! Logging an agent's driver in. Nothing of it is stored: it is gone with the daemon, and asked for again.

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use shared::AgentName;
use shared::login::{LoginAnswer, LoginState, MAX_CODE_BYTES};
use shared::wire_error::ErrorCode;

use super::{by, known, parsed};
use crate::api::Context;
use crate::api::error::{ApiError, ApiResult};
use crate::api::peer::Peer;
use crate::host::HarnessLink as _;

pub(super) async fn begin(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
) -> ApiResult<Json<LoginState>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    known(&context, &name).await?;
    let by = by(peer).await?;
    if context.link.state(&name).is_none() {
        let message = format!(
            "{name} does not run, or its harness has not reported yet: its own program has to log it in"
        );
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(format!("hive start {name}")));
    }
    let id = context.reconciler.host().ids.login_id();
    tracing::info!(agent = %name, by, %id, "a login is asked for");
    context.link.begin_login(&name, id);
    current(&context, &name)
}

pub(super) async fn show(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> ApiResult<Json<LoginState>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    known(&context, &name).await?;
    current(&context, &name)
}

pub(super) async fn code(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    Json(answer): Json<LoginAnswer>,
) -> ApiResult<Json<LoginState>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    known(&context, &name).await?;
    by(peer).await?;
    let code = &answer.code.0;
    if !(1..=MAX_CODE_BYTES).contains(&code.len()) || !code.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("a code has 1 to {MAX_CODE_BYTES} visible ASCII characters and no blanks");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    if !context.link.give_code(&name, answer) {
        let message =
            format!("that login of {name} does not wait for a code: it is over, or another one was begun");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(format!("hive login {name}")));
    }
    current(&context, &name)
}

fn current(context: &Context, name: &AgentName) -> ApiResult<Json<LoginState>> {
    let login = context.link.login(name);
    login.map(Json).ok_or_else(|| {
        let message = format!(
            "no login of {name} is known: none was asked for, or its harness was started anew meanwhile"
        );
        ApiError::new(ErrorCode::NotFound, message).hint(format!("hive login {name}"))
    })
}
