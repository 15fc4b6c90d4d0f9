//! `users.yaml`: searching the user directory.

use serde::Deserialize;
use warren_engine::view::SearchUsers;

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    POST "/_matrix/client/v3/user_directory/search" ["r0"] Required Search Json search_user_directory;
}

#[derive(Deserialize)]
struct Body {
    search_term: String,
    limit: Option<u64>,
}

async fn search_user_directory(call: Call) -> Outcome {
    let body: Body = call.json()?;
    let search = SearchUsers { user: call.user()?.to_string(), term: body.search_term, limit: body.limit };
    Answer::json(&call.ctx.engine.read(&search)?)
}
