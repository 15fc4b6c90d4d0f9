//! Moderators who decide at the same time, on whose joins nothing of the room's state rests otherwise.

use super::*;

const DORA: &str = "@dora:there.example";

/// Servers agree by the time of what each did, not of when each came in: the joins are in all states, and so no difference between them.
#[test]
fn of_two_who_change_the_power_levels_at_once_the_later_has_the_last_word() {
    for [first, second] in [[CARL, DORA], [DORA, CARL]] {
        let scene = Scene::new();
        for (number, user) in [first, second].into_iter().enumerate() {
            let join = scene.member(user, user, "join", &strs(&scene.ends()), 20 + number as u64);
            assert!(accepted(&scene.receive(&[&join])));
        }
        let levels = |ban: u64| json!({"users": {ALICE: 100, CARL: 90, DORA: 90}, "ban": ban});
        scene.world.state(ROOM, ALICE, "m.room.power_levels", "", levels(50));
        let ends = scene.ends();
        let change = |sender: &str, ban, depth| {
            scene.draft(sender, "m.room.power_levels", Some(""), levels(ban), &strs(&ends), depth)
        };
        // Times go by depths.
        let (earlier, later) = (change(CARL, 60, 30), change(DORA, 70, 31));
        assert!(accepted(&scene.receive(&[&earlier, &later])));
        let standing = scene.state("m.room.power_levels", "");
        assert_eq!(standing, Some(later.event_id.to_string()), "{first} came in first");
        scene.is_sound();
    }
}
