//! The sessions of interactive authentications: what has been proven in each, and what the request that it served was answered
//! with.
//!
//! Invariant: a session serves one request, once. Who sends that again is given the same answer, as long as the session lasts.
//! There may be an access token in it, and a password in what was asked, so that both are in memory alone, and only for who
//! knows the session.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Proof, Stage};
use crate::http::answer::AnswerBody;
use crate::http::limits::{
    UIA_ANSWER_BYTES_MAX, UIA_ANSWERS_MAX, UIA_BODIES_MAX, UIA_BODY_BYTES_MAX, UIA_SESSIONS_MAX, UIA_TIME_MAX,
};
use crate::http::{Answer, ApiError, Outcome};

pub type RequestHash = [u8; 32];

/// A request, as far as sessions are bound to it.
pub struct Asked {
    /// Its user, method and path: what is the same on the way through the stages.
    pub operation: RequestHash,
    /// All of it but `auth`: what must be the same when it is sent again.
    pub whole: RequestHash,
    /// The body without `auth`, a JSON object.
    pub body: String,
    /// Whether there is somebody whom another body could harm, so that it must stay the same from where there is one.
    pub has_user: bool,
}

impl Asked {
    fn has_body(&self) -> bool {
        self.body != "{}"
    }

    /// All of it, if the session is to be bound to that.
    fn bound_to(&self) -> Option<RequestHash> {
        (self.has_user && self.has_body()).then_some(self.whole)
    }
}

/// What has been proven so far.
#[derive(Clone, Default)]
pub struct Open {
    pub completed: Vec<Stage>,
    pub proof: Proof,
    /// The stages of all flows that were offered.
    pub stages: Vec<Stage>,
}

/// The code of what lacks something.
const MISSING: &str = "M_MISSING_PARAM";

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
    /// What was proven for it.
    open: Open,
}

struct Session {
    operation: RequestHash,
    /// The one request of a user that it is for, as soon as one with a body has come.
    bound_to: Option<RequestHash>,
    begun: Instant,
    state: State,
    /// The body that came last, for requests without one.
    body: Option<Arc<str>>,
    /// Whether a request without a body has been given it. Nobody else need have it when the session is closed.
    is_body_wanted: bool,
}

impl Session {
    /// Whether the request may go on in this session, which is bound to it when it is the first with a body.
    fn admits(&mut self, asked: &Asked) -> bool {
        if self.bound_to.is_none() && matches!(self.state, State::Open(_)) {
            self.bound_to = asked.bound_to().filter(|_| self.operation == asked.operation);
        }
        self.operation == asked.operation && self.bound_to.is_none_or(|whole| whole == asked.whole)
    }
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
    /// The ids of those with a kept body, oldest first; also of some that are gone.
    with_body: VecDeque<String>,
}

impl Sessions {
    /// Begins a session for a request.
    pub fn begin(&self, id: String, asked: &Asked, open: Open) {
        let session = Session {
            operation: asked.operation,
            bound_to: asked.bound_to(),
            begun: Instant::now(),
            state: State::Open(open),
            body: None,
            is_body_wanted: false,
        };
        let mut table = self.0.lock();
        table.insert(id.clone(), session);
        table.keep_body(id, asked);
    }

    /// How a session stands.
    ///
    /// Errors: 400 for an unknown or expired session, 403 for one of another request.
    pub fn state(&self, id: &str, asked: &Asked) -> Result<State, ApiError> {
        let mut table = self.0.lock();
        let found = table.sessions.get_mut(id).filter(|found| found.begun.elapsed() <= UIA_TIME_MAX);
        let found = found.ok_or_else(unknown)?;
        match found.admits(asked) {
            true => Ok(found.state.clone()),
            false => Err(ApiError::forbidden("This authentication session was begun for another request")),
        }
    }

    /// The body that a session has had so far, for a request of the same user, method and path that has none.
    pub fn body(&self, id: &str, asked: &Asked) -> Option<Arc<str>> {
        let mut table = self.0.lock();
        let found = table.sessions.get_mut(id)?;
        if found.operation != asked.operation || found.begun.elapsed() > UIA_TIME_MAX {
            return None;
        }
        found.is_body_wanted = true;
        found.body.clone()
    }

    /// Remembers what has been proven in a session that has not served its request yet, and what was asked.
    pub fn remember(&self, id: &str, asked: &Asked, open: Open) {
        let mut table = self.0.lock();
        if table.prove(id, open) {
            table.keep_body(id.to_owned(), asked);
        }
    }

