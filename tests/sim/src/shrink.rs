//! From a failing plan to a short one: what can be left out without the failure going away is left out.
//!
//! Delta debugging over the list of steps, then over the servers and the faults of what is left, until nothing more can
//! go. A shorter plan counts only if it breaches the same promise.

use crate::plan::{Fate, Plan, Step, Trouble, User};

/// Most plays that shrinking takes: a failing run is shrunk in seconds, not to the last step at any price.
const PLAYS_MAX: usize = 600;

/// The shortest plan found for which `fails` holds, as it does for `plan`.
pub fn shrink(plan: &Plan, fails: &mut dyn FnMut(&Plan) -> bool) -> Plan {
    let mut shrinker = Shrinker { best: plan.clone(), plays: 0, fails };
    loop {
        let size = shrinker.size();
        shrinker.leave_out_steps();
        shrinker.leave_out_servers();
        shrinker.leave_out_faults();
        if shrinker.size() == size || shrinker.plays >= PLAYS_MAX {
            return shrinker.best;
        }
    }
}

struct Shrinker<'a> {
    best: Plan,
    plays: usize,
    fails: &'a mut dyn FnMut(&Plan) -> bool,
}

impl Shrinker<'_> {
    /// Steps, servers and faults: what is to become less.
    fn size(&self) -> (usize, usize, usize) {
        let faults = self.best.steps.iter().filter(|step| !simpler(step).is_empty()).count();
        (self.best.steps.len(), self.best.servers, faults)
    }

    /// Keeps `plan` if it fails too.
    fn try_plan(&mut self, plan: Plan) -> bool {
        if self.plays >= PLAYS_MAX || plan == self.best {
            return false;
        }
        self.plays += 1;
        let fails = (self.fails)(&plan);
        if fails {
            self.best = plan;
        }
        fails
    }

    /// Halves, quarters, … single steps, from the end: later steps depend on earlier ones.
    fn leave_out_steps(&mut self) {
        let mut chunk = self.best.steps.len().div_ceil(2);
        while chunk > 0 {
            let mut end = self.best.steps.len();
            while end > 0 {
                let start = end.saturating_sub(chunk);
                let mut plan = self.best.clone();
                plan.steps.drain(start..end);
                self.try_plan(plan);
                end = start;
            }
            chunk /= 2;
        }
    }

    /// A server with all its steps, or with its users' steps given to the first server's users.
    fn leave_out_servers(&mut self) {
        while self.best.servers > 1 {
            let last = self.best.servers - 1;
            let gone = |plan: &Plan| Plan { servers: last, ..plan.clone() };
            let mut without = gone(&self.best);
            without.steps.retain(|step| !names_server(step, last));
            let mut moved = gone(&self.best);
            moved.steps.retain(|step| !names_server(step, last) || matches!(step, Step::Act { .. }));
            for step in &mut moved.steps {
                if let Step::Act { user, .. } = step
                    && user.server == last
                {
                    user.server = 0;
                }
            }
            moved.steps.retain(|step| !names_server(step, last));
            if !self.try_plan(without) && !self.try_plan(moved) {
                return;
            }
        }
    }

    fn leave_out_faults(&mut self) {
        for index in 0..self.best.steps.len() {
            for step in simpler(&self.best.steps[index]) {
                let mut plan = self.best.clone();
                plan.steps[index] = step;
                if self.try_plan(plan) {
                    break;
                }
            }
        }
    }
}

/// The step with less going wrong in it.
fn simpler(step: &Step) -> Vec<Step> {
    let mut simpler = Vec::new();
    match step {
        Step::Act { user, deed, trouble, lapse } => {
            let act = |trouble, lapse| Step::Act { user: *user, deed: *deed, trouble, lapse };
            if let Some(trouble) = trouble {
                simpler.push(act(None, *lapse));
                if trouble.skipped > 0 {
                    simpler.push(act(Some(Trouble { skipped: 0, ..*trouble }), *lapse));
                }
            }
            if let Some((skipped, kind)) = lapse {
                simpler.push(act(*trouble, None));
                if *skipped > 0 {
                    simpler.push(act(*trouble, Some((0, *kind))));
                }
            }
        }
        Step::Carry { from, to, pick, fate, trouble, hits_sender } => {
            let carry = |pick, fate, trouble, hits_sender| Step::Carry {
                from: *from,
                to: *to,
                pick,
                fate,
                trouble,
                hits_sender,
            };
            if trouble.is_some() {
                simpler.push(carry(*pick, *fate, None, false));
            }
            if *fate != Fate::Arrives {
                simpler.push(carry(*pick, Fate::Arrives, *trouble, *hits_sender));
            }
            if *pick != 0 {
                simpler.push(carry(0, *fate, *trouble, *hits_sender));
            }
        }
        Step::Fetch { server, answers, trouble } => {
            if trouble.is_some() {
                simpler.push(Step::Fetch { server: *server, answers: *answers, trouble: None });
            }
            if *answers != u8::MAX {
                simpler.push(Step::Fetch { server: *server, answers: u8::MAX, trouble: *trouble });
            }
        }
        Step::Follow { server, answers, waits, trouble } => {
            let follow = |answers, waits, trouble| Step::Follow { server: *server, answers, waits, trouble };
            if trouble.is_some() {
                simpler.push(follow(*answers, *waits, None));
            }
            if *waits {
                simpler.push(follow(*answers, false, *trouble));
            }
            if *answers != u8::MAX {
                simpler.push(follow(u8::MAX, *waits, *trouble));
            }
        }
        Step::Page { user, room, pages, answers, trouble } => {
            let page =
                |answers, trouble| Step::Page { user: *user, room: *room, pages: *pages, answers, trouble };
            if trouble.is_some() {
                simpler.push(page(*answers, None));
            }
            if *answers != u8::MAX {
                simpler.push(page(u8::MAX, *trouble));
            }
        }
        _ => {}
    }
    simpler
}

fn names_server(step: &Step, server: usize) -> bool {
    use crate::plan::{Deed, What};
    let is_there = |user: &User| user.server == server;
    match step {
        Step::Act { user, deed, .. } => {
            let target = match deed {
                Deed::In { what: What::Invite(target) | What::Kick(target), .. }
                | Deed::In { what: What::Ban(target) | What::Unban(target), .. }
                | Deed::In { what: What::Power(target, _), .. }
                | Deed::Tell(target) => is_there(target),
                Deed::In { what: What::ShutOut(named), .. } => *named == server,
                _ => false,
            };
            target || is_there(user)
        }
        Step::Sync { user } | Step::Page { user, .. } => is_there(user),
        Step::Carry { from, to, .. } => *from == server || *to == server,
        Step::Crash { server: named }
        | Step::Skew { server: named, .. }
        | Step::Fetch { server: named, .. }
        | Step::Follow { server: named, .. } => *named == server,
        // Of a cut only the servers that are left matter.
        Step::Cut { .. } | Step::Heal | Step::Pass { .. } => false,
    }
}
