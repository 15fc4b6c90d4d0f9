//! What can go wrong while measuring. A failure ends its measure, never the whole run, and is shown in place of the
//! figure; nothing is retried silently, for a retried request would be a wrong figure.

/// Why a measure has no figure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address given is not one the generator can drive.
    #[error("{url:?} is not a base URL of the form http://HOST:PORT: {reason}")]
    BaseUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server cannot be reached.
    #[error("cannot connect to {authority}: {source}")]
    Connect {
        /// Host and port.
        authority: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The connection broke, or what came over it was not HTTP.
    #[error("{path}: {source}")]
    Http {
        /// The request's path.
        path: String,
        /// The client's reason.
        source: hyper::Error,
    },
    /// The server did not answer in time.
    #[error("{path}: no answer within {seconds} s")]
    Timeout {
        /// The request's path.
        path: String,
        /// The limit that passed.
        seconds: u64,
    },
    /// The server answered, but not with success.
    #[error("{path}: {status} {body}")]
    Refused {
        /// The request's path.
        path: String,
        /// The status of the answer.
        status: http::StatusCode,
        /// The beginning of its body.
        body: String,
    },
    /// The server answered with success, but the answer lacks what it must hold.
    #[error("{path}: the answer has no {field:?}")]
    Lacks {
        /// The request's path.
        path: String,
        /// The missing field.
        field: &'static str,
    },
    /// A file, folder or process of the machine could not be used.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A server did not start, or a set-up command failed.
    #[error("{name} did not start: {reason}; it said: {said}")]
    Start {
        /// The server's name.
        name: &'static str,
        /// What was seen.
        reason: String,
        /// The end of its output.
        said: String,
    },
    /// The measure needs something that this run does not have.
    #[error("needs {0}")]
    Needs(&'static str),
    /// What was measured cannot be right.
    #[error("{0}")]
    Implausible(String),
}

/// A result whose failure is an [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wraps an input or output error with what was attempted.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::System { what, source }
    }
}
