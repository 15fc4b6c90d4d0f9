//! The sessions of interactive authentications: what has been proven in each, and what the request that it served was answered
//! with.
//!
//! Invariant: a session serves one request, once. Who sends that again is given the same answer, as long as the session lasts.
//! There may be an access token in it, so that it is in memory alone, and only for who knows the session.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Proof, Stage};
use crate::http::answer::AnswerBody;
use crate::http::limits::{UIA_ANSWER_BYTES_MAX, UIA_ANSWERS_MAX, UIA_SESSIONS_MAX, UIA_TIME_MAX};
use crate::http::{Answer, ApiError, Outcome};

pub type RequestHash = [u8; 32];

/// A request, as far as sessions are bound to it.
pub struct Asked {
    /// What must be the same on the way through the stages.
    pub begun: RequestHash,
    /// All of it but `auth`: what must be the same when it is sent again.
    pub whole: RequestHash,
}

/// What has been proven so far.
#[derive(Clone, Default)]
pub struct Open {
    pub completed: Vec<Stage>,
    pub proof: Proof,
}

/// The body of a 200, or an error.
type Given = Result<Bytes, ApiError>;

/// The request that a session serves, and what it is answered with.
#[derive(Clone)]
pub struct Closed {
    whole: RequestHash,
    /// `None` while it is under way.
    given: watch::Receiver<Option<Given>>,
}

/// How a session stands.
#[derive(Clone)]
pub enum State {
    Open(Open),
    Closed(Closed),
}

/// Whose turn it is when all stages are complete.
pub enum Turn {
    /// The request is to be done now.
    Serve(Serving),
    /// It is done already, or under way.
    Wait(Closed),
}

/// A request that is under way. When it is dropped instead of settled, the session is of no more use.
pub struct Serving {
    id: String,
    told: watch::Sender<Option<Given>>,
}

struct Session {
    begun_by: RequestHash,
    begun: Instant,
    state: State,
}

/// The sessions of all requests that are under way, and of those that were answered a while ago.
#[derive(Default)]
pub struct Sessions(Mutex<Table>);

#[derive(Default)]
struct Table {
    sessions: HashMap<String, Session>,
    /// The sessions' ids, oldest first; also of some that are gone.
    order: VecDeque<(Instant, String)>,
    /// The ids of those with a kept answer, oldest first; also of some that are gone.
    answered: VecDeque<String>,
}

impl Sessions {
    /// Begins a session for a request.
    pub fn begin(&self, id: String, begun_by: RequestHash, open: Open) {
        self.0.lock().insert(id, Session { begun_by, begun: Instant::now(), state: State::Open(open) });
    }

    /// How a session stands.
    ///
    /// Errors: 400 for an unknown or expired session, 403 for one of another request.
    pub fn state(&self, id: &str, asked: &Asked) -> Result<State, ApiError> {
        let table = self.0.lock();
        let found = table.sessions.get(id).filter(|found| found.begun.elapsed() <= UIA_TIME_MAX);
        let found = found.ok_or_else(unknown)?;
        match found.begun_by == asked.begun {
            true => Ok(found.state.clone()),
            false => Err(ApiError::forbidden("This authentication session was begun for another request")),
        }
    }

    /// Remembers what has been proven in a session that has not served its request yet.
    pub fn remember(&self, id: &str, open: Open) {
        if let Some(Session { state: State::Open(known), .. }) = self.0.lock().sessions.get_mut(id) {
            *known = open;
        }
    }

    /// Closes a session whose stages are complete to all but this request. Of two that come to this at once, one is served.
    ///
    /// Errors: 400 for a session that has gone meanwhile.
    pub fn close(&self, id: &str, asked: &Asked) -> Result<Turn, ApiError> {
        let mut table = self.0.lock();
        let session = table.sessions.get_mut(id).ok_or_else(unknown)?;
        if let State::Closed(closed) = &session.state {
            return Ok(Turn::Wait(closed.clone()));
        }
        let (told, given) = watch::channel(None);
        session.state = State::Closed(Closed { whole: asked.whole, given });
        Ok(Turn::Serve(Serving { id: id.to_owned(), told }))
    }

