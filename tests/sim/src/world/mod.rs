//! The world of one run: servers, the network between them, what users did, and what was acknowledged to them.

mod act;
mod server;

use std::fmt;

pub use server::{SERVER_NAMES, Server, Stopped, USER_NAMES};

use crate::{
    client::current_state,
    plan::{Plan, Step, User},
};

/// Milliseconds that pass with each step, for everybody.
const STEP_MS: i64 = 1_000;

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which promise; shrinking keeps to it.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

impl Breach {
    /// A breach of `rule`.
    pub fn new(rule: &'static str, what: impl ToString) -> Self {
        Self { rule, what: what.to_string() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// A fault that must not be, put in to prove that it would be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// None.
    #[default]
    Nothing,
    /// Disks lose the last commit in a crash, though it was said to be durable.
    ForgetfulDisk,
}

/// A room that was made.
pub struct Room {
    /// Its id.
    pub id: String,
}

/// An event that was acknowledged to the client that sent it.
pub struct Acknowledged {
    /// Who sent it.
    pub user: User,
    /// The index of its room.
    pub room: usize,
    /// Its id.
    pub event_id: String,
}

/// A run under way.
pub struct World {
    plan: Plan,
    /// The servers.
    pub servers: Vec<Server>,
    /// The rooms, in the order in which they were made.
    pub rooms: Vec<Room>,
    /// What was acknowledged, in order.
    pub acknowledged: Vec<Acknowledged>,
    /// What has happened, a sentence each.
    pub story: Vec<String>,
    /// For the transaction ids and texts of messages.
    messages: usize,
    last_message: Option<act::Message>,
}

impl World {
    /// A world before its first step.
    pub fn new(plan: &Plan, plant: Plant) -> Result<Self, Breach> {
        let forgets = plant == Plant::ForgetfulDisk;
        let servers = (0..plan.servers).map(|index| Server::new(plan.seed, index, forgets));
        Ok(Self {
            servers: servers.collect::<Result<_, _>>()?,
            plan: plan.clone(),
            rooms: Vec::new(),
            acknowledged: Vec::new(),
            story: Vec::new(),
            messages: 0,
            last_message: None,
        })
    }

    /// Plays one step.
    pub fn play(&mut self, step: &Step) -> Result<(), Breach> {
        for server in &self.servers {
            server.move_clock(STEP_MS);
        }
        match step {
            Step::Act { user, deed, trouble } => self.act(*user, *deed, *trouble),
            Step::Sync { user } => self.sync(*user),
            Step::Carry { .. } | Step::Cut { .. } | Step::Heal => Ok(()),
            Step::Crash { server } => {
                self.tell(format!("{} crashes and starts again", SERVER_NAMES[*server]));
                self.servers[*server].restart()
            }
            Step::Pass { ms } => {
                self.tell(format!("{} s pass", ms / 1_000));
                self.servers.iter().for_each(|server| server.move_clock(i64::from(*ms)));
                Ok(())
            }
            Step::Skew { server, ms } => {
                let way = if *ms < 0 { "back" } else { "ahead" };
                self.tell(format!(
                    "the clock of {} jumps {} s {way}",
                    SERVER_NAMES[*server],
                    ms.abs() / 1_000
                ));
                self.servers[*server].move_clock(*ms);
                Ok(())
            }
        }
    }

    /// Lets everything come to rest, and judges what is there then.
    pub fn finish(&mut self) -> Result<(), Breach> {
        for server in &mut self.servers {
            server.disk.disarm();
            server.disk.settle();
            server.restart()?;
            let engine = server.engine();
            for client in &mut server.clients {
                client.sync(&engine)?;
                client.finish(&engine)?;
            }
        }
        self.check_acknowledged()
    }

    fn sync(&mut self, user: User) -> Result<(), Breach> {
        let server = &mut self.servers[user.server];
        let engine = server.engine();
        let seen = server.clients[user.number].sync(&engine)?;
        self.tell(format!("{} syncs, {} new events", self.user_id(user), seen.len()));
        Ok(())
    }

    /// What was acknowledged is in its sender's timeline, once, and in the order in which it was sent.
    fn check_acknowledged(&self) -> Result<(), Breach> {
        for (index, room) in self.rooms.iter().enumerate() {
            for user in self.plan.users() {
                let server = &self.servers[user.server];
                let sent = self.acknowledged.iter().filter(|event| event.user == user && event.room == index);
                let sent: Vec<&str> = sent.map(|event| event.event_id.as_str()).collect();
                let Some(timeline) = server.clients[user.number].whole_timeline(&server.engine(), &room.id)
                else {
                    continue;
                };
                let found: Vec<&str> =
                    timeline.iter().map(String::as_str).filter(|event_id| sent.contains(event_id)).collect();
                if found != sent {
                    let what = format!("{} sent {sent:?}, and sees {found:?}", self.user_id(user));
                    return Err(Breach::new("acknowledged", what));
                }
            }
        }
        Ok(())
    }

    /// A summary of all that the servers hold, for comparing two plays of one plan.
    pub fn digest(&self) -> String {
        let mut lines = self.story.clone();
        for server in &self.servers {
            let engine = server.engine();
            lines.push(format!("{} {}", server.name, engine.position().0));
            for room in &self.rooms {
                for client in &server.clients {
                    let state = current_state(&engine, &room.id, &client.user_id);
                    lines.push(format!("{} {state:?}", client.user_id));
                }
            }
        }
        lines.join("\n")
    }

    fn tell(&mut self, sentence: String) {
        self.story.push(sentence);
    }

    fn user_id(&self, user: User) -> String {
        format!("@{}:{}", USER_NAMES[user.number], SERVER_NAMES[user.server])
    }
}
