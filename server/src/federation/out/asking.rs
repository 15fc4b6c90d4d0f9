//! Who is asked for what an intake lacks, one after the other, and what their answers say together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use warren_engine::core::checked::MissingKey;
use warren_engine::core::version::RoomVersion;
use warren_engine::intake::{Answer, Question};

use super::RemoteError;
use super::auth_chain::auth_chain;
use super::fetch::{Asked, missing_events, state};
use super::keys::{Cause, ensure_keys, is_here};
use super::pruned;
use super::single_events::ask_for_events;
use super::state_memory::Share;
use crate::context::Context;
use crate::http::ApiError;
use crate::worker;

/// How long history that a client waits for is held up by keys. A server that is gone gives none, and the rest of ten seconds
/// is for what is before its users' events.
const KEYS_AWAITED_MAX: Duration = Duration::from_secs(4);

/// Who is asked for an intake, and the memory that the states take that were told, until all is taken in.
pub struct Asking {
    /// Why keys are asked for; nothing where nobody is asked.
    cause: Option<Cause>,
    pub servers: Vec<String>,
    memory: Vec<Share>,
    /// The keys that were asked for.
    keys: Vec<MissingKey>,
    /// Whether a client waits for what comes of it.
    pub is_awaited: bool,
    /// Whether some of the servers are asked no more, since they gave no answer at all.
    lacks_servers: bool,
    /// Those that were asked while they were out.
    pub away: BTreeSet<String>,
    /// Who has told a state.
    tellers: Vec<String>,
    /// Whether what those who tell a state deny of it themselves is waited for, as long as another server has not said that it lacks it.
    pub is_patient: bool,
    /// Whether something was.
    pub was_patient: bool,
}

impl Asking {
    pub fn of(cause: Option<Cause>, servers: &[String]) -> Asking {
        Asking {
            cause,
            servers: servers.to_vec(),
            memory: Vec::new(),
            keys: Vec::new(),
            is_awaited: false,
            lacks_servers: false,
            away: BTreeSet::new(),
            tellers: Vec::new(),
            is_patient: true,
            was_patient: false,
        }
    }

    /// What came of a question is noted. Answers what that says.
    ///
    /// Who tells a state and denies some of it could as well have kept that to itself, so in the end its own word is enough: a server
    /// that is gone never says whether it has the event, and would hold the room up.
    fn note(&mut self, question: &Question, heard: Heard, is_among_several: bool) -> Answer {
        self.lacks_servers |= !heard.silent.is_empty();
        self.away.extend(heard.away.iter().cloned());
        self.servers.retain(|server| !heard.silent.contains(server));
        if let (Question::State { .. }, Some(teller)) = (question, &heard.told_by)
            && !self.tellers.contains(teller)
        {
            self.tellers.push(teller.clone());
        }
        if !matches!(heard.answer, Answer::Nothing) {
            return heard.answer;
        }
        let by_all = heard.denied_by_all();
        if !by_all.is_empty() && !self.lacks_servers && !is_among_several {
            return Answer::Denied { event_ids: by_all };
        }
        let by_tellers = heard.denied_by(&self.tellers);
        self.was_patient |= self.is_patient && !by_tellers.is_empty();
        match self.is_patient || by_tellers.is_empty() {
            true => Answer::Nothing,
            false => Answer::Denied { event_ids: by_tellers },
        }
    }

    /// The keys that were asked for and are not here.
    pub fn lacks(self, ctx: &Context) -> Vec<MissingKey> {
        let mut lacks = self.keys;
        lacks.retain(|key| !is_here(ctx, key));
        lacks
    }
}

/// Fetches keys for what a client waits for. Those of a server that takes its time go on being fetched, for the next one.
async fn keys_in_time(ctx: &Arc<Context>, cause: &Cause, keys: &[MissingKey]) {
    let (done, when_done) = oneshot::channel::<()>();
    let (work, cause, keys) = (ctx.clone(), cause.clone(), keys.to_vec());
    worker::run(ctx, "fetching of keys", async move {
        ensure_keys(&work, &cause, &keys).await;
        drop(done);
    });
    drop(timeout(KEYS_AWAITED_MAX, when_done).await);
}

