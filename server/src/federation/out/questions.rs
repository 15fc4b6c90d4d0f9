//! Questions to other servers that clients have this one ask: how many are under way at once, and whose.
//!
//! A name of a server costs nothing, and nor does a server that takes connections and is silent. Invariant: whoever asks, and whatever
//! for, so many questions are under way at once and so many wait; a part of either for each user, and less for each address that
//! nobody has signed in from. Files, which take their time, leave places to the others. What this server asks by itself, and what it
//! sends, never waits for these.

use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::RemoteError;
use crate::federation::limits::{
    QUESTIONS_FILES_PART, QUESTIONS_IN_LINE_MAX, QUESTIONS_IN_LINE_SHARES, QUESTIONS_OF_EACH_MIN,
    QUESTIONS_OF_STRANGERS_PART, QUESTIONS_SHARES,
};
use crate::federation::places::{Place, Places};
use crate::http::peer::owner;

/// On whose behalf something is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Asker {
    /// By the user's id.
    User(String),
    /// Who has not signed in, or is a guest, by the address; `None` on a unix socket.
    Stranger(Option<IpAddr>),
}

impl Asker {
    /// Who has places for all that they want: of strangers, whoever has the address. `None` on a unix socket, where one cannot be told from
    /// another.
    pub fn holder(&self) -> Option<Asker> {
        match self {
            Asker::User(_) => Some(self.clone()),
            Asker::Stranger(address) => address.map(|address| Asker::Stranger(Some(owner(address)))),
        }
    }
}

/// See the module.
pub struct Questions {
    of_users: Line<String>,
    of_strangers: Line<IpAddr>,
}

/// The place of a question; ends when it is dropped.
pub struct QuestionPlace {
    _in_line: Place,
    _of_files: Option<Place>,
    _under_way: Place,
}

/// Questions of askers of one kind.
struct Line<A> {
    in_line: Places<A>,
    /// For files, which have one of those under way besides.
    files: Places<A>,
    under_way: Places<A>,
}

impl Questions {
    /// With so many under way at once.
    pub fn new(questions_max: usize) -> Questions {
        let of_strangers = (questions_max / QUESTIONS_OF_STRANGERS_PART).max(1);
        let in_line_of_strangers = QUESTIONS_IN_LINE_MAX / QUESTIONS_OF_STRANGERS_PART;
        Questions {
            of_users: Line::new(questions_max.saturating_sub(of_strangers).max(1), QUESTIONS_IN_LINE_MAX),
            of_strangers: Line::new(of_strangers, in_line_of_strangers),
        }
    }

    /// Waits for a place, for that long at most; `is_file` for what asks for a file.
    ///
    /// Errors: `NoPlace` if there is none by then, or too many wait already.
    pub async fn place(
        &self,
        asker: &Asker,
        is_file: bool,
        time_max: Duration,
    ) -> Result<QuestionPlace, RemoteError> {
        let place = match asker {
            Asker::User(user_id) => self.of_users.take(Some(user_id.clone()), is_file, time_max).await,
            Asker::Stranger(address) => self.of_strangers.take(address.map(owner), is_file, time_max).await,
        };
        place.ok_or(RemoteError::NoPlace)
    }

    /// A place, if there is one at once.
    pub fn try_place(&self, asker: &Asker, is_file: bool) -> Option<QuestionPlace> {
        match asker {
            Asker::User(user_id) => self.of_users.try_take(Some(user_id), is_file),
            Asker::Stranger(address) => self.of_strangers.try_take(address.map(owner).as_ref(), is_file),
        }
    }
}

impl<A: Eq + Hash + Clone> Line<A> {
    fn new(under_way_max: usize, in_line_max: usize) -> Line<A> {
        let least = QUESTIONS_OF_EACH_MIN.min(under_way_max / 2).max(1);
        let of_each = (under_way_max / QUESTIONS_SHARES).max(least);
        let of_files = |places: usize| (places / QUESTIONS_FILES_PART).max(1);
        Line {
            in_line: Places::new(in_line_max, in_line_max / QUESTIONS_IN_LINE_SHARES),
            files: Places::new(of_files(under_way_max), of_files(of_each)),
            under_way: Places::new(under_way_max, of_each),
        }
    }

