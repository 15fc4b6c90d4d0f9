//! Rate limits: a token bucket per sender and rate class.
//!
//! A sender is a user, or an address where nobody is logged in. A bucket that has filled up again says nothing and is
//! swept away, so memory follows the senders of the last minutes and is bounded.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use dashmap::DashMap;

use super::ApiError;
use super::limits::{BUCKETS_MAX, allowance};
use super::peer::owner;
use super::route::Rate;
use super::session::Session;

/// The buckets of all senders.
pub struct RateLimits {
    /// `None` if rate limits are off.
    buckets: Option<Buckets>,
    /// Of what other servers leave behind here, which is limited in any case.
    lasting: Buckets,
    hasher: RandomState,
    start: Instant,
}

type Buckets = DashMap<(u64, Rate), Bucket>;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f32,
    /// Seconds since `start` when `tokens` was right.
    at: f64,
}

impl RateLimits {
    pub fn new(enabled: bool) -> RateLimits {
        let (buckets, lasting) = (enabled.then(DashMap::new), DashMap::new());
        RateLimits { buckets, lasting, hasher: RandomState::new(), start: Instant::now() }
    }

    /// Takes a token. Errors: 429 with the time until there is one again.
    pub fn take(
        &self,
        rate: Rate,
        session: Option<&Session>,
        address: Option<IpAddr>,
    ) -> Result<(), ApiError> {
        let Some(buckets) = &self.buckets else { return Ok(()) };
        let sender = match (session, address) {
            (Some(session), _) => self.hasher.hash_one(&session.user_id),
            (None, Some(address)) => self.hasher.hash_one(owner(address)),
            (None, None) => return Ok(()),
        };
        self.take_at(buckets, sender, rate, self.start.elapsed().as_secs_f64())
    }

    /// Gives a token back to an address, for what turned out not to count.
    pub fn give_back(&self, rate: Rate, address: Option<IpAddr>) {
        let (Some(buckets), Some(address), Some(allowed)) = (&self.buckets, address, allowance(rate)) else {
            return;
        };
        if let Some(mut bucket) = buckets.get_mut(&(self.hasher.hash_one(owner(address)), rate)) {
            bucket.tokens = (bucket.tokens + 1.0).min(allowed.burst);
        }
    }

    /// Takes a token for a try of the password of an account, from wherever it comes. Errors: 429 as above.
    pub fn take_for_account(&self, user_id: &str) -> Result<(), ApiError> {
        let Some(buckets) = &self.buckets else { return Ok(()) };
        // Apart from what the user's own sessions send.
        let account = self.hasher.hash_one(("password", user_id));
        self.take_at(buckets, account, Rate::Login, self.start.elapsed().as_secs_f64())
    }

    /// Takes a token for a request of a user who proves it otherwise than by a session. Errors: 429 as above.
    pub fn take_for_user(&self, rate: Rate, user_id: &str) -> Result<(), ApiError> {
        let Some(buckets) = &self.buckets else { return Ok(()) };
        let user = self.hasher.hash_one(("user", user_id));
        self.take_at(buckets, user, rate, self.start.elapsed().as_secs_f64())
    }

    /// Takes a token for a request that is signed by a server. Errors: 429 as above.
    pub fn take_for_server(&self, rate: Rate, server_name: &str) -> Result<(), ApiError> {
        let Some(buckets) = &self.buckets else { return Ok(()) };
        let server = self.hasher.hash_one(("server", server_name));
        self.take_at(buckets, server, rate, self.start.elapsed().as_secs_f64())
    }

    /// Takes a token for an invite by a server, also if rate limits are off. Errors: 429 as above.
    pub fn take_for_inviting(&self, server_name: &str) -> Result<(), ApiError> {
        let server = self.hasher.hash_one(("inviting", server_name));
        self.take_at(&self.lasting, server, Rate::Inviting, self.start.elapsed().as_secs_f64())
    }

    /// The same for the user who is invited, by whatever server.
    pub fn take_for_invited(&self, user_id: &str) -> Result<(), ApiError> {
        let user = self.hasher.hash_one(("invited", user_id));
        self.take_at(&self.lasting, user, Rate::Invited, self.start.elapsed().as_secs_f64())
    }

