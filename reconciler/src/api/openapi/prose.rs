//! Item documentation made fit for readers who do not have the source.

use serde_json::Value;
use shared::agent_api::{MAX_BATCH, MAX_BODY_BYTES, MAX_BUNDLE_BYTES, MAX_WAIT_SECS};
use shared::question::MAX_TTL_SECS;
use shared::reminder::MAX_REMINDER_BYTES;

/// Takes links to Rust items out of all descriptions.
pub(super) fn clean(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" => *text = readable(text),
                    value => clean(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Without the brackets of links; limits by their value, types by their name, paragraphs on one line each.
fn readable(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once("[`") {
        out.push_str(before);
        match link.split_once("`]") {
            Some((item, after)) => {
                out.push_str(&named(item));
                rest = after;
            }
            None => {
                out.push_str("[`");
                rest = link;
            }
        }
    }
    out.push_str(rest);
    out.split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn named(item: &str) -> String {
    let name = item.rsplit("::").next().unwrap_or(item);
    match name {
        "MAX_BATCH" => MAX_BATCH.to_string(),
        "MAX_BODY_BYTES" => format!("{MAX_BODY_BYTES} bytes"),
        "MAX_BUNDLE_BYTES" => format!("{MAX_BUNDLE_BYTES} bytes"),
        "MAX_REMINDER_BYTES" => format!("{MAX_REMINDER_BYTES} bytes"),
        "MAX_TTL_SECS" => MAX_TTL_SECS.to_string(),
        "MAX_WAIT_SECS" => MAX_WAIT_SECS.to_string(),
        // A variant is written as it is sent.
        _ if item.contains("::") && item.starts_with(char::is_uppercase) => {
            let mut letters = name.chars();
            let first = letters.next().map(|first| first.to_ascii_lowercase());
            format!("`{}`", first.into_iter().chain(letters).collect::<String>())
        }
        _ => format!("`{name}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_without_the_source_finds_no_link_into_it() {
        assert_eq!(
            readable(
                "Waits; at most [`MAX_WAIT_SECS`].\nSee [`crate::wire_error::WireError`] and\n\n[`MessageKind::Message`]"
            ),
            "Waits; at most 180. See `WireError` and\n\n`message`"
        );
        assert_eq!(readable("an [`open end"), "an [`open end");
    }
}
