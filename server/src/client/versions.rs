//! `versions.yaml`: which versions of the specification this server speaks, and which unstable features.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/_matrix/client/versions" [] Optional None Nothing get_versions;
}

/// Every version of the specification. Not all of their endpoints are served (`docs/endpoints.md` has those that are), but of a
/// version that is not named here clients would use none. The r0 releases are served by the `r0` prefix of the same handlers.
const VERSIONS: &[&str] = &[
    "r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3",
    "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12", "v1.13", "v1.14", "v1.15",
    "v1.16", "v1.17", "v1.18", "v1.19",
];

#[derive(Serialize)]
struct Versions {
    versions: &'static [&'static str],
    unstable_features: Map<String, Value>,
}

async fn get_versions(_call: Call) -> Outcome {
    Answer::json(&Versions { versions: VERSIONS, unstable_features: Map::new() })
}
