//! The limits of what passes between servers, each with its reason. Sizes and times of requests in general are in
//! `http/limits.rs`.

use std::time::Duration;

/// How long this server says that its keys are good. Others ask again at half of it; a key that has to be given up is
/// out of use after it.
pub const OWN_KEYS_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Own keys of before that are published, the last ones: others take a hundred keys in all.
pub const OWN_OLD_KEYS_MAX: usize = KEYS_MAX - 1;

/// The port of a server that names none.
pub const PORT_DEFAULT: u16 = 8448;

/// Size of a well-known file. It has some fifty bytes; the rest is for members that others put there.
pub const WELL_KNOWN_BYTES_MAX: usize = 50 * 1024;

/// Time for a well-known file, all redirects included. Whoever asks a server whose web host is silent must still have time
/// to find it without.
pub const WELL_KNOWN_TIME_MAX: Duration = Duration::from_secs(10);

/// Redirects of a well-known file: from one name of a host to another, to another host, and a few to spare.
pub const WELL_KNOWN_REDIRECTS_MAX: usize = 5;

/// How long a well-known file is good that does not say so, and at most: as the specification recommends.
pub const WELL_KNOWN_CACHE_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
pub const WELL_KNOWN_CACHE_MAX: Duration = Duration::from_secs(48 * 60 * 60);

/// How long a well-known file is good at least: a host that forbids to keep it would be asked before every request.
pub const WELL_KNOWN_CACHE_MIN: Duration = Duration::from_secs(5 * 60);

/// How long it is remembered that there is no valid file: first, and after it has doubled some times; the specification
/// recommends an hour at most.
pub const WELL_KNOWN_FAILURE_MIN: Duration = Duration::from_secs(2 * 60);
pub const WELL_KNOWN_FAILURE_MAX: Duration = Duration::from_secs(60 * 60);

/// Servers whose well-known files are remembered, some 300 bytes each: all that the largest servers deal with.
pub const WELL_KNOWN_SERVERS_MAX: usize = 30_000;

/// Time for a request, its connection and answer included. A large server needs half a minute for a join.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// Body of a request: a transaction, which others take up to about this size.
pub const REQUEST_BYTES_MAX: usize = crate::http::limits::TRANSACTION_BODY_BYTES_MAX;

/// An answer that is held whole: ids of the state of a room with 200,000 members have 10 MiB.
pub const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// An answer with one event in it, of 64 KiB in canonical form, and what others write around it. It may become values, which
/// take up to a hundred times the memory of their text.
pub const EVENT_BYTES_MAX: usize = 512 * 1024;

/// An answer with a list in it: a page of a directory with some hundreds of rooms, of which most take less than a kilobyte; the
/// servers of a room with some ten thousand; a user's devices, of which a thousand are with their keys and signatures.
pub const LIST_BYTES_MAX: usize = 1024 * 1024;

/// What a server says of the keys of each user that it is asked for, beside such a list: some eighty devices, of which most users
/// have a handful.
pub const KEYS_OF_USER_BYTES_MAX: usize = 64 * 1024;

/// What all servers say together that one query makes this one ask. Some clients ask for all of a room with ten thousand users.
pub const KEYS_OF_QUERY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// An answer with a hundred events in it, of which few are as large as they may be.
pub const EVENTS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An answer with a room's state in it: some 400,000 members of 600 bytes each.
pub const STATE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The part of the memory budget that all such answers take together, from their first bytes until what they tell is stored.
pub const STATES_PERCENT: u64 = 50;

/// And at least so much, so that large rooms can be entered whatever the budget: two thirds of it hold some 240,000 members.
pub const STATES_BYTES_MIN: usize = 256 * 1024 * 1024;

/// What the answers of one server take together: at most so many times what is left to others then, two thirds of all if
/// there are no others. However many servers take what they get, something is left to the next.
pub const STATE_ORIGIN_PARTS: usize = 2;

/// What an element of such an answer takes beside its text, be it an event or an id: its place in the lists that it goes
/// through, what the allocator adds, and what is said of it if it is nothing of the kind.
pub const STATE_ELEMENT_BYTES: usize = 128;

/// What of each such answer does not count: the states of ordinary rooms do not wait for those of large ones.
pub const STATE_BYTES_FREE: usize = 1024 * 1024;

