//! What of the provider's API is forwarded, and with which headers (pure).

use hyper::header::{
    AUTHORIZATION, CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, StatusCode};

/// The provider's other header for a key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The largest body, in bytes: a little more than the provider takes.
pub const MAX_BODY: u64 = 36 * 1024 * 1024;
/// The longest query.
const MAX_QUERY: usize = 1024;
/// The longest name of a model.
const MAX_MODEL: usize = 200;

/// A request that is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The gateway is for the model alone.
    #[error(
        "this gateway forwards /v1/messages, /v1/messages/count_tokens and /v1/models alone: for anything else ask the \
         operator for network \"hosts\""
    )]
    Path,
    /// The path is right, the method is not.
    #[error("this method is not for this path")]
    Method,
    /// The query is too long.
    #[error("the query is longer than {MAX_QUERY} bytes")]
    Query,
    /// The body is too large.
    #[error("the body is larger than {MAX_BODY} bytes")]
    Body,
}

impl Unfit {
    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Query => StatusCode::URI_TOO_LONG,
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}

/// Whether a request is forwarded; `length` is the length of its body, if it says one.
///
/// # Errors
/// Why it is not.
pub fn fits(method: &Method, path: &str, query: Option<&str>, length: Option<u64>) -> Result<(), Unfit> {
    let wanted = match path {
        "/v1/messages" | "/v1/messages/count_tokens" => Method::POST,
        "/v1/models" => Method::GET,
        _ if path.strip_prefix("/v1/models/").is_some_and(is_model) => Method::GET,
        _ => return Err(Unfit::Path),
    };
    if *method != wanted {
        return Err(Unfit::Method);
    }
    if query.is_some_and(|query| query.len() > MAX_QUERY) {
        return Err(Unfit::Query);
    }
    match length {
        Some(length) if length > MAX_BODY => Err(Unfit::Body),
        _ => Ok(()),
    }
}

/// Nothing that could lead out of the folder of models: no slash, no escape, not only dots.
fn is_model(name: &str) -> bool {
    (1..=MAX_MODEL).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._:@".contains(&b))
        && name.bytes().any(|b| b.is_ascii_alphanumeric())
}

/// The headers that go to the provider: those of the request, for this host, with this key. Without a key the agent's own
/// login stays as it is.
pub fn to_provider(request: &HeaderMap, host: &HeaderValue, key: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = end_to_end(request);
    for name in [HOST, COOKIE, EXPECT, FORWARDED] {
        headers.remove(name);
    }
    let forwarded: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-forwarded-"))
        .cloned()
        .collect();
    for name in forwarded {
        headers.remove(name);
    }
    headers.insert(HOST, host.clone());
    let Some(key) = key else {
        return headers;
    };
    // In the header that the agent's program would have used.
    let bearer = headers.contains_key(AUTHORIZATION) && !headers.contains_key(&API_KEY);
    headers.remove(AUTHORIZATION);
    headers.remove(&API_KEY);
    let with_scheme = || HeaderValue::from_bytes(&[b"Bearer ", key.as_bytes()].concat()).ok();
    match bearer.then(with_scheme).flatten() {
        Some(mut value) => {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        None => {
            headers.insert(API_KEY, key.clone());
        }
    }
    headers
}

/// The headers that go back to the agent.
pub fn to_agent(answer: &HeaderMap) -> HeaderMap {
    let mut headers = end_to_end(answer);
    headers.remove(SET_COOKIE);
    headers
}

/// The headers that are not about the one connection on which they came.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let mut headers = headers.clone();
    let fixed = [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in named.into_iter().chain(fixed) {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn only_what_a_model_needs_is_forwarded() {
        for (method, path) in [
            (Method::POST, "/v1/messages"),
            (Method::POST, "/v1/messages/count_tokens"),
            (Method::GET, "/v1/models"),
            (Method::GET, "/v1/models/claude-haiku-4-5@20251001"),
        ] {
            assert_eq!(
                fits(&method, path, Some("beta=true"), Some(MAX_BODY)),
                Ok(()),
                "{path}"
            );
        }
        for path in [
            "/",
            "/v1/messages/",
            "/v1/messages/batches",
            "/v1/files",
            "/v1/organizations/api_keys",
            "/v1/models/..",
            "/v1/models/../organizations",
            "/v1/models/%2e%2e",
            "/v1/models/a/b",
            "/v1//messages",
            "/V1/messages",
            "*",
        ] {
            assert_eq!(fits(&Method::POST, path, None, None), Err(Unfit::Path), "{path}");
            assert_eq!(fits(&Method::GET, path, None, None), Err(Unfit::Path), "{path}");
        }
        assert_eq!(fits(&Method::GET, "/v1/messages", None, None), Err(Unfit::Method));
        assert_eq!(
            fits(&Method::DELETE, "/v1/models/x", None, None),
            Err(Unfit::Method)
        );
        assert_eq!(
            fits(&Method::POST, "/v1/messages", None, Some(MAX_BODY + 1)),
            Err(Unfit::Body)
        );
        let long = "x".repeat(MAX_QUERY + 1);
        assert_eq!(
            fits(&Method::POST, "/v1/messages", Some(&long), None),
            Err(Unfit::Query)
        );
    }

    #[test]
    fn the_key_takes_the_place_of_whatever_the_agent_sent() {
        let host = HeaderValue::from_static("provider");
        let key = HeaderValue::from_static("sk-real");
        for (sent, expected) in [
            (headers(&[]), ("x-api-key", "sk-real")),
            (headers(&[("x-api-key", "placeholder")]), ("x-api-key", "sk-real")),
            (
                headers(&[("authorization", "Bearer placeholder")]),
                ("authorization", "Bearer sk-real"),
            ),
            (
                headers(&[("authorization", "Bearer a"), ("x-api-key", "b")]),
                ("x-api-key", "sk-real"),
            ),
        ] {
            let out = to_provider(&sent, &host, Some(&key));
            let of_key: Vec<_> = out
                .iter()
                .filter(|(name, _)| ["x-api-key", "authorization"].contains(&name.as_str()))
                .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
                .collect();
            assert_eq!(of_key, [expected], "{sent:?}");
        }
    }

    #[test]
    fn without_a_key_the_agents_own_login_stays() {
        let host = HeaderValue::from_static("provider");
        let own = headers(&[("authorization", "Bearer own")]);
        assert_eq!(to_provider(&own, &host, None)[AUTHORIZATION], "Bearer own");
    }

    #[test]
    fn headers_of_the_connection_and_of_proxies_stay_behind() {
        let host = HeaderValue::from_static("provider");
        let sent = headers(&[
            ("host", "127.0.0.1:1"),
            ("connection", "x-private, Keep-Alive"),
            ("x-private", "1"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "x"),
            ("cookie", "x"),
            ("expect", "100-continue"),
            ("forwarded", "for=1"),
            ("x-forwarded-for", "1"),
            ("anthropic-beta", "context-1m"),
            ("content-type", "application/json"),
        ]);
        let out = to_provider(&sent, &host, None);
        let mut names: Vec<_> = out.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["anthropic-beta", "content-type", "host"]);
        assert_eq!(out[HOST], "provider");
        let back = headers(&[
            ("connection", "close"),
            ("set-cookie", "x"),
            ("request-id", "r"),
            ("retry-after", "1"),
        ]);
        let out = to_agent(&back);
        let mut names: Vec<_> = out.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["request-id", "retry-after"]);
    }
}
