//! Lists of which others decide how long they are.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

/// The first `N` elements of an array. What comes after them is read past and takes no memory: an element may have two bytes as
/// JSON, and many times as much as a value.
#[derive(Clone, Debug)]
pub struct AtMost<T, const N: usize>(pub Vec<T>);

impl<T, const N: usize> Default for AtMost<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for AtMost<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Elements::<T, N>(PhantomData)).map(Self)
    }
}

struct Elements<T, const N: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
    type Value = Vec<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < N {
            match elements.next_element()? {
                Some(element) => kept.push(element),
                None => return Ok(kept),
            }
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_the_first_is_read_past() {
        let read = |text: &str| serde_json::from_str::<AtMost<u8, 2>>(text).map(|list| list.0);
        assert!(read("[]").unwrap().is_empty());
        assert_eq!(read("[1, 2]").unwrap(), [1, 2]);
        assert_eq!(read(r#"[1, 2, 3, "4", [5]]"#).unwrap(), [1, 2]);
        for bad in ["", "5", "{}", "[1, \"2\"]", "[1, 2, 3", "[1, 2, x]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
