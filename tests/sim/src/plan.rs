//! What happens in a run, as data: a seed makes a plan, a plan is played, and a plan with steps left out is a plan again.
//!
//! Invariant: every step makes sense on its own. What it names (a room, an event, a transaction under way) is a number
//! that is taken modulo what there is when the step is played, and a step for which nothing is there does nothing; so
//! shrinking may leave out any of them.

use warren_engine::core::version::ROOM_VERSIONS;

use crate::{dice::Dice, disk::Fault};

/// Most servers in a run.
pub const SERVERS_MAX: usize = 5;
/// Local users on each server.
pub const USERS_PER_SERVER: usize = 2;
/// Fewest steps of a run.
const STEPS_MIN: usize = 15;
/// By how many a run can be longer.
const STEPS_SPREAD: usize = 50;
/// In how many of a hundred cases a scene comes before a step: in every second run there is one, or more.
const SCENE_PERCENT: usize = 2;
/// Commits that succeed before a fault, at most: a command is one commit, taking in a transaction a handful.
const SKIPPED_MAX: usize = 4;
/// Requests to other servers before one is lost, at most: two for each server that is tried.
const REQUESTS_MAX: usize = 4;
/// How many of these are for one that is tried.
const REQUESTS_OF_ONE: usize = 2;
/// In how many of a hundred runs of several servers rooms shut servers out by access lists.
const LISTS_PERCENT: usize = 30;
/// How often a list changes in such a run, at most, or a server is shut out for a while.
const LISTS_MAX: usize = 3;
/// What the dice for access lists are for; those of the servers have the numbers from one on.
const LISTS: u64 = 100;
/// What a user of a server that is shut out says and does there meanwhile, at most.
const IN_VAIN_MAX: usize = 3;
/// The longest pause, as a rule, in milliseconds: a few attempts to reach a server.
const PAUSE_MS_MAX: usize = 120_000;
/// The longest of all, in milliseconds: behind an hour a server that could not be reached has to catch up.
const SILENCE_MS_MAX: usize = 3 * 3_600_000;
/// Milliseconds by which a clock jumps at most, either way.
const SKEW_MS_MAX: usize = 600_000;

/// A user, by server and number on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User {
    /// Index of the server.
    pub server: usize,
    /// Index among its users.
    pub number: usize,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it was made from; seeds the servers' randomness.
    pub seed: u64,
    /// The version of the rooms that are made.
    pub version: &'static str,
    /// How many servers there are.
    pub servers: usize,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A user asks their server for something.
    Act {
        /// Who.
        user: User,
        /// What for.
        deed: Deed,
        /// What goes wrong on the server meanwhile.
        trouble: Option<Trouble>,
        /// What becomes of a request to another server, after so many that are answered.
        lapse: Option<(u8, Lapse)>,
    },
    /// A user's client syncs.
    Sync {
        /// Who.
        user: User,
    },
    /// A server goes on with its deliveries to another: if there is something for it, the network does something to one
    /// transaction.
    Carry {
        /// From this server.
        from: usize,
        /// To this one.
        to: usize,
        /// Zero for the delivery; else one of the old copies that the network still has, which overtakes it.
        pick: u8,
        /// What becomes of the transaction.
        fate: Fate,
        /// What goes wrong on a disk meanwhile.
        trouble: Option<Trouble>,
        /// Whether on that of the server that sends.
        hits_sender: bool,
    },
    /// A server asks for what the events lack that wait on it, and for members that were left out when it joined.
    Fetch {
        /// Which.
        server: usize,
        /// How many of its questions are answered before the network fails.
        answers: u8,
        /// What goes wrong on it meanwhile.
        trouble: Option<Trouble>,
    },
    /// A server asks for devices of which it has missed something.
    Follow {
        /// Which.
        server: usize,
        /// How many of its questions are answered before the network fails.
        answers: u8,
        /// Whether the first answer is still on its way when other things happen.
        waits: bool,
        /// What goes wrong on it meanwhile.
        trouble: Option<Trouble>,
    },
    /// A user reads the history of a room backwards, from its newest event, and their server asks for what it lacks of that.
    Page {
        /// Who.
        user: User,
        /// Which room.
        room: u8,
        /// How many pages at most.
        pages: u8,
        /// How many of the server's questions are answered before the network fails.
        answers: u8,
        /// What goes wrong on it meanwhile.
        trouble: Option<Trouble>,
    },
    /// The servers of the mask can no longer reach the others.
    Cut {
        /// Bit n: server n.
        mask: u8,
    },
    /// Everybody can reach everybody again.
    Heal,
    /// A server dies and starts again.
    Crash {
        /// Which.
        server: usize,
    },
    /// Time passes for all.
    Pass {
        /// How much, in milliseconds.
        ms: u32,
    },
    /// A clock jumps.
    Skew {
        /// Whose.
        server: usize,
        /// By how many milliseconds.
        ms: i64,
    },
}