/// How long an answer waits for memory that others hold. These may wait for each other, so that one has to give up.
pub const STATE_MEMORY_TIME_MAX: Duration = Duration::from_secs(20);

/// What has to come of an answer that counts in each such time, or it ends: one that is silent, or tells byte after byte,
/// holds what others wait for. An answer that has no more than this cannot have come to count within its whole time.
pub const STATE_PACE_TIME: Duration = Duration::from_secs(20);
pub const STATE_PACE_BYTES: usize = 64 * 1024;

/// Time for it. Servers of old need minutes to put a large room's state together.
pub const STATE_TIME_MAX: Duration = Duration::from_secs(5 * 60);

/// Time for a file of another server; who waits for it gives up before.
pub const MEDIA_TIME_MAX: Duration = Duration::from_secs(2 * 60);

/// What stands between the parts of an answer with a file: RFC 2046 has 70 bytes. It is looked for in all of the file, and what of it may
/// have begun is looked at again with each piece that comes.
pub const BOUNDARY_BYTES_MAX: usize = 200;

/// The headers of an answer.
pub const ANSWER_HEAD_BYTES_MAX: usize = 64 * 1024;

/// An error in an answer: a code and a sentence.
pub const ERROR_BYTES_MAX: usize = 64 * 1024;

/// How long a connection stays open that nobody uses, where as many files may be open; busy servers use it more often than that.
/// Less than most others keep theirs, of which nginx closes them after 75 seconds: who closes last sends nothing into the void.
pub const IDLE_CONNECTION_TIME: Duration = Duration::from_secs(50);

/// The same where few files may be open: enough for one transaction after the other. It may be twice as long until it is closed. How
/// many are open at once is bounded by places (`kept.rs`), each of which is free the sooner for the next server.
pub const IDLE_CONNECTION_TIME_SHORT: Duration = Duration::from_millis(100);

/// How often it is looked whether an HTTP/2 connection with requests on it still is one: routers forget silent ones after
/// a minute or more without telling.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Idle connections to one server, where as many files may be open: requests beside a transaction; HTTP/2 needs one for all.
pub const IDLE_CONNECTIONS_MAX: usize = 4;

/// Size of what a server publishes of its keys: a key takes 100 bytes, a signature 130; the oldest servers have some
/// dozens of old keys. It is stored, so that it must not be worth while to make up servers.
pub const KEYS_BYTES_MAX: usize = 32 * 1024;

/// Keys of one server.
pub const KEYS_MAX: usize = 100;

/// Time to fetch a server's keys. A request waits for it, and its sender gives up after a minute.
pub const KEYS_TIME_MAX: Duration = Duration::from_secs(25);

/// Answer of a notary, which is asked about one server: its keys as it published them at several times.
pub const NOTARY_BYTES_MAX: usize = 1024 * 1024;

/// How long a notary takes at most to refuse, and is not silent. One that is there, or whose host says that it is not, does that in a
/// moment.
pub const NOTARY_PROMPT_TIME: Duration = Duration::from_secs(3);

/// How long a notary that was silent is not asked: whoever comes into several rooms is kept waiting once, and it may be back soon.
pub const NOTARY_PAUSE: Duration = Duration::from_secs(3 * 60);

/// How far ahead a key is trusted at most, whatever its server says: the specification's seven days.
pub const KEYS_TRUSTED_AHEAD: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long a server's keys are not asked for again after they were: enough to take up a new key soon, and to bother no
/// server that somebody else names in bad requests.
pub const KEYS_PAUSE: Duration = Duration::from_secs(30);

/// The same after failures: it doubles up to this. A server that comes back with a new key is not believed for so long, if others had it
/// asked in vain by its name.
pub const KEYS_PAUSE_MAX: Duration = Duration::from_secs(10 * 60);

/// How long they are not asked for again after either where a user waits, as to come into a room: the server may be back by now. Rooms
/// that are entered one after the other have the same servers in them, and some of those take long to be given up.
pub const KEYS_AWAITED_PAUSE: Duration = Duration::from_secs(5);

/// What is remembered of the keys of servers that have nothing to do with this one, but that others asked about: those of some
/// thousands with a key or two, and of some hundreds with as much as there may be.
pub const QUERIED_KEYS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Servers that it is remembered of when their keys were asked for, some 300 bytes each; and of those whose keys this server lacked
/// itself, what these are called.
pub const KEYS_SERVERS_MAX: usize = 50_000;