    /// Gives the token back, for an invite that the user is not shown.
    pub fn give_back_invited(&self, user_id: &str) {
        let user = self.hasher.hash_one(("invited", user_id));
        if let (Some(mut bucket), Some(allowed)) =
            (self.lasting.get_mut(&(user, Rate::Invited)), allowance(Rate::Invited))
        {
            bucket.tokens = (bucket.tokens + 1.0).min(allowed.burst);
        }
    }

    fn take_at(&self, buckets: &Buckets, sender: u64, rate: Rate, now: f64) -> Result<(), ApiError> {
        let Some(allowed) = allowance(rate) else { return Ok(()) };
        let mut bucket = buckets.entry((sender, rate)).or_insert(Bucket { tokens: allowed.burst, at: now });
        let refill = (now - bucket.at).max(0.0) * f64::from(allowed.per_second);
        bucket.tokens = (bucket.tokens + refill as f32).min(allowed.burst);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - bucket.tokens) / allowed.per_second;
        Err(ApiError::limit_exceeded((seconds * 1000.0).ceil() as u64))
    }

    /// Forgets the buckets that are full again; all, if there are still too many.
    pub fn sweep(&self) {
        let now = self.start.elapsed().as_secs_f64();
        for buckets in self.buckets.iter().chain([&self.lasting]) {
            buckets.retain(|(_, rate), bucket| {
                allowance(*rate).is_some_and(|allowed| {
                    f64::from(bucket.tokens) + (now - bucket.at) * f64::from(allowed.per_second)
                        < f64::from(allowed.burst)
                })
            });
            if buckets.len() > BUCKETS_MAX {
                buckets.clear();
                buckets.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_sustained_rate() {
        let limits = RateLimits::new(true);
        let buckets = limits.buckets.as_ref().expect("on");
        let take = |sender, now| limits.take_at(buckets, sender, Rate::Login, now);
        for _ in 0..10 {
            assert!(take(1, 0.0).is_ok());
        }
        let refused = take(1, 0.0).expect_err("the burst is used up");
        assert_eq!((refused.status.as_u16(), refused.retry_after_ms()), (429, Some(5000)));
        assert!(take(2, 0.0).is_ok(), "another sender has his own bucket");
        assert!(take(1, 4.9).is_err());
        assert!(take(1, 5.1).is_ok());
        assert!(take(1, 5.1).is_err());
    }

    #[test]
    fn what_is_given_back_does_not_count() {
        let limits = RateLimits::new(true);
        let address = Some("1.1.1.1".parse().expect("an address"));
        for _ in 0..1000 {
            limits.take(Rate::Unproven, None, address).expect("nothing has counted");
            limits.give_back(Rate::Unproven, address);
        }
        let taken = (0..1000).take_while(|_| limits.take(Rate::Unproven, None, address).is_ok()).count();
        assert!((300..310).contains(&taken), "{taken}");
    }

    #[test]
    fn invites_are_limited_by_server_and_by_user_even_if_rate_limits_are_off() {
        let limits = RateLimits::new(false);
        let taken = (0..1000).take_while(|_| limits.take_for_inviting("there.example").is_ok()).count();
        assert!((300..310).contains(&taken), "{taken}");
        assert!(limits.take_for_inviting("other.example").is_ok());
        let taken = (0..1000).take_while(|_| limits.take_for_invited("@a:here.example").is_ok()).count();
        assert!((150..153).contains(&taken), "{taken}");
        assert!(limits.take_for_invited("@b:here.example").is_ok());
        limits.give_back_invited("@a:here.example");
        assert!(limits.take_for_invited("@a:here.example").is_ok());
    }

    #[test]
    fn off_is_off_and_full_buckets_are_swept() {
        let address = Some("1.1.1.1".parse().expect("an address"));
        let off = RateLimits::new(false);
        assert!((0..1000).all(|_| off.take(Rate::Login, None, address).is_ok()));
        let on = RateLimits::new(true);
        on.take(Rate::Register, None, address).expect("the first");
        on.sweep();
        let buckets = on.buckets.as_ref().expect("on");
        assert_eq!(buckets.len(), 1, "one token is missing for ten seconds");
        buckets.iter_mut().for_each(|mut bucket| bucket.at -= 20.0);
        on.sweep();
        assert_eq!(buckets.len(), 0);
    }
}