/// What becomes of a transaction under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, and so does the answer.
    Arrives,
    /// It arrives, and may again later.
    ArrivesTwice,
    /// It is lost.
    IsLost,
    /// It arrives, and the answer is lost.
    AnswerIsLost,
    /// It seems lost to the sender, and may arrive later.
    IsLate,
    /// It is still on its way when other things happen.
    Waits,
}

/// What becomes of a request of a server to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// It is lost.
    Request,
    /// It is done, and the answer is lost.
    Answer,
    /// The answer is for something that nobody asked for.
    Lie,
}

/// A fault of a server's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How many commits succeed before.
    pub skipped: u8,
    /// What then happens.
    pub fault: Fault,
}

/// What a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A new room, for everybody or by invitation.
    Create {
        /// For everybody.
        public: bool,
    },
    /// A message to a device of another user.
    Tell(User),
    /// A change of one's own devices.
    Devices(OfDevices),
    /// Something about a room.
    In {
        /// Which room.
        room: u8,
        /// What.
        what: What,
    },
}

/// What a user does to their devices: one of a few that come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfDevices {
    /// Logs it in, if it is not there, and publishes new keys for it.
    Add(u8),
    /// Logs it out.
    Remove(u8),
    /// Gives it another name.
    Rename(u8),
    /// Publishes new cross-signing keys.
    SignAnew,
}