    /// What has been proven in a session, whoever asks. Errors: 400 for one that is unknown, has expired or is closed.
    pub fn open(&self, id: &str) -> Result<Open, ApiError> {
        let table = self.0.lock();
        match table.sessions.get(id).filter(|found| found.begun.elapsed() <= UIA_TIME_MAX) {
            Some(Session { state: State::Open(open), .. }) => Ok(open.clone()),
            _ => Err(unknown()),
        }
    }

    /// Remembers what has been proven in a session apart from its request.
    pub fn prove(&self, id: &str, open: Open) {
        self.0.lock().prove(id, open);
    }

    /// Closes a session whose stages are complete to all but this request. Of two that come to this at once, one is served.
    ///
    /// Errors: 400 for a session that has gone meanwhile.
    pub fn close(&self, id: &str, asked: &Asked, open: &Open) -> Result<Turn, ApiError> {
        let mut table = self.0.lock();
        let session = table.sessions.get_mut(id).ok_or_else(unknown)?;
        if let State::Closed(closed) = &session.state {
            return Ok(Turn::Wait(closed.clone()));
        }
        let (told, given) = watch::channel(None);
        session.state = State::Closed(Closed { whole: asked.whole, given });
        session.body = session.body.take().filter(|_| session.is_body_wanted);
        Ok(Turn::Serve(Serving { id: id.to_owned(), told, open: open.clone() }))
    }

    /// Tells who has sent the request again what it was answered with, and keeps that for who still will. A request that lacked
    /// something may come again with it.
    pub fn settle(&self, serving: Serving, outcome: &Outcome) {
        let Serving { id, told, open } = serving;
        let given = given(outcome);
        let mut table = self.0.lock();
        match &given {
            Some(Err(error)) if error.errcode == MISSING => table.reopen(&id, open),
            Some(given) if is_kept(given) => table.keep(id),
            _ => drop(table.sessions.remove(&id)),
        }
        drop(table);
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

    /// Remembers what has been proven in a session that is open, unless more has been meanwhile; whether it is open.
    fn prove(&mut self, id: &str, open: Open) -> bool {
        let Some(Session { state: State::Open(known), .. }) = self.sessions.get_mut(id) else { return false };
        if known.completed.len() <= open.completed.len() {
            *known = open;
        }
        true
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
        let Table { sessions, answered, with_body, .. } = self;
        answered.retain(|id| sessions.contains_key(id));
        with_body.retain(|id| sessions.get(id).is_some_and(|session| session.body.is_some()));
    }

    /// Keeps the body of a request in its session, for which the oldest is forgotten where there are too many. One that is too
    /// long for it must be sent every time.
    fn keep_body(&mut self, id: String, asked: &Asked) {
        let Some(session) = self.sessions.get_mut(&id).filter(|_| asked.has_body()) else { return };
        let had_one = session.body.is_some();
        session.body = (asked.body.len() <= UIA_BODY_BYTES_MAX).then(|| Arc::from(asked.body.as_str()));
        if had_one || session.body.is_none() {
            return;
        }
        self.with_body.retain(|kept| *kept != id);
        self.with_body.push_back(id);
        if self.with_body.len() > UIA_BODIES_MAX
            && let Some(oldest) = self.with_body.pop_front()
            && let Some(session) = self.sessions.get_mut(&oldest)
        {
            session.body = None;
        }
    }

    fn reopen(&mut self, id: &str, open: Open) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.state = State::Open(open);
        }
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

    /// A request of nobody's.
    fn asked(whole: u8) -> Asked {
        Asked { operation: [0; 32], whole: [whole; 32], body: format!("{{\"n\":{whole}}}"), has_user: false }
    }

    /// A request of a user's; 0 is one without a body.
    fn users(whole: u8) -> Asked {
        let body = if whole == 0 { "{}".to_owned() } else { asked(whole).body };
        Asked { body, has_user: true, ..asked(whole) }
    }

