//! One reply in the two forms of the Messages API.

use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use crate::script::{Block, Reply, Usage};

/// A message of the model.
pub(crate) struct Message {
    id: String,
    model: String,
    blocks: Vec<Block>,
    usage: Usage,
    reply: Reply,
}

/// How a stream goes on after its events.
enum Then {
    Ends,
    Hangs,
    Breaks,
}

impl Message {
    pub(crate) fn new(reply: &Reply, model: &str, number: u64) -> Self {
        let text = reply.text.clone().map(Block::Text);
        Self {
            id: format!("msg_{number:08}"),
            model: model.to_owned(),
            blocks: text.into_iter().chain(reply.blocks.clone()).collect(),
            usage: reply.usage.unwrap_or(Usage {
                input: 100,
                output: 10,
            }),
            reply: reply.clone(),
        }
    }

    fn stop_reason(&self) -> &'static str {
        let calls = self
            .blocks
            .iter()
            .any(|block| matches!(block, Block::Tool { .. }));
        if calls { "tool_use" } else { "end_turn" }
    }

    fn tool_id(&self, index: usize) -> String {
        format!("toolu_{}_{index}", self.id)
    }

    /// The message in one piece.
    pub(crate) fn document(&self) -> Value {
        let content: Vec<Value> = self
            .blocks
            .iter()
            .enumerate()
            .map(|(index, block)| self.block(index, block))
            .collect();
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": self.stop_reason(), "stop_sequence": null,
            "usage": { "input_tokens": self.usage.input, "output_tokens": self.usage.output },
        })
    }

    fn block(&self, index: usize, block: &Block) -> Value {
        match block {
            Block::Text(text) => json!({ "type": "text", "text": text }),
            Block::Thinking(text) => {
                json!({ "type": "thinking", "thinking": text, "signature": "c2lnbmF0dXJl" })
            }
            Block::Tool { name, input } => {
                json!({ "type": "tool_use", "id": self.tool_id(index), "name": name, "input": input })
            }
        }
    }

    /// The events of a block: its start, its content, its end.
    fn events(&self, index: usize, block: &Block) -> Vec<Value> {
        let delta = |delta: Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
        let (empty, deltas) = match block {
            Block::Text(text) => (
                json!({ "type": "text", "text": "" }),
                halves(text)
                    .map(|part| delta(json!({ "type": "text_delta", "text": part })))
                    .into(),
            ),
            Block::Thinking(text) => (
                json!({ "type": "thinking", "thinking": "", "signature": "" }),
                vec![
                    delta(json!({ "type": "thinking_delta", "thinking": text })),
                    delta(json!({ "type": "signature_delta", "signature": "c2lnbmF0dXJl" })),
                ],
            ),
            Block::Tool { name, input } => (
                json!({ "type": "tool_use", "id": self.tool_id(index), "name": name, "input": {} }),
                vec![delta(
                    json!({ "type": "input_json_delta", "partial_json": input.to_string() }),
                )],
            ),
        };
        let mut events =
            vec![json!({ "type": "content_block_start", "index": index, "content_block": empty })];
        events.extend(deltas);
        events.push(json!({ "type": "content_block_stop", "index": index }));
        events
    }

    /// The message as server-sent events.
    pub(crate) fn stream(&self) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
        let mut start = self.document();
        start["content"] = json!([]);
        start["stop_reason"] = Value::Null;
        start["usage"]["output_tokens"] = json!(1);
        let mut events = vec![json!({ "type": "message_start", "message": start })];
        for (index, block) in self.blocks.iter().enumerate() {
            events.extend(self.events(index, block));
        }
        events.push(json!({
            "type": "message_delta", "delta": { "stop_reason": self.stop_reason(), "stop_sequence": null },
            "usage": { "input_tokens": self.usage.input, "output_tokens": self.usage.output },
        }));
        events.push(json!({ "type": "message_stop" }));
        let then = self.shorten(&mut events);
        let sent = stream::iter(events.into_iter().map(|event| Ok(frame(&event))));
        let rest = match then {
            Then::Ends => stream::empty().boxed(),
            Then::Hangs => stream::pending().boxed(),
            Then::Breaks => stream::iter([Err(std::io::Error::other("cut, as the script says"))]).boxed(),
        };
        sent.chain(rest)
    }

    /// Takes away what the script does not let through: all after the first piece of content.
    fn shorten(&self, events: &mut Vec<Value>) -> Then {
        let then = match &self.reply {
            Reply { hang: true, .. } => Then::Hangs,
            Reply { cut: true, .. } => Then::Breaks,
            Reply { broken: Some(_), .. } => Then::Ends,
            _ => return Then::Ends,
        };
        events.truncate(3);
        if let Some(kind) = &self.reply.broken {
            events.push(json!({ "type": "error", "error": { "type": kind, "message": "scripted" } }));
        }
        then
    }
}

/// A text in two pieces, the first of which is never empty unless the text is.
fn halves(text: &str) -> [&str; 2] {
    let middle = text.char_indices().nth(text.chars().count().div_ceil(2));
    let (first, second) = text.split_at(middle.map_or(text.len(), |(at, _)| at));
    [first, second]
}

fn frame(event: &Value) -> Bytes {
    let kind = event["type"].as_str().unwrap_or_default();
    Bytes::from(format!("event: {kind}\ndata: {event}\n\n"))
}