/// Fetches of keys at once of servers in rooms with this one, and in those that a user comes into: joining a room of thousands
/// of servers must not take all connections of the process.
pub const KEYS_OF_ROOMS_AT_ONCE: usize = 60;

/// Half of them for whoever makes this server ask: one server by what it has sent or told, or one address by its requests.
pub const KEYS_OF_ROOMS_FOR_EACH: usize = KEYS_OF_ROOMS_AT_ONCE / 2;

/// And half for servers whose keys could not be had the last time: large rooms have hundreds that are gone for good.
pub const KEYS_OF_FAILING_AT_ONCE: usize = KEYS_OF_ROOMS_AT_ONCE / 2;

/// The same for servers in no room with this one, whose names anybody may make up, and for queries to this one as a notary:
/// enough, as the keys of a server that is there come within a second.
pub const KEYS_OF_STRANGERS_AT_ONCE: usize = 10;
pub const KEYS_QUERIED_AT_ONCE: usize = 10;

/// And of either for each who makes this server ask, so that it takes several to make the others wait.
pub const KEYS_OF_STRANGERS_FOR_EACH: usize = 3;

/// Servers in one query to this server as a notary: others ask for those of a large room in such portions.
pub const QUERIED_SERVERS_MAX: usize = 500;

/// Servers that one query makes this one ask: what it does not know of the others it will know at the next query.
pub const QUERIED_FETCHES_MAX: usize = 20;

/// Time for the fetches of one query, within the patience of who asks.
pub const QUERIED_TIME_MAX: Duration = Duration::from_secs(30);

/// Servers that are sent something at once, where as many files may be open: each takes a connection and up to two copies of a
/// transaction.
pub const DELIVERIES_MAX: usize = 500;

/// One in so many of them may be one that is slow, or was so or could not be reached in the last minutes: whoever has any number of
/// names must not keep all others waiting, nor must the hundreds of servers of a large room that are gone.
pub const LAGGARDS_PART: usize = 2;

/// For how long places for deliveries are gathered that become free when all were taken, before it is looked who is next: a look takes
/// ten milliseconds where something is for 50,000 servers, and holds up whatever else is to be sent meanwhile.
pub const DELIVERIES_GATHERED_TIME: Duration = Duration::from_millis(20);

/// A server that takes longer for a transaction is slow, and keeps its place only if few enough are. Busy ones take some seconds. Who
/// is prompt, and always has more to come, keeps it for no longer either, but for the transaction that is under way.
pub const DELIVERY_PROMPT_TIME: Duration = Duration::from_secs(10);

/// Time for what an answer to a transaction says when its status is there: it was made as a whole.
pub const TRANSACTION_ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// And its size: fifty events with an error each. What is longer is not read.
pub const TRANSACTION_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Questions to other servers that clients have this one ask at once, where as many files may be open: those of six users who each
/// ask for keys of as many servers as one may at once, and as many of strangers as of two.
pub const QUESTIONS_MAX: usize = 2_400;

/// And at least: one of a user, and one of somebody who has not signed in.
pub const QUESTIONS_MIN: usize = 2;

/// What such a question takes while it is under way: its connection, with TLS, some 26 kilobytes, and what is asked.
pub const QUESTION_BYTES: u64 = 32 * 1024;

/// The part of the memory budget, in percent, that they may take together: [`QUESTIONS_MAX`] with the default of 512 MiB.
pub const QUESTIONS_PERCENT: u64 = 15;

/// One in so many of them is for those who have not signed in, or are guests: they look up an alias or a profile, if anything.
pub const QUESTIONS_OF_STRANGERS_PART: usize = 4;

/// Each user has one in so many of those of users, and each address of those of strangers, so that it takes several to make the
/// others wait: with [`QUESTIONS_MAX`], a user asks all servers of one query for keys at once.
pub const QUESTIONS_SHARES: usize = 6;

/// Where few files may be open, each has this many, but half of all at most: the servers of a small room are asked at once.
pub const QUESTIONS_OF_EACH_MIN: usize = 8;

/// Files may have one in so many of all of these, and of those of each: they take minutes, and what somebody waits for, as to come into
/// a room, must not wait for them.
pub const QUESTIONS_FILES_PART: usize = 2;