    async fn take(&self, asker: Option<A>, is_file: bool, time_max: Duration) -> Option<QuestionPlace> {
        let in_line = self.in_line.try_take(asker.clone())?;
        let places = async {
            let of_files = match is_file {
                true => Some(self.files.take(asker.clone()).await),
                false => None,
            };
            (of_files, self.under_way.take(asker).await)
        };
        let (of_files, under_way) = timeout(time_max, places).await.ok()?;
        Some(QuestionPlace { _in_line: in_line, _of_files: of_files, _under_way: under_way })
    }

    fn try_take(&self, asker: Option<&A>, is_file: bool) -> Option<QuestionPlace> {
        let in_line = self.in_line.try_take(asker.cloned())?;
        let of_files = if is_file { Some(self.files.try_take(asker.cloned())?) } else { None };
        let under_way = self.under_way.try_take(asker.cloned())?;
        Some(QuestionPlace { _in_line: in_line, _of_files: of_files, _under_way: under_way })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use tokio::task::unconstrained;

    use super::*;
    use crate::federation::limits::{QUESTION_WAIT_MAX, QUESTIONS_MAX};

    fn user(name: &str) -> Asker {
        Asker::User(format!("@{name}:here.example"))
    }

    fn stranger(number: u8) -> Asker {
        Asker::Stranger(Some(IpAddr::from([192, 0, 2, number])))
    }

    /// A place, if there is one at once.
    async fn at_once(questions: &Questions, asker: Asker) -> Option<QuestionPlace> {
        at_once_for(questions, asker, false).await
    }

    async fn at_once_for(questions: &Questions, asker: Asker, is_file: bool) -> Option<QuestionPlace> {
        let mut taking = pin!(unconstrained(questions.place(&asker, is_file, QUESTION_WAIT_MAX)));
        match std::future::poll_fn(|task| Poll::Ready(taking.as_mut().poll(task))).await {
            Poll::Ready(place) => place.ok(),
            Poll::Pending => None,
        }
    }

    async fn all_at_once(questions: &Questions, asker: impl Fn() -> Asker) -> Vec<QuestionPlace> {
        let mut places = Vec::new();
        while let Some(place) = at_once(questions, asker()).await {
            places.push(place);
        }
        places
    }

    #[tokio::test]
    async fn one_user_and_one_address_leave_places_to_others() {
        for questions_max in [4, 7, 14, 110, QUESTIONS_MAX] {
            let questions = Questions::new(questions_max);
            let of_strangers = all_at_once(&questions, || stranger(1)).await;
            let of_alice = all_at_once(&questions, || user("alice")).await;
            assert!(!of_strangers.is_empty() && of_strangers.len() <= questions_max / 4, "{questions_max}");
            assert!(of_strangers.len() <= of_alice.len(), "{questions_max}");
            assert!(of_alice.len() <= questions_max / 2, "{questions_max}");
            assert!(at_once(&questions, user("bob")).await.is_some(), "{questions_max}");
        }
    }

    #[tokio::test]
    async fn all_together_are_no_more_than_there_may_be() {
        let questions = Questions::new(40);
        let mut held = Vec::new();
        for number in 0..100 {
            held.extend(all_at_once(&questions, || user(&number.to_string())).await);
            held.extend(all_at_once(&questions, || stranger(number)).await);
        }
        assert_eq!(held.len(), 40);
        assert!(at_once(&questions, Asker::Stranger(None)).await.is_none());
        drop(held);
        assert!(at_once(&questions, Asker::Stranger(None)).await.is_some());
    }

    #[tokio::test]
    async fn files_leave_places_to_other_questions() {
        for questions_max in [8, 40, 110, QUESTIONS_MAX] {
            let questions = Questions::new(questions_max);
            let (mut held, mut users) = (Vec::new(), 0);
            // Of whoever comes, until nobody gets a place any more.
            loop {
                let mut files = Vec::new();
                while let Some(place) = at_once_for(&questions, user(&users.to_string()), true).await {
                    files.push(place);
                }
                if files.is_empty() {
                    break;
                }
                held.extend(files);
                users += 1;
            }
            assert!(!held.is_empty() && held.len() <= questions_max / 2, "{questions_max}");
            assert!(at_once(&questions, user("0")).await.is_some(), "{questions_max}: who asked for files");
            assert!(at_once(&questions, user("bob")).await.is_some(), "{questions_max}");
        }
    }

    #[tokio::test]
    async fn who_does_not_wait_gets_what_is_free() {
        let questions = Questions::new(40);
        for (asker, other) in [(user("alice"), user("bob")), (stranger(1), stranger(2))] {
            let files: Vec<_> = std::iter::from_fn(|| questions.try_place(&asker, true)).collect();
            let others: Vec<_> = std::iter::from_fn(|| questions.try_place(&asker, false)).collect();
            assert!(!files.is_empty() && !others.is_empty(), "{asker:?}");
            assert!(at_once(&questions, asker.clone()).await.is_none(), "they are places like any others");
            assert!(questions.try_place(&other, true).is_some(), "{other:?}");
            drop(files);
            assert!(questions.try_place(&asker, true).is_some(), "{asker:?}");
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let line = Line::new(1, QUESTIONS_IN_LINE_SHARES);
        let held = line.take(Some("alice"), false, Duration::MAX).await;
        assert!(held.is_some() && line.take(Some("bob"), false, Duration::from_millis(1)).await.is_none());
        drop(held);
        assert!(
            line.take(Some("bob"), false, Duration::MAX).await.is_some(),
            "nothing is left of who waited"
        );
    }

    #[tokio::test]
    async fn a_client_that_comes_into_a_large_room_asks_for_all_keys() {
        // Twenty queries at once, for 250 users each.
        const QUERIES: usize = 20 * 250;
        let questions = Questions::new(QUESTIONS_MAX);
        let asker = user("alice");
        let mut waiting: Vec<_> = (0..QUERIES)
            .map(|_| Box::pin(unconstrained(questions.place(&asker, false, QUESTION_WAIT_MAX))))
            .collect();
        let mut asked = 0;
        while !waiting.is_empty() {
            let (mut held, mut still_waiting) = (Vec::new(), Vec::new());
            for mut taking in waiting {
                match std::future::poll_fn(|task| Poll::Ready(taking.as_mut().poll(task))).await {
                    Poll::Ready(place) => held.push(place.expect("it may wait for its turn")),
                    Poll::Pending => still_waiting.push(taking),
                }
            }
            assert!(!held.is_empty(), "{} wait for nobody", still_waiting.len());
            asked += held.len();
            waiting = still_waiting;
        }
        assert_eq!(asked, QUERIES);
    }

    #[tokio::test]
    async fn eight_who_have_all_waiting_that_they_may_keep_no_other_out() {
        async fn place(questions: &Questions, asker: Asker) -> Result<QuestionPlace, RemoteError> {
            questions.place(&asker, false, QUESTION_WAIT_MAX).await
        }
        let questions = Questions::new(QUESTIONS_MAX);
        let of_each = QUESTIONS_IN_LINE_MAX / QUESTIONS_IN_LINE_SHARES;
        let mut waiting = Vec::new();
        for number in 0..9 {
            for _ in 0..of_each {
                let mut taking = Box::pin(unconstrained(place(&questions, user(&number.to_string()))));
                let polled = std::future::poll_fn(|task| Poll::Ready(taking.as_mut().poll(task))).await;
                assert!(!matches!(polled, Poll::Ready(Err(_))), "{number} may ask as much as the others");
                waiting.push((taking, polled));
            }
        }
    }

    #[tokio::test]
    async fn who_has_too_many_waiting_is_refused_at_once() {
        let questions = Questions::new(2);
        let asker = user("alice");
        let mut waiting = Vec::new();
        for _ in 0..QUESTIONS_IN_LINE_MAX / QUESTIONS_IN_LINE_SHARES {
            let mut taking = Box::pin(unconstrained(questions.place(&asker, false, QUESTION_WAIT_MAX)));
            let polled = std::future::poll_fn(|task| Poll::Ready(taking.as_mut().poll(task))).await;
            waiting.push((taking, polled));
        }
        let mut one_more = pin!(unconstrained(questions.place(&asker, false, QUESTION_WAIT_MAX)));
        let polled = std::future::poll_fn(|task| Poll::Ready(one_more.as_mut().poll(task))).await;
        assert!(matches!(polled, Poll::Ready(Err(RemoteError::NoPlace))));
        assert_eq!(waiting.iter().filter(|(_, polled)| polled.is_ready()).count(), 1);
    }
}
