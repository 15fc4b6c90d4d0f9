//! A server asks for what the events lack that wait on it, and for members that were left out when it joined: the rounds of
//! its tasks behind transactions and joins.

use warren_engine::{
    Outcome,
    fetching::{Begun, Ended, Round},
    view::federation::{ParkedOrigins, ParkedRooms, PartialRoom, PartialRooms},
};

use super::{Breach, SERVER_NAMES, Stopped, World, join::Failed, take_in::Asking};

impl World {
    /// One round in each room where something waits; `answers` of the questions are answered. Starts the server again if it
    /// dies.
    pub(super) fn fetch(&mut self, server: usize, answers: usize) -> Result<(), Breach> {
        let mut left = answers;
        let partial = self.servers[server].engine().read(&PartialRooms);
        for room in partial.map_err(|error| Breach::new("fetch", error))? {
            let before = self.audiences(server);
            self.complete(server, &room, &mut left)?;
            // Who has declined what nobody would hear of, as of a server that is shut out, tells the room once that is known whole.
            self.note_events(server, &before)?;
            if self.servers[server].disk.has_crashed() {
                return self.servers[server].restart();
            }
        }
        let rooms = self.servers[server].engine().read(&ParkedRooms);
        for room_id in rooms.map_err(|error| Breach::new("fetch", error))? {
            let origins = self.servers[server].engine().read(&ParkedOrigins { room_id: &room_id });
            for origin in origins.map_err(|error| Breach::new("fetch", error))? {
                let fetched = self.fetch_for(server, (&room_id, &origin), &mut left)?;
                let how = match fetched {
                    Ok(true) => "has all that it lacked",
                    Ok(false) => "asks for what it lacks",
                    Err(Stopped::Crashed) => "asks for what it lacks, and crashes",
                    Err(Stopped::Failed(_)) => "asks for what it lacks, and fails to write",
                };
                let (own, room) = (SERVER_NAMES[server], self.room_index(&room_id) + 1);
                self.tell(format!("{own} {how} in room {room} for what {origin} sent"));
                if self.servers[server].disk.has_crashed() {
                    return self.servers[server].restart();
                }
            }
        }
        Ok(())
    }

    /// Asks one server after the other for the members of a room.
    fn complete(&mut self, server: usize, room: &PartialRoom, answers: &mut usize) -> Result<(), Breach> {
        let index = self.room_index(&room.room_id);
        let (place, before) = (format!("room {}", index + 1), self.local_members(server, index));
        let servers: Vec<usize> = room.servers.iter().filter_map(|name| self.index(name)).collect();
        for asked in servers {
            let Some(rest) = answers.checked_sub(1) else { return Ok(()) };
            if asked == server || !self.reaches(server, asked) {
                continue;
            }
            *answers = rest;
            let (own, peer) = (SERVER_NAMES[server], SERVER_NAMES[asked]);
            match self.complete_by(server, room, asked) {
                Ok(true) => {
                    self.learned += 1;
                    // That one may not have heard that some have left, as when it lets another one in.
                    let after = self.local_members(server, index);
                    self.ledger.revived.extend(after.difference(&before).map(|back| (index, *back)));
                    self.tell(format!("{own} is told the members of {place} by {peer}"));
                    return Ok(());
                }
                Ok(false) => self.tell(format!("{own} is told the members of {place} in part by {peer}")),
                Err(Failed::Refused(why)) => {
                    self.tell(format!("{own} is not told the members of {place} by {peer}: {why}"));
                }
                Err(Failed::Stopped(_)) => {
                    self.tell(format!("{own} asks for the members of {place}, and fails"));
                    return Ok(());
                }
                Err(Failed::Breach(breach)) => return Err(breach),
            }
        }
        Ok(())
    }

    fn fetch_for(
        &mut self,
        server: usize,
        (room_id, origin): (&str, &str),
        answers: &mut usize,
    ) -> Result<Result<bool, Stopped>, Breach> {
        let engine = self.servers[server].engine();
        let room = self.room_index(room_id);
        let begun = Round::begin(&engine, room_id, origin);
        let mut round = match begun.map_err(|error| Breach::new("fetch", error))? {
            Begun::Nothing => return Ok(Ok(true)),
            Begun::Left(release) => {
                self.ledger.let_go(server, room, release.event_ids.iter().map(String::as_str));
                return Ok(self.servers[server].write(release).map(|()| true));
            }
            Begun::Round(round) => round,
        };
        let servers = std::mem::take(&mut round.servers);
        let mut asking = Asking { servers: &servers, answers: *answers };
        let driven = self.drive(server, &mut round.intake, &mut asking);
        *answers = asking.answers;
        let outcomes = round.intake.outcomes.clone();
        self.judge(server, &outcomes)?;
        if let Err(stopped) = driven {
            return Ok(Err(stopped));
        }
        let Ended { release, is_done, .. } = round.end(engine.now_ms());
        if let Some(release) = release {
            let released = || release.event_ids.iter().map(String::as_str);
            let is_unsettled = |event_id: &&str| !outcomes.contains_key(*event_id);
            self.ledger.let_go(server, room, released().filter(is_unsettled));
            let is_history = |event_id: &&str| outcomes.get(*event_id) == Some(&Outcome::Past);
            self.ledger.let_history_go(server, room, released().filter(is_history));
            if let Err(stopped) = self.servers[server].write(release) {
                return Ok(Err(stopped));
            }
        }
        Ok(Ok(is_done))
    }

    fn room_index(&self, room_id: &str) -> usize {
        self.rooms.iter().position(|room| room.id == room_id).expect("events wait in rooms of the run")
    }
}