    /// Tells who has sent the request again what it was answered with, and keeps that for who still will.
    pub fn settle(&self, serving: Serving, outcome: &Outcome) {
        let Serving { id, told } = serving;
        let given = given(outcome);
        match given.as_ref().is_some_and(is_kept) {
            true => self.0.lock().keep(id),
            false => drop(self.0.lock().sessions.remove(&id)),
        }
        told.send_replace(given);
    }

    /// Forgets what is over.
    pub fn sweep(&self) {
        self.0.lock().sweep(Instant::now());
    }
}

impl Table {
    fn insert(&mut self, id: String, session: Session) {
        self.forget(session.begun, UIA_SESSIONS_MAX - 1);
        self.order.push_back((session.begun, id.clone()));
        self.sessions.insert(id, session);
    }

    /// Forgets sessions whose time is over, and the oldest beyond `most`.
    fn forget(&mut self, now: Instant, most: usize) {
        while let Some((begun, oldest)) = self.order.front() {
            if now.duration_since(*begun) <= UIA_TIME_MAX && self.order.len() <= most {
                break;
            }
            self.sessions.remove(oldest);
            self.order.pop_front();
        }
    }

    fn sweep(&mut self, now: Instant) {
        self.forget(now, UIA_SESSIONS_MAX);
        let Table { sessions, answered, .. } = self;
        answered.retain(|id| sessions.contains_key(id));
    }

    /// Keeps the answer of a session, for which the oldest is forgotten where there are too many.
    fn keep(&mut self, id: String) {
        self.answered.push_back(id);
        if self.answered.len() > UIA_ANSWERS_MAX
            && let Some(oldest) = self.answered.pop_front()
        {
            self.sessions.remove(&oldest);
        }
    }
}

impl Closed {
    /// Whether this is the request that the session serves.
    pub fn serves(&self, asked: &Asked) -> bool {
        self.whole == asked.whole
    }

    /// What the request was answered with; waits for it while it is under way.
    ///
    /// Errors: also 400, when there was no answer.
    pub async fn answer(mut self) -> Outcome {
        let given = self.given.wait_for(Option::is_some).await.map_err(|_| unknown())?;
        match &*given {
            Some(Ok(body)) => Ok(Answer::json_bytes(body.clone())),
            Some(Err(error)) => Err(error.clone()),
            None => Err(unknown()),
        }
    }
}

fn unknown() -> ApiError {
    ApiError::unknown("This authentication session is not known; begin anew without one")
}

/// What an outcome is to who sends the request again. A body that comes in pieces can be given once only.
fn given(outcome: &Outcome) -> Option<Given> {
    match outcome {
        Ok(Answer { status: StatusCode::OK, body: AnswerBody::Full(body), .. }) => Some(Ok(body.clone())),
        Ok(_) => None,
        Err(error) => Some(Err(error.clone())),
    }
}