    /// A session in which the request 1 is under way.
    fn serve(sessions: &Sessions, id: &str) -> Serving {
        sessions.begin(id.to_owned(), &asked(1), Open::default());
        match sessions.close(id, &asked(1), &Open::default()) {
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
        assert!(matches!(sessions.close("a", &asked(1), &Open::default()), Ok(Turn::Wait(_))));
        sessions.remember("a", &asked(1), Open::default());
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
            (Err(ApiError::invalid_param("what")), true),
            (Err(ApiError::invalid_param("what".repeat(UIA_ANSWER_BYTES_MAX))), false),
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
    fn a_session_is_bound_to_the_first_body_of_a_user() {
        let sessions = Sessions::default();
        let refused = |id: &str, asked: Asked| sessions.state(id, &asked).err().map(|error| error.errcode);
        sessions.begin("a".to_owned(), &users(0), Open::default());
        assert_eq!(refused("a", users(0)), None);
        assert_eq!(refused("a", users(1)), None);
        for other in [users(2), users(0)] {
            assert_eq!(refused("a", other), Some("M_FORBIDDEN"));
        }
        // One of another operation binds nothing.
        sessions.begin("b".to_owned(), &users(0), Open::default());
        assert_eq!(refused("b", Asked { operation: [9; 32], ..users(1) }), Some("M_FORBIDDEN"));
        assert_eq!(refused("b", users(2)), None);
        // Where there is no user, the body may change.
        sessions.begin("c".to_owned(), &asked(1), Open::default());
        assert_eq!(refused("c", asked(2)), None);
    }

    #[test]
    fn what_was_proven_apart_from_the_request_is_not_lost() {
        let sessions = Sessions::default();
        sessions.begin("a".to_owned(), &asked(1), Open::default());
        let before = sessions.open("a").unwrap_or_default();
        sessions.prove("a", Open { completed: vec![Stage::Dummy], ..Open::default() });
        sessions.remember("a", &asked(1), before);
        let completed = |id: &str| sessions.open(id).ok().map(|open| open.completed);
        assert_eq!(completed("a"), Some(vec![Stage::Dummy]));
        assert!(sessions.close("a", &asked(1), &Open::default()).is_ok());
        assert_eq!(completed("a"), None);
        assert_eq!(completed("b"), None);
    }

    #[test]
    fn what_lacked_something_may_come_with_it() {
        let sessions = Sessions::default();
        let serving = serve(&sessions, "a");
        sessions.settle(serving, &Err(ApiError::missing_param("what")));
        assert!(matches!(sessions.state("a", &asked(2)), Ok(State::Open(_))));
        assert!(matches!(sessions.close("a", &asked(2), &Open::default()), Ok(Turn::Serve(_))));
    }

    #[test]
    fn the_last_body_is_kept_for_who_asks_without_one() {
        let sessions = Sessions::default();
        let body = |id: &str| sessions.body(id, &asked(0)).map(|body| body.to_string());
        sessions.begin("a".to_owned(), &asked(1), Open::default());
        sessions.remember("a", &asked(2), Open::default());
        // Nobody has wanted it, and there may be a password in it.
        assert!(sessions.close("a", &asked(2), &Open::default()).is_ok());
        assert_eq!(body("a"), None);
        sessions.begin("b".to_owned(), &asked(1), Open::default());
        sessions.remember("b", &asked(2), Open::default());
        assert_eq!(body("b"), Some(asked(2).body));
        assert!(sessions.close("b", &asked(2), &Open::default()).is_ok());
        assert_eq!(body("b"), Some(asked(2).body));
        let long = Asked { body: " ".repeat(UIA_BODY_BYTES_MAX + 1), ..asked(1) };
        sessions.begin("c".to_owned(), &long, Open::default());
        assert_eq!(body("c"), None);
        for number in 0..=UIA_BODIES_MAX {
            sessions.begin(number.to_string(), &asked(1), Open::default());
        }
        assert!(body("0").is_none() && body("1").is_some() && sessions.state("0", &asked(1)).is_ok());
        let mut table = sessions.0.lock();
        table.sweep(Instant::now() + UIA_TIME_MAX + Duration::from_secs(1));
        assert!(table.with_body.is_empty());
    }

    #[test]
    fn so_many_sessions_are_known() {
        let sessions = Sessions::default();
        for number in 0..=UIA_SESSIONS_MAX {
            sessions.begin(number.to_string(), &asked(1), Open::default());
        }
        assert!(sessions.state("0", &asked(1)).is_err());
        assert!(sessions.state("1", &asked(1)).is_ok());
        let other = Asked { operation: [9; 32], ..asked(9) };
        let refused = sessions.state("1", &other).err().map(|error| error.errcode);
        assert_eq!(refused, Some("M_FORBIDDEN"));
    }
}
