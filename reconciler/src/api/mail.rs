//! Questions and loose ends, at both doors: the same handlers serve an agent at its own door and the operator at the
//! admin door. Who asks is the door's to say.

use axum::Json;
use axum::extract::{ConnectInfo, FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use shared::loose_end::{LooseEnd, LooseEndId};
use shared::question::{AnswerRequest, AskRequest, QuestionInfo};
use shared::wire_error::ErrorCode::{self, Conflict, Exhausted, Forbidden, NotFound};
use shared::{Address, AgentName};

use super::Context;
use super::admin::parsed;
use super::agent::AgentContext;
use super::endpoint::{Endpoint, delete, get, group, post};
use super::error::{ApiError, ApiResult};
use super::peer::Peer;

/// Where somebody asks, and who.
pub(super) struct Door {
    context: Context,
    /// The agent's own door; the operator's has no bounds.
    agent: Option<AgentContext>,
    /// Who is at the other end, where that is a person.
    peer: Option<Peer>,
}

impl FromRequestParts<()> for Door {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &()) -> Result<Self, ApiError> {
        let door = AgentContext::from_request_parts(parts, state).await?;
        Ok(Self {
            context: door.context.clone(),
            agent: Some(door),
            peer: None,
        })
    }
}

impl FromRequestParts<Context> for Door {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>();
        Ok(Self {
            context: context.clone(),
            agent: None,
            peer: peer.map(|ConnectInfo(peer)| *peer),
        })
    }
}

impl Door {
    fn who(&self) -> Address {
        self.name().map_or(Address::Operator, Address::Agent)
    }

    /// Under which name it is kept what this one allows.
    async fn author(&self) -> String {
        let person = match self.peer {
            Some(peer) => peer.identity().await,
            None => None,
        };
        person.unwrap_or_else(|| self.who().to_string())
    }

    fn name(&self) -> Option<AgentName> {
        self.agent.as_ref().map(|door| door.agent.clone())
    }

    fn now(&self) -> Timestamp {
        self.context.reconciler.host().clock.now()
    }

    /// Takes from an agent's allowance what a question or an answer costs, which is kept twice.
    fn spend(&self, bytes: usize, to_operator: bool) -> ApiResult<()> {
        match &self.agent {
            Some(door) => door.spend(bytes, 2, to_operator),
            None => Ok(()),
        }
    }
}

/// The group of the first.
pub(super) const QUESTIONS_TAG: (&str, &str) = ("questions", "Ask, answer, take back");
/// The group of the second.
pub(super) const LOOSE_ENDS_TAG: (&str, &str) = ("looseEnds", "What is still open, and whom it waits for");

/// The endpoints for questions, for either door.
pub(super) fn questions<S>() -> impl Iterator<Item = Endpoint<S>>
where
    S: Clone + Send + Sync + 'static,
    Door: FromRequestParts<S, Rejection = ApiError>,
{
    let all = [
        get("/v1/questions", list, "questions", "Questions, newest first")
            .about("An agent sees those that it asked or was asked, the operator everybody's.")
            .query::<OfQuestions>()
            .answers::<Vec<QuestionInfo>>(),
        post("/v1/questions", ask, "ask", "Ask a question")
            .about(
                "Once this is answered the question survives a crash. It ends once: by an answer, by its time running \
                 out, or by being taken back; the asker gets one message of kind `answer` for it.",
            )
            .takes::<AskRequest>()
            .answers::<QuestionInfo>()
            .refuses([Forbidden, NotFound, Conflict, Exhausted]),
        post(
            "/v1/questions/{question}/answer",
            answer,
            "answer",
            "Answer a question",
        )
        .about("An answer is written once. Whoever was asked answers; the operator may answer any.")
        .takes::<AnswerRequest>()
        .answers::<QuestionInfo>()
        .refuses([Forbidden, Conflict, Exhausted]),
        delete(
            "/v1/questions/{question}",
            cancel,
            "cancelQuestion",
            "Take a question back",
        )
        .about("Its asker may, a manager, and the operator.")
        .answers::<QuestionInfo>()
        .refuses([Forbidden, Conflict]),
    ];
    group(QUESTIONS_TAG.0, all)
}

/// The endpoints for loose ends, for either door.
pub(super) fn loose_ends<S>() -> impl Iterator<Item = Endpoint<S>>
where
    S: Clone + Send + Sync + 'static,
    Door: FromRequestParts<S, Rejection = ApiError>,
{
    let all = [
        get(
            "/v1/loose-ends",
            list_loose_ends,
            "looseEnds",
            "What is still open, the oldest first",
        )
        .about(
            "Open questions, reminders, open gates, and messages that are not delivered any more. An agent sees what \
             involves it, a manager and the operator everybody's.",
        )
        .answers::<Vec<LooseEnd>>(),
        delete(
            "/v1/loose-ends/{kind}/{number}",
            drop_loose_end,
            "dropLooseEnd",
            "Take a loose end back",
        )
        .about(
            "A question or a reminder is taken back, a message is dismissed. Its owner may, a manager, and the operator. \
             A gate is decided by the operator alone.",
        )
        .refuses([Forbidden, Conflict]),
    ];
    group(LOOSE_ENDS_TAG.0, all)
}

#[derive(Debug, Deserialize, JsonSchema)]
struct OfQuestions {
    /// Those that have ended, too
    #[serde(default)]
    all: bool,
}

async fn list(door: Door, Query(of): Query<OfQuestions>) -> ApiResult<Json<Vec<QuestionInfo>>> {
    let name = door.name();
    Ok(Json(door.context.broker.questions(name.as_ref(), of.all).await?))
}

async fn ask(door: Door, Json(request): Json<AskRequest>) -> ApiResult<Json<QuestionInfo>> {
    let bytes = request.body.len() + request.default.as_ref().map_or(0, String::len);
    door.spend(bytes, request.to == Address::Operator)?;
    let (who, now) = (door.who(), door.now());
    Ok(Json(door.context.broker.ask(who, request, now).await?))
}

async fn answer(
    door: Door,
    Path(id): Path<String>,
    Json(request): Json<AnswerRequest>,
) -> ApiResult<Json<QuestionInfo>> {
    let id: u64 = parsed(&id, "a question's number")?;
    door.spend(request.body.len(), false)?;
    let (who, author, now) = (door.who(), door.author().await, door.now());
    let broker = &door.context.broker;
    Ok(Json(broker.answer_as(id, who, author, request.body, now).await?))
}

async fn cancel(door: Door, Path(id): Path<String>) -> ApiResult<Json<QuestionInfo>> {
    let id: u64 = parsed(&id, "a question's number")?;
    let (who, now) = (door.who(), door.now());
    Ok(Json(door.context.broker.cancel(id, who, now).await?))
}

async fn list_loose_ends(door: Door) -> ApiResult<Json<Vec<LooseEnd>>> {
    let name = door.name();
    Ok(Json(door.context.broker.loose_ends(name.as_ref()).await?))
}

async fn drop_loose_end(door: Door, Path((kind, number)): Path<(String, String)>) -> ApiResult<StatusCode> {
    let named: Result<LooseEndId, _> = format!("{kind}/{number}").parse();
    let end = named.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
    let (who, now) = (door.who(), door.now());
    door.context.broker.drop_loose_end(end, who, now).await?;
    Ok(StatusCode::NO_CONTENT)
}
