//! State resolution and auth differences in memory, ours against `ruma-state-res` and long chains against short ones.

use warren_bench::resolution::{Compared, Kind, chains, compared};

use crate::context::{Figure, InProcess};
use crate::error::{Error, Result};

/// The comparisons: which fork, and how many conflicted events it has.
const FORKS: [(&str, Kind, usize); 8] = [
    ("resolve-joins-10", Kind::Joins, 10),
    ("resolve-joins-100", Kind::Joins, 100),
    ("resolve-joins-1000", Kind::Joins, 1_000),
    ("resolve-joins-10000", Kind::Joins, 10_000),
    ("resolve-mixed-10", Kind::Mixed, 10),
    ("resolve-mixed-100", Kind::Mixed, 100),
    ("resolve-mixed-1000", Kind::Mixed, 1_000),
    ("resolve-mixed-10000", Kind::Mixed, 10_000),
];
/// Auth events below the ten that differ: in a long chain, and in a short one.
const CHAINS: [usize; 2] = [50_000, 500];

/// Takes the measures.
pub fn run(ctx: &mut InProcess<'_>) -> Result<()> {
    for (name, kind, conflicted) in FORKS {
        if !ctx.wants(name) {
            continue;
        }
        let Compared { ours, theirs, first } = compared(kind, conflicted)
            .ok_or_else(|| Error::Implausible(format!("{name}: the two states differ")))?;
        let per_event = |seconds: f64| seconds * 1e6 / conflicted as f64;
        let note = format!(
            "{:.2} µs per event, {:.2} the first time; ruma-state-res {:.2} µs",
            per_event(ours),
            per_event(first),
            per_event(theirs)
        );
        ctx.take(Figure::new(name, theirs / ours).noting(note));
    }
    if ctx.wants("auth-difference-ratio") {
        let [long, short] =
            chains(CHAINS).ok_or_else(|| Error::Implausible("the auth differences differ".to_owned()))?;
        let note = format!("{:.1} µs, {:.1} µs in the short chain", long * 1e6, short * 1e6);
        ctx.take(Figure::new("auth-difference-ratio", long / short).noting(note));
    }
    Ok(())
}
