//! Answers with many events in them, read from the engine while they are sent: the state of a large room is never held
//! at once.

use std::sync::Arc;

use bytes::Bytes;
use warren_engine::view::federation::{EventIds, PduList, Pdus, Piece};

use super::room_answers::RoomPlace;
use crate::context::Context;
use crate::http::Answer;

/// A member of the object that is answered.
pub enum Part {
    /// JSON that is at hand.
    Json(Bytes),
    /// The events of a list.
    Pdus(PduList),
    /// Their ids.
    Ids(PduList),
}

/// An object of these members, between `before` and `after`. Its place is free when it is written, or nobody is there to take it.
pub fn answer(
    ctx: &Arc<Context>,
    place: RoomPlace,
    before: &'static str,
    parts: Vec<(&'static str, Part)>,
    after: &'static str,
) -> Answer {
    let mut texts: Vec<Text> = vec![Text::Ready(format!("{before}{{").into())];
    for (index, (name, part)) in parts.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        match part {
            Part::Json(json) => {
                texts.push(Text::Ready(format!("{comma}\"{name}\":").into()));
                texts.push(Text::Ready(json));
            }
            part => {
                texts.push(Text::Ready(format!("{comma}\"{name}\":[").into()));
                texts.push(Text::List { part, from: 0 });
                texts.push(Text::Ready(Bytes::from_static(b"]")));
            }
        }
    }
    texts.push(Text::Ready(format!("}}{after}").into()));
    texts.reverse();
    Answer::json_pieces(Box::new(Pieces { ctx: ctx.clone(), place: Arc::new(place), texts }))
}

/// What is still to be sent.
enum Text {
    Ready(Bytes),
    /// A list from this index on.
    List {
        part: Part,
        from: usize,
    },
}

struct Pieces {
    ctx: Arc<Context>,
    place: Arc<RoomPlace>,
    /// The next one last.
    texts: Vec<Text>,
}

impl Iterator for Pieces {
    type Item = std::io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (part, from) = match self.texts.pop()? {
                Text::Ready(text) => return Some(Ok(text)),
                Text::List { part, from } => (part, from),
            };
            let read = match &part {
                Part::Json(_) => continue,
                Part::Pdus(list) => self
                    .ctx
                    .engine
                    .read(&Pdus { list, from })
                    .map(|piece| joined(piece, from, "", Bytes::as_ref)),
                Part::Ids(list) => self
                    .ctx
                    .engine
                    .read(&EventIds { list, from })
                    .map(|piece| joined(piece, from, "\"", |id| id.as_bytes())),
            };
            match read {
                Ok((text, next)) => {
                    self.texts.extend(next.map(|from| Text::List { part, from }));
                    if !text.is_empty() {
                        let held = Held { text, _place: self.place.clone() };
                        return Some(Ok(Bytes::from_owner(held)));
                    }
                }
                Err(error) => {
                    self.texts.clear();
                    return Some(Err(std::io::Error::other(error)));
                }
            }
        }
    }
}

/// The text of a piece. HTTP/2 may hold it unsent when all pieces have been handed over: it has the answer's place until then.
struct Held {
    text: Vec<u8>,
    _place: Arc<RoomPlace>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// The items with commas before all but the first of the list. Event ids need no escapes.
fn joined<T>(
    piece: Piece<T>,
    from: usize,
    quote: &str,
    bytes: impl Fn(&T) -> &[u8],
) -> (Vec<u8>, Option<usize>) {
    let length: usize = piece.items.iter().map(|item| bytes(item).len() + 3).sum();
    let mut text = Vec::with_capacity(length);
    for (index, item) in piece.items.iter().enumerate() {
        if from + index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(quote.as_bytes());
        text.extend_from_slice(bytes(item));
        text.extend_from_slice(quote.as_bytes());
    }
    (text, piece.next)
}
