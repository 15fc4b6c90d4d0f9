//! HTTP: from a socket to a handler and back. Everything here knows the protocol and nothing about rooms.
//!
//! A topic file (`client/…`) declares a table of [`Endpoint`] rows and plain `async fn name(call: Call) -> Outcome`
//! handlers. What happens before a handler (routing, session, rates, body limits) is decided by its row alone.

pub mod admission;
pub mod answer;
pub mod call;
mod cors;
pub mod credentials;
pub mod error;
mod idle;
mod json;
pub mod limits;
pub mod listen;
pub mod peer;
mod query;
pub mod rate;
pub mod reading;
pub mod request_id;
pub mod route;
pub mod serve;
pub mod session;
pub mod tls;
pub mod uia;

pub use answer::Answer;
pub use call::{Call, Outcome};
pub use error::{ALREADY_INVITED, ApiError};
pub use json::{is_readable, null_is_absent};
pub use query::percent_decode;
pub use route::Endpoint;
pub(crate) use route::endpoints;
