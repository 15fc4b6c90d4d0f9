//! A map of levels that lies in one piece of memory: it is compared with another far more often than it is made.

/// A map of levels: of users, event types or notification keys. Ascending by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// All names, one after the other.
    names: Box<str>,
    /// Where in `names` each name ends, and its level.
    rows: Box<[(u32, i64)]>,
}

impl Levels {
    /// Of several levels for one name the last counts.
    pub fn new<'a>(entries: impl IntoIterator<Item = (&'a str, i64)>) -> Levels {
        let mut entries: Vec<(&str, i64)> = entries.into_iter().collect();
        // Stable, so that the last of several is the last still.
        entries.sort_by_key(|entry| entry.0);
        let mut names = String::new();
        let mut rows = Vec::with_capacity(entries.len());
        for (index, (name, level)) in entries.iter().enumerate() {
            if entries.get(index + 1).is_none_or(|next| next.0 != *name) {
                names.push_str(name);
                // An event of 64 KiB holds no more than that of names.
                rows.push((u32::try_from(names.len()).unwrap_or(u32::MAX), *level));
            }
        }
        Levels { names: names.into(), rows: rows.into() }
    }

    /// The level of `name`, if it has one.
    pub fn get(&self, name: &str) -> Option<i64> {
        let (mut low, mut high) = (0, self.rows.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle).cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return self.rows.get(middle).map(|row| row.1),
            }
        }
        None
    }

    /// Whether `name` has a level.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All names with their levels.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.rows.iter().enumerate().map(|(index, row)| (self.name(index), row.1))
    }

    /// The names whose levels differ, with what they are here and there.
    pub fn changes<'a>(
        &'a self,
        after: &'a Levels,
    ) -> impl Iterator<Item = (&'a str, Option<i64>, Option<i64>)> {
        let (mut own, mut others) = (self.iter().peekable(), after.iter().peekable());
        let rows = std::iter::from_fn(move || {
            let order = match (own.peek(), others.peek()) {
                (None, None) => return None,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(one), Some(other)) => one.0.cmp(other.0),
            };
            let one = if order.is_le() { own.next() } else { None };
            let other = if order.is_ge() { others.next() } else { None };
            let name = one.or(other)?.0;
            Some((name, one.map(|row| row.1), other.map(|row| row.1)))
        });
        rows.filter(|row| row.1 != row.2)
    }

    fn name(&self, index: usize) -> &str {
        let end = |index: usize| self.rows.get(index).map_or(0, |row| row.0 as usize);
        let start = index.checked_sub(1).map_or(0, end);
        self.names.get(start..end(index)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_changes_listed() {
        let before = Levels::new([("b", 2), ("a", 1), ("", 7), ("b", 3), ("d", 4)]);
        assert_eq!(before.iter().collect::<Vec<_>>(), [("", 7), ("a", 1), ("b", 3), ("d", 4)]);
        assert_eq!((before.get("b"), before.get("c"), before.get("")), (Some(3), None, Some(7)));
        assert!(before.contains("d") && !before.contains("e") && !Levels::default().contains(""));
        let after = Levels::new([("a", 1), ("b", 2), ("c", 5)]);
        let changes: Vec<_> = before.changes(&after).collect();
        let expected =
            [("", Some(7), None), ("b", Some(3), Some(2)), ("c", None, Some(5)), ("d", Some(4), None)];
        assert_eq!(changes, expected);
        assert_eq!(after.changes(&after).count(), 0);
    }
}