/// Asks one server after the other until one knows. One that gives no answer at all is not asked again: each time would take
/// as long. Others than who has sent what is to be taken in are not asked for all that this names.
pub async fn ask_servers(
    ctx: &Arc<Context>,
    (room_id, version): (&str, &'static RoomVersion),
    asking: &mut Asking,
    question: &Question,
) -> Result<Answer, ApiError> {
    let Asking { cause, servers, memory, keys: asked_for, is_awaited, lacks_servers, .. } = &mut *asking;
    if let (Question::Keys { keys }, Some(cause)) = (question, &cause) {
        asked_for.extend_from_slice(keys);
        match *is_awaited {
            true => keys_in_time(ctx, cause, keys).await,
            false => ensure_keys(ctx, cause, keys).await,
        }
        return Ok(Answer::Keys);
    }
    let origin = match cause.as_ref() {
        Some(Cause::Sent(origin)) => Some(origin),
        _ => None,
    };
    let own_name = ctx.engine.server_name();
    let asked = question.asked_of(servers).into_iter().filter(|server| *server != own_name);
    let (first, others): (Vec<String>, Vec<String>) =
        asked.partition(|server| origin.is_none_or(|origin| server == origin));
    let room = (room_id, version);
    let mut heard = ask_each(ctx, room, &first, memory, question).await?;
    if matches!(heard.answer, Answer::Nothing)
        && !others.is_empty()
        && let Some(origin) = origin
    {
        let others = (origin.as_str(), others.as_slice(), *lacks_servers);
        ask_others(ctx, room, others, memory, question, &mut heard).await?;
    }
    if let (Question::MissingEvents { .. }, Answer::Events(events)) = (question, &mut heard.answer) {
        let servers = (servers.as_slice(), heard.told_by.as_deref());
        let admitted =
            || origin.is_none_or(|origin| ctx.federation.others.admit(room_id, origin, question).is_some());
        pruned::replace(ctx, room, servers, events, admitted).await?;
    }
    // One of several that this server chose to ask says nothing for all that might be asked.
    let is_among_several = origin.is_none();
    Ok(asking.note(question, heard, is_among_several))
}

/// Asks others because of what `origin` has sent, which has told nothing, as far as they may be asked.
async fn ask_others(
    ctx: &Arc<Context>,
    room: (&str, &'static RoomVersion),
    (origin, others, lacks_servers): (&str, &[String], bool),
    memory: &mut Vec<Share>,
    question: &Question,
    heard: &mut Heard,
) -> Result<(), ApiError> {
    // They are not asked again for what none of them knew a while ago.
    let mut denied = ctx.federation.others.unknown(room.0, &heard.events);
    if let Some(question) = ctx.federation.others.admit(room.0, origin, question) {
        let mut of_others = ask_each(ctx, room, others, memory, &question).await?;
        // Who did not say may have it, and is asked again.
        if heard.is_in_vain && of_others.is_in_vain && of_others.is_denied && !lacks_servers {
            ctx.federation.others.asked_in_vain(room.0, &question);
        }
        heard.silent.append(&mut of_others.silent);
        heard.away.append(&mut of_others.away);
        heard.told_by = of_others.told_by;
        heard.answer = of_others.answer;
        heard.is_in_vain &= of_others.is_in_vain;
        heard.denials.append(&mut of_others.denials);
        if heard.is_denied || of_others.is_denied {
            denied.append(&mut of_others.events);
        }
    }
    heard.is_denied |= !denied.is_empty();
    heard.events = denied;
    Ok(())
}

/// What came of asking servers.
struct Heard {
    answer: Answer,
    /// Who gave it.
    told_by: Option<String>,
    /// Those that gave no answer at all.
    silent: Vec<String>,
    /// Those and the others that were out, for which something else may have answered.
    away: BTreeSet<String>,
    /// Whether all have answered, and know nothing.
    is_in_vain: bool,
    /// Whether one has.
    is_denied: bool,
    /// The events that all of them were asked for.
    events: Vec<Arc<str>>,
    /// Who has denied events, and which.
    denials: Vec<(String, Vec<Arc<str>>)>,
}

impl Heard {
    /// The events that all servers deny which were asked.
    fn denied_by_all(&self) -> Vec<Arc<str>> {
        if self.is_in_vain && self.is_denied { self.events.clone() } else { Vec::new() }
    }

    /// The events that all of these servers deny, if there are any.
    fn denied_by(&self, servers: &[String]) -> Vec<Arc<str>> {
        let has_denied = |server: &String, event: &Arc<str>| {
            self.denials.iter().any(|(by, events)| by == server && events.contains(event))
        };
        let is_denied =
            |event: &&Arc<str>| !servers.is_empty() && servers.iter().all(|server| has_denied(server, event));
        let mut denied: Vec<Arc<str>> =
            self.denials.iter().flat_map(|(_, events)| events).filter(is_denied).cloned().collect();
        denied.sort_unstable();
        denied.dedup();
        denied
    }
}

/// Asks one server after the other until one knows.
async fn ask_each(
    ctx: &Arc<Context>,
    room: (&str, &'static RoomVersion),
    servers: &[String],
    memory: &mut Vec<Share>,
    question: &Question,
) -> Result<Heard, ApiError> {
    let events = match question {
        Question::Events { event_ids } => event_ids.clone(),
        _ => Vec::new(),
    };
    let mut heard = Heard {
        answer: Answer::Nothing,
        told_by: None,
        silent: Vec::new(),
        away: BTreeSet::new(),
        is_in_vain: true,
        is_denied: false,
        events,
        denials: Vec::new(),
    };
    for server in servers {
        match ask_server(ctx, room, server, memory, question).await? {
            Ok(answer) if is_denial(&answer) => {
                heard.is_denied = true;
                heard.denials.push((server.clone(), heard.events.clone()));
            }
            Ok(answer) => {
                let told_by = Some(server.clone());
                return Ok(Heard { answer, told_by, is_in_vain: false, ..heard });
            }
            // By this server's operator it is none of those to be asked.
            Err(RemoteError::NotAdmitted(_)) => {}
            Err(failure) => {
                tracing::debug!(server, room_id = room.0, %failure, "a server does not tell what is missing");
                heard.is_in_vain = false;
                if failure.is_outage() {
                    heard.away.insert(server.clone());
                }
                if failure.is_silence() {
                    heard.silent.push(server.clone());
                }
            }
        }
    }
    Ok(heard)
}

/// Whether a server says that it has none of what it was asked for.
fn is_denial(answer: &Answer) -> bool {
    match answer {
        Answer::Nothing => true,
        Answer::Events(events) => events.is_empty(),
        _ => false,
    }
}

async fn ask_server(
    ctx: &Arc<Context>,
    (room_id, version): (&str, &'static RoomVersion),
    server: &str,
    memory: &mut Vec<Share>,
    question: &Question,
) -> Result<Asked, ApiError> {
    Ok(match question {
        // It is not for these servers.
        Question::Keys { .. } | Question::PolicySignature(_) => Ok(Answer::Nothing),
        Question::MissingEvents { latest } => missing_events(ctx, server, room_id, latest).await?,
        Question::State { event_id } | Question::OtherState { event_id, .. } => {
            state(ctx, server, room_id, event_id).await?.map(|told| {
                memory.extend(told.memory);
                told.answer
            })
        }
        Question::Events { event_ids } => ask_for_events(ctx, server, version, event_ids).await,
        Question::AuthChain { event_id } => {
            let told = auth_chain(ctx, server, (room_id, version), event_id).await?;
            told.map(|(answer, of_answer)| {
                memory.push(of_answer);
                answer
            })
        }
    })
}