/// Questions under way, and such that wait for their turn: some kilobytes each, as all that it takes to ask is held only from then on.
pub const QUESTIONS_IN_LINE_MAX: usize = 48_000;

/// Of each user or address one in so many; further ones are refused at once. A client that comes into a large room sends twenty
/// queries at once, each for the keys of 250 users, who may all be of other servers; and while eight have as many waiting as they
/// may, there is as much room for another.
pub const QUESTIONS_IN_LINE_SHARES: usize = 9;

/// How long a question waits for its turn: as long as a client waits for keys.
pub const QUESTION_WAIT_MAX: Duration = Duration::from_secs(10);

/// One in so many of the lookups of servers that go on when nobody waits for them any more may have begun for a client's question.
/// Deliveries always find one.
pub const LOOKUPS_OF_QUESTIONS_PART: usize = 2;

/// The part of the memory budget that large bodies of other servers take together, until they are answered.
pub const LARGE_BODIES_PERCENT: u64 = 25;

/// Large bodies at once at least, however small the budget: one from each of a few addresses.
pub const LARGE_BODIES_MIN: usize = 4;

/// One address has one in so many of them. Honest servers send one transaction at a time, hardly ever a large one.
pub const LARGE_BODIES_SHARES: usize = 4;

/// How long a large body waits for others. Whoever sends it gives up after a minute.
pub const LARGE_BODY_WAIT_MAX: Duration = Duration::from_secs(20);

/// Answers that one server has at once of those that tell a room's state: each holds a piece of up to 512 KiB, and eight bytes for every
/// event of it, for as long as it is not taken. Servers ask for one or two at a time, and for more when many users come in.
pub const ROOM_ANSWERS_FOR_EACH: usize = 4;

/// The same of one address, which may be that of a proxy before many servers, beside one of each server: 32 MiB.
pub const ROOM_ANSWERS_FOR_ADDRESS: usize = 64;

/// Servers of one address of which each has one such answer, or one request that waits for a place, which counts for none of what the
/// address has else: whoever takes all of that by some names leaves those of its neighbours their first. Pieces have 256 KiB as a
/// rule: 64 MiB.
pub const ROOM_ANSWERS_FIRST_FOR_ADDRESS: usize = 256;

/// Requests for such answers of one server that wait for a place, which take some kilobytes each, or a connection. Further ones are
/// refused at once, which has Synapse take this server to be down; so one that asks about all its rooms at a time has to have a place.
pub const ROOM_ANSWERS_IN_LINE_FOR_EACH: usize = 500;

/// The same of one address, beside one of each server: several large servers behind a proxy.
pub const ROOM_ANSWERS_IN_LINE_FOR_ADDRESS: usize = 2_000;

/// The same of requests to come in. Of each the event is kept while it waits, up to 64 KiB, and while it is judged a few times that.
pub const JOINS_IN_LINE_FOR_EACH: usize = 64;

/// The same of one address, beside one of each server: with those 48 MiB of events at most.
pub const JOINS_IN_LINE_FOR_ADDRESS: usize = 256;

/// How long one that was let in waits to be told the room's state. It may ask for it anew.
pub const JOIN_ANSWER_WAIT_MAX: Duration = Duration::from_secs(2 * 60);

/// How long a request waits for such a place. Servers give up after a minute, and need some of that for the answer.
pub const ROOM_ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// When who is refused is to ask again. Most of these answers take less than a second.
pub const ROOM_ANSWER_RETRY_AFTER_MS: u64 = 10_000;

/// Time for a policy server's signature: a client waits for it, or what one server has sent in a room. As long as others wait: one that
/// looks into files takes its time.
pub const POLICY_TIME_MAX: Duration = Duration::from_secs(30);

/// The same for history, and for all events together that show whether one signs: all that has to be asked about a turn of it is to fit into
/// the minute in which a page is taken in.
pub const POLICY_PAST_TIME_MAX: Duration = Duration::from_secs(10);

/// Size of a policy server's answer, which has one signature in it.
pub const POLICY_BYTES_MAX: usize = 16 * 1024;

/// How long a policy server that did not answer at all is not asked about events of other servers, which stay parked meanwhile: a room full
/// of them would wait for each. So long it is, too, until it counts anew that one gave nothing about an event.
pub const POLICY_PAUSE: Duration = Duration::from_secs(60);

