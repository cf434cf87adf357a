//! What a server offers: asked for over any transport, bounded.

use std::collections::BTreeSet;
use std::time::Duration;

use rmcp::model::{
    ClientCapabilities, ClientConfig, Implementation, PaginatedRequestParams, ProtocolVersion, Tool,
};
use rmcp::service::RunningService;
use rmcp::transport::IntoTransport;
use rmcp::{RoleClient, ServiceExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

/// The most it may say, in bytes.
pub(super) const MAX_OUTPUT: u64 = 8 * 1024 * 1024;
/// The most tools of one server that are looked at, and the most pages of them.
const MAX_LISTED: usize = 20_000;
const MAX_PAGES: usize = 1000;
/// The most tools of one server that are reported.
pub const MAX_TOOLS: usize = 512;
/// The longest name of a tool that is reported, in characters, besides the mark that it was shortened.
pub const MAX_TOOL_NAME: usize = 128;
/// Bytes that models take for one token, by and large.
const BYTES_PER_TOKEN: u64 = 4;

/// Why a server failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Its program cannot be run.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("did not answer initialize and tools/list within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// It did not shake hands.
    #[error("initialize failed")]
    Initialize(#[source] Box<rmcp::service::ClientInitializeError>),
    /// It did not name its tools.
    #[error("tools/list failed")]
    ListTools(#[source] Box<rmcp::ServiceError>),
    /// It names tools without end.
    #[error("tools/list names more than {MAX_LISTED} tools, or has more than {MAX_PAGES} pages")]
    TooMany,
}

/// The tools of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tools {
    /// Their names without control characters, sorted, each once; at most [`MAX_TOOLS`].
    pub names: Vec<String>,
    /// How many there are besides.
    pub more: u64,
    /// What their descriptions take of a model's window, in tokens: an estimate, by their length.
    pub schema_tokens: u64,
}

/// Shakes hands with the server whose standard input and output these are, and asks for its tools. Waits for as long as
/// the server keeps it waiting.
///
/// # Errors
/// When the server does not answer as MCP says, or says more than it may.
pub async fn list_tools(
    input: impl AsyncWrite + Send + Unpin + 'static,
    output: impl AsyncRead + Send + Unpin + 'static,
) -> Result<Tools, ProbeError> {
    ask((output.take(MAX_OUTPUT), input)).await
}

/// The same, over any transport.
pub(super) async fn ask<T, E, A>(transport: T) -> Result<Tools, ProbeError>
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    let client = ClientConfig::new(
        ClientCapabilities::default(),
        Implementation::new("hive-harness", env!("CARGO_PKG_VERSION")),
    )
    .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE);
    let service = client
        .serve(transport)
        .await
        .map_err(|error| ProbeError::Initialize(Box::new(error)))?;
    let tools = all_pages(&service).await;
    if let Err(error) = service.cancel().await {
        tracing::debug!(%error, "MCP client did not end well");
    }
    tools
}

async fn all_pages(service: &RunningService<RoleClient, ClientConfig>) -> Result<Tools, ProbeError> {
    let mut tally = Tally::default();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        let page = service
            .list_tools(Some(params))
            .await
            .map_err(|error| ProbeError::ListTools(Box::new(error)))?;
        tally.take(&page.tools)?;
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(tally.tools());
        }
    }
    Err(ProbeError::TooMany)
}

#[derive(Default)]
struct Tally {
    names: BTreeSet<String>,
    bytes: u64,
}

impl Tally {
    fn take(&mut self, page: &[Tool]) -> Result<(), ProbeError> {
        for tool in page {
            if !self.names.insert(crate::tame(&tool.name, MAX_TOOL_NAME)) {
                continue;
            }
            if self.names.len() > MAX_LISTED {
                return Err(ProbeError::TooMany);
            }
            self.bytes = self.bytes.saturating_add(described(tool));
        }
        Ok(())
    }

    fn tools(self) -> Tools {
        let more = self.names.len().saturating_sub(MAX_TOOLS);
        Tools {
            names: self.names.into_iter().take(MAX_TOOLS).collect(),
            more: u64::try_from(more).unwrap_or(u64::MAX),
            schema_tokens: self.bytes.div_ceil(BYTES_PER_TOKEN),
        }
    }
}

/// The length of what a model is told of a tool, in bytes.
fn described(tool: &Tool) -> u64 {
    let description = tool.description.as_ref().map_or(0, |text| text.len());
    // What was read from JSON can be written.
    let schema = serde_json::to_string(&tool.input_schema).map_or(0, |text| text.len());
    u64::try_from(tool.name.len() + description + schema).unwrap_or(u64::MAX)
}
