//! Routes that say what they are. A door is a list of endpoints: its router and its OpenAPI document are made from the
//! same list, so that nothing is answered that is not documented.

use std::collections::BTreeSet;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::wire_error::ErrorCode;

/// Makes the schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The methods that the doors know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads; changes nothing.
    Get,
    /// Asks for a change.
    Post,
    /// Puts something in its place.
    Put,
    /// Takes something away.
    Delete,
}

/// What is sent or answered in one form.
#[derive(Debug, Clone)]
pub struct Content {
    /// The media type.
    pub media: &'static str,
    /// The schema; `None`: bytes.
    pub schema: Option<SchemaOf>,
    /// What it is; empty when the schema says it.
    pub about: &'static str,
}

/// What an operation is, apart from how it is carried out.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The method.
    pub method: Method,
    /// The path; parameters are `{name}`, or `{*name}` for all that is left.
    pub path: &'static str,
    /// Its name in programs.
    pub id: &'static str,
    /// What group of operations it belongs to.
    pub tag: &'static str,
    /// One line.
    pub summary: &'static str,
    /// More, in sentences.
    pub description: &'static str,
    /// The query, as an object whose fields are the parameters.
    pub query: Option<SchemaOf>,
    /// What must be sent.
    pub takes: Option<Content>,
    /// What is answered on success, in each of these forms; none: 204 without a body.
    pub answers: Vec<Content>,
    /// Headers of the request and what they are for.
    pub heeds: Vec<(&'static str, &'static str)>,
    /// Headers of the answer and what they are for.
    pub tells: Vec<(&'static str, &'static str)>,
    /// How it may refuse, besides what every operation of its shape may answer.
    pub refuses: BTreeSet<u16>,
}

/// An operation and its handler.
pub struct Endpoint<S> {
    /// What it is.
    pub operation: Operation,
    handler: MethodRouter<S>,
}

/// Reads something.
pub fn get<S, T, H>(path: &'static str, handler: H, id: &'static str, summary: &'static str) -> Endpoint<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    Endpoint::new(Method::Get, path, routing::get(handler), id, summary)
}

/// Asks for a change.
pub fn post<S, T, H>(path: &'static str, handler: H, id: &'static str, summary: &'static str) -> Endpoint<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    Endpoint::new(Method::Post, path, routing::post(handler), id, summary)
}

/// Puts something in its place.
pub fn put<S, T, H>(path: &'static str, handler: H, id: &'static str, summary: &'static str) -> Endpoint<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    Endpoint::new(Method::Put, path, routing::put(handler), id, summary)
}

/// Takes something away.
pub fn delete<S, T, H>(path: &'static str, handler: H, id: &'static str, summary: &'static str) -> Endpoint<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    Endpoint::new(Method::Delete, path, routing::delete(handler), id, summary)
}

impl<S: Clone + Send + Sync + 'static> Endpoint<S> {
    fn new(
        method: Method,
        path: &'static str,
        handler: MethodRouter<S>,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            operation: Operation {
                method,
                path,
                id,
                tag: "",
                summary,
                description: "",
                query: None,
                takes: None,
                answers: Vec::new(),
                heeds: Vec::new(),
                tells: Vec::new(),
                refuses: BTreeSet::new(),
            },
            handler,
        }
    }

    /// Says more about it.
    #[must_use]
    pub fn about(mut self, description: &'static str) -> Self {
        self.operation.description = description;
        self
    }

    /// Its query has the fields of `T`.
    #[must_use]
    pub fn query<T: JsonSchema + DeserializeOwned>(mut self) -> Self {
        // Inlined: a query is no document of its own.
        self.operation.query = Some(T::json_schema);
        self
    }

    /// It takes a JSON document.
    #[must_use]
    pub fn takes<T: JsonSchema + DeserializeOwned>(mut self) -> Self {
        self.operation.takes = Some(Content {
            media: "application/json",
            schema: Some(SchemaGenerator::subschema_for::<T>),
            about: "",
        });
        self
    }

    /// It takes bytes, which the handler reads as a stream and bounds itself.
    #[must_use]
    pub fn takes_stream(mut self, about: &'static str) -> Self {
        self.operation.takes = Some(Content {
            media: "application/octet-stream",
            schema: None,
            about,
        });
        self.handler = self.handler.layer(axum::extract::DefaultBodyLimit::disable());
        self
    }

    /// Whether what it takes is a stream that the handler bounds itself.
    pub fn takes_bytes(&self) -> bool {
        matches!(self.operation.takes, Some(Content { schema: None, .. }))
    }

    /// It answers a JSON document.
    #[must_use]
    pub fn answers<T: JsonSchema + Serialize>(mut self) -> Self {
        self.operation.answers.push(Content {
            media: "application/json",
            schema: Some(SchemaGenerator::subschema_for::<T>),
            about: "",
        });
        self
    }

    /// It answers something that is no JSON document.
    #[must_use]
    pub fn answers_with(mut self, media: &'static str, about: &'static str) -> Self {
        self.operation.answers.push(Content {
            media,
            schema: None,
            about,
        });
        self
    }

    /// It heeds a header of the request.
    #[must_use]
    pub fn heeds(mut self, header: &'static str, about: &'static str) -> Self {
        self.operation.heeds.push((header, about));
        self
    }

    /// It answers with a header.
    #[must_use]
    pub fn tells(mut self, header: &'static str, about: &'static str) -> Self {
        self.operation.tells.push((header, about));
        self
    }

    /// It may refuse with these, too.
    #[must_use]
    pub fn refuses(mut self, codes: impl IntoIterator<Item = ErrorCode>) -> Self {
        let statuses = codes.into_iter().map(|code| super::error::status(code).as_u16());
        self.operation.refuses.extend(statuses);
        self
    }
}

/// Gives endpoints the group they belong to.
pub fn group<S>(
    tag: &'static str,
    endpoints: impl IntoIterator<Item = Endpoint<S>>,
) -> impl Iterator<Item = Endpoint<S>> {
    endpoints.into_iter().map(move |mut endpoint| {
        endpoint.operation.tag = tag;
        endpoint
    })
}

/// A router that answers exactly these.
pub fn router<S: Clone + Send + Sync + 'static>(endpoints: Vec<Endpoint<S>>) -> Router<S> {
    endpoints.into_iter().fold(Router::new(), |router, endpoint| {
        router.route(endpoint.operation.path, endpoint.handler)
    })
}
