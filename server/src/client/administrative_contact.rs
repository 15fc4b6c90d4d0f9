//! `administrative_contact.yaml`: third-party identifiers, of which accounts here have none.

use serde_json::json;

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/v3/account/3pid" ["r0"] Required Read Nothing get_threepids;
}

async fn get_threepids(_call: Call) -> Outcome {
    Answer::json(&json!({ "threepids": [] }))
}
