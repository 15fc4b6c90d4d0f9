//! Glob patterns, compiled once: `*` for any characters, `?` for exactly one.
//!
//! Invariant: matching compares each place of the value with each part of the pattern at most once; nothing backtracks,
//! so the time is at most value times pattern length, and linear in the value for a whole match without `?`.
//! Not here: letter case (callers lower both sides), limits on patterns (each caller has its own).
//!
//! Specification: "Glob-style matching" of the appendices.

/// Which characters of a pattern are wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wildcards {
    /// Only `*`: the event types of filters.
    Star,
    /// `*` and `?`: push rules and server access control lists.
    StarAndQuestionMark,
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// What stands between the `*`s. The first begins the value and the last ends it; either may be empty, those between
    /// are not.
    segments: Box<[Segment]>,
}

/// A part of a pattern without `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    text: Box<str>,
    /// Whether `?` in `text` is a wildcard and there is one.
    has_question_mark: bool,
}

impl Glob {
    /// Compiles a pattern; every string is one.
    pub fn new(pattern: &str, wildcards: Wildcards) -> Self {
        let parts: Vec<&str> = pattern.split('*').collect();
        let last = parts.len() - 1;
        let is_used = |index: usize, part: &str| index == 0 || index == last || !part.is_empty();
        let segments = parts.iter().enumerate().filter(|(index, part)| is_used(*index, part));
        let segments = segments.map(|(_, part)| Segment {
            text: (*part).into(),
            has_question_mark: wildcards == Wildcards::StarAndQuestionMark && part.contains('?'),
        });
        Glob { segments: segments.collect() }
    }

    /// A pattern without wildcards, whatever characters it holds.
    pub fn exact(text: &str) -> Self {
        Glob { segments: [Segment { text: text.into(), has_question_mark: false }].into() }
    }

    /// Whether every value matches.
    pub fn is_everything(&self) -> bool {
        matches!(&*self.segments, [first, last] if first.text.is_empty() && last.text.is_empty())
    }

    /// Whether the whole of `value` matches.
    pub fn matches(&self, value: &str) -> bool {
        let Some((first, rest)) = self.segments.split_first() else { return false };
        let Some(position) = first.end_at(value, 0) else { return false };
        let Some((last, between)) = rest.split_last() else { return position == value.len() };
        let Some(position) = find_all(between, value, position) else { return false };
        last.start_of_suffix(value).is_some_and(|start| start >= position)
    }

    /// Whether any part of `value` that starts and ends at a word boundary matches: the start or end of the value, or
    /// beside a character that is not in `[A-Za-z0-9_]`. The empty pattern matches the empty value alone.
    ///
    /// Specification: `content.body` in "Conditions" of the push notifications module.
    pub fn matches_words(&self, value: &str) -> bool {
        let Some((first, rest)) = self.segments.split_first() else { return false };
        let Some((last, between)) = rest.split_last() else {
            if first.text.is_empty() {
                return value.is_empty();
            }
            return first.find(value, 0, Bounds { start: true, end: true }).is_some();
        };
        // The first place that fits leaves the most room for the rest, so no other needs to be tried.
        let position = first.find(value, 0, Bounds { start: true, end: false });
        let position = position.and_then(|position| find_all(between, value, position));
        position.is_some_and(|position| {
            last.text.is_empty() || last.find(value, position, Bounds { start: false, end: true }).is_some()
        })
    }
}

/// Where a match has to be at a word boundary.
#[derive(Clone, Copy, Default, PartialEq)]
struct Bounds {
    start: bool,
    end: bool,
}

/// Finds the segments in `value` from `position` on, one after the other; the end of the last.
fn find_all(segments: &[Segment], value: &str, mut position: usize) -> Option<usize> {
    for segment in segments {
        position = segment.find(value, position, Bounds::default())?;
    }
    Some(position)
}

