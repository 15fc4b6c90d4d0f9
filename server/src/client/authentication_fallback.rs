//! A page on which a person completes a stage of an interactive authentication for a client that does not know the stage.
//!
//! Specification: client-server API, "User-Interactive Authentication API", "Fallback".

use http::HeaderValue;
use http::header::CONTENT_SECURITY_POLICY;

use crate::http::uia::{self, Stage};
use crate::http::{Answer, Call, Outcome, endpoints};
use crate::page::escape;

endpoints! {
    GET  "/_matrix/client/v3/auth/{authType}/fallback/web" ["r0"] None Read  Nothing get_page;
    POST "/_matrix/client/v3/auth/{authType}/fallback/web" ["r0"] None Login Json    post_stage;
}

const PAGE: &str = include_str!("authentication_fallback.html");

/// The page loads nothing and tells nobody but this server. What it says of the request is escaped.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);

async fn get_page(call: Call) -> Outcome {
    let stage = uia::waiting(&call, &call.path("authType")?, &call.query_required("session")?)?;
    let (question, field) = match stage {
        Stage::RegistrationToken => (
            "To register here, you need a token from the administrator.",
            "<label>Token <input name=\"token\" required autocomplete=\"off\"></label>",
        ),
        Stage::Dummy | Stage::Password => ("Your client asks whether to go on.", ""),
    };
    let server_name = escape(call.ctx.config.server_name.as_str());
    let values: [(&str, &str); 3] =
        [("{server_name}", server_name.as_str()), ("{field}", field), ("{question}", question)];
    let page = values.iter().fold(PAGE.to_owned(), |page, (name, value)| page.replace(name, value));
    Ok(Answer::html(page).with_header(CONTENT_SECURITY_POLICY, POLICY).with_cache_control("no-store"))
}

/// What the page sends.
async fn post_stage(call: Call) -> Outcome {
    uia::complete(&call, &call.path("authType")?, &call.query_required("session")?).await?;
    Ok(Answer::empty())
}
