//! Lists for administrators, in pages, as Synapse documents them.

use serde_json::{Value, json};

use crate::http::{Answer, ApiError, Call, Outcome};

/// How many entries an answer has where the request does not say, as on other servers.
const LIMIT_DEFAULT: u64 = 100;
/// How many it has at most.
const LIMIT_MAX: u64 = 10_000;

/// A page of a list.
pub struct Page {
    from: usize,
    limit: usize,
    is_backward: bool,
}

/// The page that a request asks for by `from`, `limit` and `dir`.
///
/// Errors: 400 for what makes no sense.
pub fn page(call: &Call) -> Result<Page, ApiError> {
    let from = call.query_u64("from")?.unwrap_or_default();
    let limit = call.query_u64("limit")?.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
    Ok(Page {
        from: usize::try_from(from).unwrap_or(usize::MAX),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        is_backward: call.query_enum("dir", &[("f", false), ("b", true)])?.unwrap_or_default(),
    })
}

impl Page {
    /// The answer's body with the entries of the page under `name`.
    pub fn answer<T>(&self, name: &str, mut all: Vec<T>, entry: impl Fn(T) -> Value) -> Outcome {
        let total = all.len();
        if self.is_backward {
            all.reverse();
        }
        let entries: Vec<Value> = all.into_iter().skip(self.from).take(self.limit).map(entry).collect();
        let next = self.from.saturating_add(entries.len());
        let mut body = json!({ name: entries, "total": total });
        if next < total && self.limit > 0 {
            body["next_token"] = next.to_string().into();
        }
        Answer::json(&body)
    }
}