impl Segment {
    /// The end of the match that starts at `start`.
    fn end_at(&self, value: &str, start: usize) -> Option<usize> {
        let rest = value.get(start..)?;
        if !self.has_question_mark {
            return rest.starts_with(&*self.text).then_some(start + self.text.len());
        }
        let mut characters = rest.chars();
        for wanted in self.text.chars() {
            let found = characters.next()?;
            if wanted != '?' && wanted != found {
                return None;
            }
        }
        Some(value.len() - characters.as_str().len())
    }

    /// The end of the first match at or after `position` that is within `bounds`.
    fn find(&self, value: &str, position: usize, bounds: Bounds) -> Option<usize> {
        if bounds == Bounds::default() && !self.has_question_mark {
            let start = position + value.get(position..)?.find(&*self.text)?;
            return Some(start + self.text.len());
        }
        let mut start = position;
        loop {
            if (!bounds.start || is_boundary(value, start))
                && let Some(end) = self.end_at(value, start)
                && (!bounds.end || is_boundary(value, end))
            {
                return Some(end);
            }
            start += value.get(start..)?.chars().next()?.len_utf8();
        }
    }

    /// The start of the match that ends at the end of `value`.
    fn start_of_suffix(&self, value: &str) -> Option<usize> {
        if !self.has_question_mark {
            return value.ends_with(&*self.text).then(|| value.len() - self.text.len());
        }
        let (start, _) = value.char_indices().nth_back(self.text.chars().count().checked_sub(1)?)?;
        self.end_at(value, start).map(|_| start)
    }
}

/// Whether `position` is at the start or end of `value` or beside a character that is not part of a word.
fn is_boundary(value: &str, position: usize) -> bool {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let before = position.checked_sub(1).and_then(|before| value.as_bytes().get(before));
    !(is_word(before) && is_word(value.as_bytes().get(position)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Glob, Wildcards};

    fn full(pattern: &str) -> Glob {
        Glob::new(pattern, Wildcards::StarAndQuestionMark)
    }

    /// The definition, word for word, in exponential time.
    fn naive(pattern: &[char], value: &[char]) -> bool {
        match (pattern, value) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=value.len()).any(|skip| naive(rest, &value[skip..])),
            (['?', rest @ ..], [_, after @ ..]) => naive(rest, after),
            ([wanted, rest @ ..], [found, after @ ..]) => wanted == found && naive(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn is_what_the_specification_defines(pattern in "[ab_ é*?]{0,6}", value in "[ab_ é]{0,8}") {
            let glob = full(&pattern);
            let characters: Vec<char> = pattern.chars().collect();
            let whole: Vec<char> = value.chars().collect();
            prop_assert_eq!(glob.matches(&value), naive(&characters, &whole));

            let is_word = |index: usize| whole.get(index).is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_');
            let is_boundary = |at: usize| at == 0 || at == whole.len() || !is_word(at - 1) || !is_word(at);
            let words = (0..=whole.len()).any(|start| {
                (start..=whole.len())
                    .any(|end| is_boundary(start) && is_boundary(end) && naive(&characters, &whole[start..end]))
            });
            let expected = if pattern.is_empty() { value.is_empty() } else { words };
            prop_assert_eq!(glob.matches_words(&value), expected);
        }
    }

    #[test]
    fn a_question_mark_is_literal_where_only_stars_count() {
        let glob = Glob::new("m.?*", Wildcards::Star);
        assert!(glob.matches("m.?x"));
        assert!(!glob.matches("m.room"));
        assert!(Glob::new("**", Wildcards::Star).is_everything());
    }

    #[test]
    fn hostile_patterns_end() {
        let value = "a".repeat(65_536);
        assert!(!full(&format!("{}b", "*a".repeat(120))).matches(&value));
        assert!(!full(&format!("{}b", "a*".repeat(120))).matches_words(&value));
        assert!(full(&"?*".repeat(120)).matches(&value));
    }
}
