//! Questions and loose ends, at both doors: the same handlers serve an agent at its own door and the operator at the
//! admin door.

use axum::Json;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use shared::Address;
use shared::loose_end::{LooseEnd, LooseEndId};
use shared::question::{AnswerRequest, AskRequest, QuestionInfo};
use shared::wire_error::ErrorCode::{self, Conflict, Exhausted, Forbidden, NotFound};

use super::admin::parsed;
use super::caller::Caller;
use super::endpoint::{Endpoint, delete, get, group, post};
use super::error::{ApiError, ApiResult};

/// How often the text of a question or of an answer is kept.
const COPIES: usize = 2;

/// The group of the first.
pub(super) const QUESTIONS_TAG: (&str, &str) = ("questions", "Ask, answer, take back");
/// The group of the second.
pub(super) const LOOSE_ENDS_TAG: (&str, &str) = ("looseEnds", "What is still open, and whom it waits for");

/// The endpoints for questions, for either door.
pub(super) fn questions<S>() -> impl Iterator<Item = Endpoint<S>>
where
    S: Clone + Send + Sync + 'static,
    Caller: FromRequestParts<S, Rejection = ApiError>,
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
    Caller: FromRequestParts<S, Rejection = ApiError>,
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

async fn list(caller: Caller, Query(of): Query<OfQuestions>) -> ApiResult<Json<Vec<QuestionInfo>>> {
    let name = caller.agent();
    Ok(Json(caller.context.broker.questions(name, of.all).await?))
}

async fn ask(caller: Caller, Json(request): Json<AskRequest>) -> ApiResult<Json<QuestionInfo>> {
    let bytes = request.body.len() + request.default.as_ref().map_or(0, String::len);
    caller.spend(bytes, COPIES, request.to == Address::Operator)?;
    let (who, now) = (caller.address(), caller.now());
    Ok(Json(caller.context.broker.ask(who, request, now).await?))
}

async fn answer(
    caller: Caller,
    Path(id): Path<String>,
    Json(request): Json<AnswerRequest>,
) -> ApiResult<Json<QuestionInfo>> {
    let id: u64 = parsed(&id, "a question's number")?;
    caller.spend(request.body.len(), COPIES, false)?;
    let (who, author, now) = (caller.address(), caller.author().await, caller.now());
    let broker = &caller.context.broker;
    Ok(Json(broker.answer_as(id, who, author, request.body, now).await?))
}

async fn cancel(caller: Caller, Path(id): Path<String>) -> ApiResult<Json<QuestionInfo>> {
    let id: u64 = parsed(&id, "a question's number")?;
    let (who, now) = (caller.address(), caller.now());
    Ok(Json(caller.context.broker.cancel(id, who, now).await?))
}

async fn list_loose_ends(caller: Caller) -> ApiResult<Json<Vec<LooseEnd>>> {
    let name = caller.agent();
    Ok(Json(caller.context.broker.loose_ends(name).await?))
}

async fn drop_loose_end(
    caller: Caller,
    Path((kind, number)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let named: Result<LooseEndId, _> = format!("{kind}/{number}").parse();
    let end = named.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
    let (who, now) = (caller.address(), caller.now());
    caller.context.broker.drop_loose_end(end, who, now).await?;
    Ok(StatusCode::NO_CONTENT)
}
