//! The simulator: many servers in one process under one seed, with every fault a network, a disk and a clock can have.
//!
//! A seed makes a plan (`plan`), a list of steps; the world (`world`) plays it with the engine's public façade alone and
//! the promises are checked on the way and at the end; a plan that breaches one is made short (`shrink`) and told in plain
//! words. The same seed always plays the same.

#![forbid(unsafe_code)]

mod client;
mod dice;
mod disk;
mod keyring;
mod plan;
mod shrink;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use disk::Fault;
pub use plan::{Deed, Fate, Plan, Step, Trouble, User, What};
pub use world::{Breach, Plant, World};

/// A run that has been played.
pub struct Played {
    /// What happened, a sentence each.
    pub story: Vec<String>,
    /// The promise that was not kept.
    pub breach: Option<Breach>,
    /// All that the servers hold, to compare two plays by; empty after a breach.
    pub digest: String,
}

/// Plays a plan.
pub fn play(plan: &Plan, plant: Plant) -> Played {
    let mut world = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(plan, plant)?);
        for step in &plan.steps {
            world.play(step)?;
        }
        world.finish()
    }));
    let breach = match result {
        Ok(result) => result.err(),
        Err(panic) => Some(Breach::new("panic", panic_text(&*panic))),
    };
    let digest = match (&breach, &world) {
        (None, Some(world)) => world.digest(),
        _ => String::new(),
    };
    Played { story: world.map(|world| world.story).unwrap_or_default(), breach, digest }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

/// A failing run, made short.
pub struct Failure {
    /// What it began with.
    pub seed: u64,
    /// Steps before it was shrunk.
    pub steps: usize,
    /// What is left of the plan.
    pub plan: Plan,
    /// What happened in it, and what is wrong then.
    pub story: Vec<String>,
    /// The promise that was not kept.
    pub breach: Breach,
}

/// Runs the plan of a seed; if it fails, shrinks it.
pub fn run(seed: u64, plant: Plant) -> Result<(), Box<Failure>> {
    let plan = Plan::new(seed);
    let Some(breach) = play(&plan, plant).breach else { return Ok(()) };
    let same = |played: &Played| played.breach.as_ref().is_some_and(|found| found.rule == breach.rule);
    let short = shrink::shrink(&plan, &mut |plan| same(&play(plan, plant)));
    let played = play(&short, plant);
    Err(Box::new(Failure {
        seed,
        steps: plan.steps.len(),
        plan: short,
        story: played.story,
        breach: played.breach.unwrap_or(breach),
    }))
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (left, servers) = (self.plan.steps.len(), self.plan.servers);
        writeln!(f, "seed {}: {} steps, shrunk to {left} on {servers} server(s)", self.seed, self.steps)?;
        for (index, sentence) in self.story.iter().enumerate() {
            writeln!(f, "{:>3}. {sentence}", index + 1)?;
        }
        write!(f, "  => {}", self.breach)
    }
}