/// Whether the request was done, or is wrong in itself. Where what was proven did not hold, or the server could not do it, the
/// next try may come to something else.
fn is_kept(given: &Given) -> bool {
    match given {
        Ok(body) => body.len() <= UIA_ANSWER_BYTES_MAX,
        Err(error) => error.status == StatusCode::BAD_REQUEST && error.body().len() <= UIA_ANSWER_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn asked(whole: u8) -> Asked {
        Asked { begun: [0; 32], whole: [whole; 32] }
    }

    /// A session in which the request 1 is under way.
    fn serve(sessions: &Sessions, id: &str) -> Serving {
        sessions.begin(id.to_owned(), [0; 32], Open::default());
        match sessions.close(id, &asked(1)) {
            Ok(Turn::Serve(serving)) => serving,
            _ => panic!("nobody else has closed it"),
        }
    }

    fn closed(sessions: &Sessions, id: &str) -> Option<Closed> {
        match sessions.state(id, &asked(1)) {
            Ok(State::Closed(closed)) => Some(closed),
            Ok(State::Open(_)) => panic!("it was closed"),
            Err(error) => {
                assert_eq!(error.errcode, "M_UNKNOWN");
                None
            }
        }
    }

    fn answer(length: usize) -> Outcome {
        Ok(Answer::json_bytes(vec![b' '; length].into()))
    }

    /// The length of the body, or the code of the error.
    fn told(outcome: Outcome) -> Result<usize, &'static str> {
        match outcome {
            Ok(Answer { body: AnswerBody::Full(body), .. }) => Ok(body.len()),
            Ok(_) => panic!("no such body was given"),
            Err(error) => Err(error.errcode),
        }
    }

    #[tokio::test]
    async fn a_session_serves_one_request_once() {
        let sessions = Sessions::default();
        let serving = serve(&sessions, "a");
        // Neither who completes the stages beside it nor who fails at one opens it again.
        assert!(matches!(sessions.close("a", &asked(1)), Ok(Turn::Wait(_))));
        sessions.remember("a", Open::default());
        let early = closed(&sessions, "a").expect("it is known");
        assert!(early.serves(&asked(1)) && !early.serves(&asked(2)));
        let settle = async { sessions.settle(serving, &answer(7)) };
        let (early, ()) = tokio::join!(early.answer(), settle);
        assert_eq!(told(early), Ok(7));
        let late = closed(&sessions, "a").expect("it is kept");
        assert_eq!(told(late.answer().await), Ok(7));
    }

    #[tokio::test]
    async fn what_may_be_tried_again_is_not_kept() {
        let sessions = Sessions::default();
        for (outcome, is_kept) in [
            (answer(UIA_ANSWER_BYTES_MAX), true),
            (answer(UIA_ANSWER_BYTES_MAX + 1), false),
            (Err(ApiError::missing_param("what")), true),
            (Err(ApiError::missing_param("what".repeat(UIA_ANSWER_BYTES_MAX))), false),
            (Err(ApiError::forbidden("no more")), false),
            (Err(ApiError::limit_exceeded(1)), false),
            (Err(ApiError::storage_failed("a full disk")), false),
        ] {
            let serving = serve(&sessions, "a");
            let waiting = closed(&sessions, "a").expect("it is known");
            sessions.settle(serving, &outcome);
            // Who waits is told in any case.
            assert_eq!(told(waiting.answer().await), told(outcome));
            assert_eq!(closed(&sessions, "a").is_some(), is_kept);
        }
        // What fell has no answer.
        drop(serve(&sessions, "b"));
        let fallen = closed(&sessions, "b").expect("it is known");
        assert_eq!(told(fallen.answer().await), Err("M_UNKNOWN"));
    }

    #[test]
    fn so_many_answers_are_kept_and_no_longer_than_sessions() {
        let sessions = Sessions::default();
        for number in 0..=UIA_ANSWERS_MAX {
            let serving = serve(&sessions, &number.to_string());
            sessions.settle(serving, &answer(1));
        }
        assert!(closed(&sessions, "0").is_none());
        assert!(
            closed(&sessions, "1").is_some() && closed(&sessions, &UIA_ANSWERS_MAX.to_string()).is_some()
        );
        sessions.sweep();
        assert!(closed(&sessions, "1").is_some());
        let mut table = sessions.0.lock();
        table.sweep(Instant::now() + UIA_TIME_MAX + Duration::from_secs(1));
        assert!(table.sessions.is_empty() && table.order.is_empty() && table.answered.is_empty());
    }

    #[test]
    fn so_many_sessions_are_known() {
        let sessions = Sessions::default();
        for number in 0..=UIA_SESSIONS_MAX {
            sessions.begin(number.to_string(), [0; 32], Open::default());
        }
        assert!(sessions.state("0", &asked(1)).is_err());
        assert!(sessions.state("1", &asked(1)).is_ok());
        let other = Asked { begun: [9; 32], whole: [9; 32] };
        let refused = sessions.state("1", &other).err().map(|error| error.errcode);
        assert_eq!(refused, Some("M_FORBIDDEN"));
    }
}
