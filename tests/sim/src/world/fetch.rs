//! A server asks for what the events lack that wait on it: the rounds of its task behind transactions.

use warren_engine::{
    fetching::{Begun, Round},
    view::federation::ParkedRooms,
};

use super::{Breach, SERVER_NAMES, Stopped, World, take_in::Asking};

impl World {
    /// One round in each room where something waits; `answers` of the questions are answered. Starts the server again if it
    /// dies.
    pub(super) fn fetch(&mut self, server: usize, answers: usize) -> Result<(), Breach> {
        let rooms = self.servers[server].engine().read(&ParkedRooms);
        let mut left = answers;
        for room_id in rooms.map_err(|error| Breach::new("fetch", error))? {
            let fetched = self.fetch_for(server, &room_id, &mut left)?;
            let how = match fetched {
                Ok(true) => "has all that it lacked",
                Ok(false) => "asks for what it lacks",
                Err(Stopped::Crashed) => "asks for what it lacks, and crashes",
                Err(Stopped::Failed(_)) => "asks for what it lacks, and fails to write",
            };
            self.tell(format!("{} {how} in room {}", SERVER_NAMES[server], self.room_index(&room_id) + 1));
            if self.servers[server].disk.has_crashed() {
                return self.servers[server].restart();
            }
        }
        Ok(())
    }

    fn fetch_for(
        &mut self,
        server: usize,
        room_id: &str,
        answers: &mut usize,
    ) -> Result<Result<bool, Stopped>, Breach> {
        let engine = self.servers[server].engine();
        let room = self.room_index(room_id);
        let mut round = match Round::begin(&engine, room_id).map_err(|error| Breach::new("fetch", error))? {
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
        let (release, is_done) = round.end(engine.now_ms());
        if let Some(release) = release {
            let unsettled = |event_id: &&str| !outcomes.contains_key(*event_id);
            self.ledger.let_go(server, room, release.event_ids.iter().map(String::as_str).filter(unsettled));
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
