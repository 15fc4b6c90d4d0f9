//! How many elements the lists of an answer have, counted as it comes: each takes memory beside its text once it is read, which
//! is many times that of a text of one byte.

/// Lists stand in the object that an answer is.
const DEPTH: usize = 2;

/// Or in that which stands in an array behind the status, as the oldest endpoints answer.
const DEPTH_IN_ARRAY: usize = 3;

/// Where in the answer it is.
#[derive(Clone, Copy, Default)]
enum At {
    #[default]
    Value,
    Text,
    /// Behind a backslash in a text.
    Escape,
}

/// Counts the commas between elements. What lies deeper is not told apart when an answer is read, and takes no more than its
/// text.
#[derive(Default)]
pub struct Elements {
    at: At,
    depth: usize,
    depth_max: usize,
}

impl Elements {
    /// How many elements end in the next piece of the answer; those that end a list are not counted.
    pub fn count(&mut self, piece: &[u8]) -> usize {
        let mut count = 0;
        for byte in piece {
            self.at = match (self.at, byte) {
                (At::Text, b'\\') => At::Escape,
                (At::Text, b'"') => At::Value,
                (At::Text | At::Escape, _) | (At::Value, b'"') => At::Text,
                (At::Value, b'[' | b'{') => {
                    if self.depth == 0 {
                        self.depth_max = if *byte == b'[' { DEPTH_IN_ARRAY } else { DEPTH };
                    }
                    self.depth += 1;
                    At::Value
                }
                (At::Value, b']' | b'}') => {
                    self.depth = self.depth.saturating_sub(1);
                    At::Value
                }
                (At::Value, b',') => {
                    count += usize::from(self.depth <= self.depth_max);
                    At::Value
                }
                (At::Value, _) => At::Value,
            };
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_counted_whatever_is_in_them() {
        for (answer, expected) in [
            (r#"{"pdus":[1,1,1,1]}"#, 3),
            // One between two members of the object, and one in the second list.
            (r#"{"pdu_ids":["$a"],"auth_chain_ids":["",""]}"#, 2),
            (r#"{"pdus":[{"a":[1,2],"b":"x,y"},{"c":1,"d":2}]}"#, 1),
            (r#"{"pdus":["\",[{\\",",","\\\"[",1]}"#, 3),
            (r#"  [200,{"state":[{"a":1,"b":2},2,3],"auth_chain":[]}]"#, 4),
            // An object may be written as the array of its members.
            ("[[1,1,1],[1,1]]", 4),
            ("]],{", 1),
            ("", 0),
        ] {
            assert_eq!(Elements::default().count(answer.as_bytes()), expected, "{answer}");
            let mut elements = Elements::default();
            let in_pieces: usize = answer.as_bytes().chunks(1).map(|piece| elements.count(piece)).sum();
            assert_eq!(in_pieces, expected, "{answer} byte by byte");
        }
    }
}