/// What a user does in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Comes in.
    Join,
    /// Goes.
    Leave,
    /// Asks to come in.
    Knock,
    /// Asks another to come.
    Invite(User),
    /// Makes another leave.
    Kick(User),
    /// Shuts another out.
    Ban(User),
    /// Lets another in again.
    Unban(User),
    /// Sends a message.
    Say,
    /// Sends the last message again, with the same transaction id.
    Repeat,
    /// Sets the topic.
    Topic,
    /// Sets an entry of the state that only this room knows, under one of a few keys.
    State(u8),
    /// Sets another's power level.
    Power(User, i32),
    /// Sets the level that something takes.
    Level(&'static str, i32),
    /// Sets the join rule.
    JoinRule(&'static str),
    /// Sets the history visibility.
    Visibility(&'static str),
    /// Sets the room's access list: this server may take part no more, all others may.
    ShutOut(usize),
    /// Sets the room's access list: all servers may take part.
    LetIn,
    /// Redacts one of the events.
    Redact(u8),
    /// Says that one of the events has been read.
    Read(u8),
    /// Forgets the room, once it is left.
    Forget,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let newest = ROOM_VERSIONS.len() - 1;
        // Half of the runs in the newest version, the others in any.
        let version = if dice.happens(50) { newest } else { dice.below(ROOM_VERSIONS.len()) };
        let servers = dice.weighted(&[(10, 1), (45, 2), (30, 3), (10, 4), (5, SERVERS_MAX)]);
        let mut plan = Self { seed, version: ROOM_VERSIONS[version].id, servers, steps: Vec::new() };
        plan.begin(&mut dice);
        let calm = dice.happens(20);
        for _ in 0..STEPS_MIN + dice.below(STEPS_SPREAD) {
            if servers > 1 && dice.happens(SCENE_PERCENT) {
                plan.scene(&mut dice);
            }
            let step = plan.any_step(&mut dice, calm);
            plan.steps.push(step);
        }
        plan.change_lists(calm);
        plan
    }

    /// Access lists change somewhere in the run. Their dice are their own: a run in which they do not is what it would be without them.
    fn change_lists(&mut self, calm: bool) {
        let mut dice = Dice::aside(self.seed, LISTS);
        if self.servers == 1 || !dice.happens(LISTS_PERCENT) {
            return;
        }
        for _ in 0..1 + dice.below(LISTS_MAX) {
            let steps = match dice.happens(50) {
                true => self.shut_out(&mut dice),
                false => vec![self.any_list(&mut dice, calm)],
            };
            // Behind the first step, which makes a room.
            let at = 1 + dice.below(self.steps.len());
            drop(self.steps.splice(at..at, steps));
        }
    }

    /// A server is shut out, and hears of it; what its user says and does is refused. Sometimes it is let in again.
    fn shut_out(&self, dice: &mut Dice) -> Vec<Step> {
        let host = User { server: 0, number: 0 };
        let guest = User { server: 1 + dice.below(self.servers - 1), number: dice.below(USERS_PER_SERVER) };
        let in_first = |user, what| acted(user, Deed::In { room: 0, what });
        let mut steps = vec![in_first(host, What::ShutOut(guest.server)), brought(host.server, guest.server)];
        for _ in 0..1 + dice.below(IN_VAIN_MAX) {
            let what = dice.weighted(&[(60, What::Say), (25, What::State(0)), (15, What::Join)]);
            steps.push(in_first(guest, what));
        }
        if dice.happens(40) {
            let all = (0..USERS_PER_SERVER).map(|number| User { number, ..guest });
            steps.extend(all.map(|user| in_first(user, What::Leave)));
        }
        steps.push(brought(guest.server, host.server));
        if dice.happens(40) {
            steps.push(in_first(host, What::LetIn));
            steps.extend([brought(host.server, guest.server), brought(guest.server, host.server)]);
        }
        steps
    }

    /// Somebody changes the list of a room, or tries to: whose server would be shut out itself is refused.
    fn any_list(&self, dice: &mut Dice, calm: bool) -> Step {
        let server = dice.below(self.servers);
        let what = dice.weighted(&[(65, What::ShutOut(server)), (35, What::LetIn)]);
        let deed = Deed::In { room: dice.below(256) as u8, what };
        Step::Act { user: self.any_user(dice), deed, trouble: any_trouble(dice, calm), lapse: None }
    }

    /// A few steps that seldom come together by chance, between the first server and another.
    fn scene(&mut self, dice: &mut Dice) {
        let other = 1 + dice.below(self.servers - 1);
        let (host, guest) = (User { server: 0, number: 0 }, User { server: other, number: 0 });
        match dice.below(3) {
            0 => self.overtaken_list(host, guest),
            1 => self.invite_taken_back(host, guest),
            _ => self.came_back(host, guest),
        }
    }

    /// A user whose server has left the room comes back, and reads what was said meanwhile and before.
    fn came_back(&mut self, host: User, guest: User) {
        let in_first = |what| Deed::In { room: 0, what };
        for number in 0..USERS_PER_SERVER {
            self.act(User { number, ..guest }, in_first(What::Leave));
            self.bring(guest.server, host.server);
        }
        self.act(host, in_first(What::Say));
        self.act(host, in_first(What::Invite(guest)));
        self.act(guest, in_first(What::Join));
        let (server, answers, trouble) = (guest.server, u8::MAX, None);
        self.steps.push(Step::Fetch { server, answers, trouble });
        self.steps.push(Step::Page { user: guest, room: 0, pages: u8::MAX, answers, trouble });
    }

    /// A server misses a change of a user's devices, and while it asks for all of them, one more comes.
    fn overtaken_list(&mut self, host: User, guest: User) {
        self.steps.push(Step::Sync { user: guest });
        for change in [OfDevices::Add(0), OfDevices::SignAnew, OfDevices::Add(1)] {
            self.act(host, Deed::Devices(change));
            self.bring(host.server, guest.server);
        }
        let follow = |waits| Step::Follow { server: guest.server, answers: u8::MAX, waits, trouble: None };
        self.steps.push(follow(true));
        self.act(host, Deed::Devices(OfDevices::Add(2)));
        self.bring(host.server, guest.server);
        self.steps.push(follow(false));
    }

    /// A user whose server has left the room is invited, and no more.
    fn invite_taken_back(&mut self, host: User, guest: User) {
        let in_first = |what| Deed::In { room: 0, what };
        for number in 0..USERS_PER_SERVER {
            self.act(User { number, ..guest }, in_first(What::Leave));
            self.bring(guest.server, host.server);
        }
        self.act(host, in_first(What::Invite(guest)));
        self.act(host, in_first(What::Kick(guest)));
        self.bring(host.server, guest.server);
    }

    fn bring(&mut self, from: usize, to: usize) {
        self.steps.push(brought(from, to));
    }

    /// A room, and most users in it, so that the random part begins where something is at stake.
    fn begin(&mut self, dice: &mut Dice) {
        let creator = User { server: 0, number: 0 };
        let public = dice.happens(75);
        self.act(creator, Deed::Create { public });
        for user in self.users() {
            if user == creator || dice.happens(25) {
                continue;
            }
            if !public {
                self.act(creator, Deed::In { room: 0, what: What::Invite(user) });
            }
            self.act(user, Deed::In { room: 0, what: What::Join });
        }
        for user in self.users() {
            if dice.happens(40) {
                let level = dice.one_of(&[50, 100]);
                self.act(creator, Deed::In { room: 0, what: What::Power(user, level) });
            }
        }
    }

    fn act(&mut self, user: User, deed: Deed) {
        self.steps.push(acted(user, deed));
    }

    /// Everybody.
    pub fn users(&self) -> Vec<User> {
        let on = |server| (0..USERS_PER_SERVER).map(move |number| User { server, number });
        (0..self.servers).flat_map(on).collect()
    }

    fn any_user(&self, dice: &mut Dice) -> User {
        User { server: dice.below(self.servers), number: dice.below(USERS_PER_SERVER) }
    }

    fn any_step(&self, dice: &mut Dice, calm: bool) -> Step {
        let kind = match self.servers {
            1 => dice.weighted(&[(70, 'a'), (20, 's'), (2, 'b'), (4, 'x'), (2, 'p'), (2, 'k')]),
            _ => dice.weighted(&[
                (38, 'a'),
                (9, 's'),
                (34, 'c'),
                (6, 'f'),
                (5, 'd'),
                (5, 'b'),
                (3, 't'),
                (2, 'h'),
                (2, 'x'),
                (4, 'p'),
                (2, 'k'),
            ]),
        };
        match kind {
            'a' => {
                let (trouble, lapse) = (any_trouble(dice, calm), any_lapse(dice, calm));
                Step::Act { user: self.any_user(dice), deed: self.any_deed(dice), trouble, lapse }
            }
            'c' => self.any_carry(dice, calm),
            't' => Step::Cut { mask: 1 + dice.below((1 << self.servers) - 2) as u8 },
            'h' => Step::Heal,
            'x' => Step::Crash { server: dice.below(self.servers) },
            'f' => {
                let answers = if calm || dice.happens(70) { u8::MAX } else { dice.below(6) as u8 };
                Step::Fetch { server: dice.below(self.servers), answers, trouble: any_trouble(dice, calm) }
            }
            'd' => {
                let answers = if calm || dice.happens(80) { u8::MAX } else { dice.below(3) as u8 };
                let (server, waits) = (dice.below(self.servers), !calm && dice.happens(40));
                Step::Follow { server, answers, waits, trouble: any_trouble(dice, calm) }
            }
            'b' => {
                let pages = if dice.happens(60) { u8::MAX } else { 1 + dice.below(4) as u8 };
                let answers = if calm || dice.happens(70) { u8::MAX } else { dice.below(12) as u8 };
                let (user, room) = (self.any_user(dice), dice.below(256) as u8);
                Step::Page { user, room, pages, answers, trouble: any_trouble(dice, calm) }
            }
            // Mostly a first pause after a failure; sometimes long enough for a server to count as gone.
            'p' => {
                let most = dice.weighted(&[(70, PAUSE_MS_MAX), (30, SILENCE_MS_MAX)]);
                Step::Pass { ms: dice.below(most) as u32 }
            }
            'k' => {
                let ms = dice.below(2 * SKEW_MS_MAX) as i64 - SKEW_MS_MAX as i64;
                Step::Skew { server: dice.below(self.servers), ms }
            }
            _ => Step::Sync { user: self.any_user(dice) },
        }
    }

    fn any_carry(&self, dice: &mut Dice, calm: bool) -> Step {
        let from = dice.below(self.servers);
        let to = (from + 1 + dice.below(self.servers - 1)) % self.servers;
        let fate = match calm {
            true => Fate::Arrives,
            false => dice.weighted(&[
                (66, Fate::Arrives),
                (6, Fate::ArrivesTwice),
                (6, Fate::IsLost),
                (8, Fate::AnswerIsLost),
                (4, Fate::IsLate),
                (10, Fate::Waits),
            ]),
        };
        let pick = if dice.happens(85) { 0 } else { 1 + dice.below(8) as u8 };
        let (trouble, hits_sender) = (any_trouble(dice, calm), dice.happens(40));
        Step::Carry { from, to, pick, fate, trouble, hits_sender }
    }

    fn any_deed(&self, dice: &mut Dice) -> Deed {
        if dice.happens(1) {
            return Deed::Create { public: dice.happens(50) };
        }
        if dice.happens(8) {
            return Deed::Tell(self.any_user(dice));
        }
        if dice.happens(12) {
            let device = dice.below(256) as u8;
            return Deed::Devices(dice.weighted(&[
                (50, OfDevices::Add(device)),
                (20, OfDevices::Remove(device)),
                (10, OfDevices::Rename(device)),
                (20, OfDevices::SignAnew),
            ]));
        }
        let kinds = [(37, 's'), (20, 'm'), (17, 't'), (12, 'p'), (6, 'r'), (4, 'v'), (4, 'e')];
        let what = match dice.weighted(&kinds) {
            's' => dice.weighted(&[(90, What::Say), (10, What::Repeat)]),
            'm' => self.any_membership(dice),
            't' => dice.one_of(&[What::Topic, What::State(0), What::State(1), What::State(2)]),
            'p' => self.any_power(dice),
            'r' => What::Redact(dice.below(256) as u8),
            'e' => What::Read(dice.below(256) as u8),
            _ => {
                const SEEN: [&str; 4] = ["shared", "joined", "invited", "world_readable"];
                What::Visibility(dice.one_of(&SEEN))
            }
        };
        Deed::In { room: dice.below(256) as u8, what }
    }

    fn any_membership(&self, dice: &mut Dice) -> What {
        let other = self.any_user(dice);
        let rules = ["public", "public", "invite", "knock", "knock"];
        let rule = What::JoinRule(dice.one_of(&rules));
        dice.weighted(&[
            (30, What::Join),
            (15, What::Leave),
            (9, What::Knock),
            (15, What::Invite(other)),
            (10, What::Kick(other)),
            (10, What::Ban(other)),
            (8, What::Unban(other)),
            (6, rule),
            (2, What::Forget),
        ])
    }

    fn any_power(&self, dice: &mut Dice) -> What {
        let level = dice.one_of(&[0, 0, 10, 50, 50, 75, 100]);
        const FIELDS: [&str; 6] = ["state_default", "events_default", "kick", "ban", "invite", "redact"];
        match dice.happens(75) {
            true => What::Power(self.any_user(dice), level),
            false => What::Level(dice.one_of(&FIELDS), level),
        }
    }
}

/// A deed that nothing disturbs.
fn acted(user: User, deed: Deed) -> Step {
    Step::Act { user, deed, trouble: None, lapse: None }
}

/// A delivery that arrives.
fn brought(from: usize, to: usize) -> Step {
    Step::Carry { from, to, pick: 0, fate: Fate::Arrives, trouble: None, hits_sender: false }
}

fn any_lapse(dice: &mut Dice, calm: bool) -> Option<(u8, Lapse)> {
    if calm || !dice.happens(60) {
        return None;
    }
    let lapse = dice.weighted(&[(30, Lapse::Request), (45, Lapse::Answer), (25, Lapse::Lie)]);
    // Most are helped by the first that is asked.
    let skipped = if dice.happens(70) { dice.below(REQUESTS_OF_ONE) } else { dice.below(REQUESTS_MAX) };
    Some((skipped as u8, lapse))
}

fn any_trouble(dice: &mut Dice, calm: bool) -> Option<Trouble> {
    if calm || !dice.happens(6) {
        return None;
    }
    let skipped = if dice.happens(50) { 0 } else { dice.below(SKIPPED_MAX) as u8 };
    let faults = [Fault::Refused, Fault::Doubtful, Fault::CrashBefore, Fault::CrashAfter];
    Some(Trouble { skipped, fault: dice.one_of(&faults) })
}