/// For how long at most a policy server's wish to be asked later is obeyed: what comes next in the room waits.
pub const POLICY_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often it waits so, of sixteen events that are asked about at once: one that signs ten a second is through with them by then.
pub const POLICY_WAITS_MAX: usize = 3;

/// How often a policy server may give nothing about one event until that goes without its signature: of the past all that is before it
/// waits for that, and what is sent now waits itself.
pub const POLICY_TRIES_MAX: u32 = 3;

/// How long, after the first, events of the past are asked about alone, one after the other, that it failed on with others.
pub const POLICY_ALONE_TIME_MAX: Duration = Duration::from_secs(10);

/// How long it is left alone before each, as what it failed by may have been that it was asked so much; and before it is seen once more
/// whether it signs, as it may have fallen and begin anew.
pub const POLICY_BREATH: Duration = Duration::from_secs(1);

/// How often it is seen whether it signs: different events are taken, as far as there are, so that some are of others than who would have
/// it seem to sign nothing.
pub const POLICY_PROBES_MAX: usize = 5;

/// Time for each of these: the first is one that it may hang on, and leaves the time for one that it has signed before.
pub const POLICY_PROBE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long before it was late with an event it has to have answered others, so that this is about the event: one that goes silent has
/// answered some when that was asked about, too.
pub const POLICY_ANSWERS_TIME: Duration = Duration::from_secs(5);

/// Events of which it is remembered how often a policy server gave nothing about them, some 150 bytes each.
pub const UNANSWERED_EVENTS_MAX: usize = 10_000;

/// Servers of which it is remembered that they were silent, or when they have answered, some 100 bytes each.
pub const SILENT_SERVERS_MAX: usize = 10_000;

/// Events of one request that policy servers sign, one after the other: an upgrade takes three, and guests whom a room shuts
/// out leave behind the request, some at once.
pub const SIGNED_EVENTS_MAX: usize = 50;

/// Time for a transaction: the other server may have to ask for events that it lacks before it answers.
pub const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(90);

/// Time for what one server tells of a space: a client waits for it, and the largest spaces take a second.
pub const HIERARCHY_ANSWER_TIME_MAX: Duration = Duration::from_secs(4);

/// Time for one room of a space, all servers that are asked for it included: two that are silent and one that is not.
pub const HIERARCHY_ROOM_TIME_MAX: Duration = Duration::from_secs(10);

/// Servers that are asked for one room of a space: the three that whoever lists it is to name.
pub const HIERARCHY_SERVERS_MAX: usize = 3;

/// After this time a page of a space ends with what is there, as soon as the rooms that are being asked for have been told.
pub const HIERARCHY_PAGE_TIME: Duration = Duration::from_secs(10);

/// A page of a space ends, too, when it has about so many bytes: fifty rooms that list some 8,000 in all, or have long topics.
pub const HIERARCHY_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// And when servers have told so much for it, which is held until it ends: a hundred times what most spaces have.
pub const HIERARCHY_HEARD_BYTES: usize = 16 * 1024 * 1024;

/// How long a server that was silent is not asked about spaces: their other rooms would wait for it one by one.
pub const HIERARCHY_PAUSE: Duration = Duration::from_secs(60);

/// An answer about a space: a thousand rooms with a kilobyte each, and with their lists.
pub const HIERARCHY_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long such an answer is good. Whoever walks through a space meets it again within that time; who adds a room to one sees
/// it soon.
pub const HIERARCHY_CACHE_TIME: Duration = Duration::from_secs(60);

/// How long it is good that there is nothing to be told: for those who look at the same space at the same time. A user who joins
/// a room in order to be shown another looks again at once.
pub const HIERARCHY_REFUSAL_TIME: Duration = Duration::from_secs(3);

/// Answers about spaces that are remembered, by their size: the spaces of a large server that are looked at in a minute.
pub const HIERARCHY_CACHE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What remembering an answer takes besides.
pub const HIERARCHY_CACHE_ENTRY_BYTES: usize = 512;

/// Questions about spaces that are under way at once, for all users: each may bring an answer of some megabytes.
pub const HIERARCHY_QUESTIONS_MAX: usize = 50;

/// Each user has one in so many of them: a space may name servers without end that do not answer. Where few files may be open, each
/// has as many as a walk asks for at once, but half of all at most.
pub const HIERARCHY_QUESTIONS_SHARES: usize = 4;
