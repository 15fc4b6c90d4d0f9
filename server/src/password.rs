//! Passwords: argon2id hashes in the PHC format, made and checked off the request threads.
//!
//! A check that lets nobody in takes as long as one of the costliest hash that is stored, whether the account exists or not
//! and whatever its own hash costs. Only a few run at once: each needs as much memory as that hash.

use std::collections::BTreeSet;
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::config::Config;

/// Passes over the memory: with 19 MiB the figure that OWASP recommends.
const PASSES: u32 = 2;

/// Longest password that is hashed, in bytes; beyond it the hash of the input alone would be work for nothing.
pub const PASSWORD_BYTES_MAX: usize = 4096;

/// Makes and checks hashes with the configured cost.
pub struct Passwords {
    argon2: Argon2<'static>,
    /// What the costliest hash that may be stored is made with.
    dearest: Params,
    at_once: Arc<Semaphore>,
}

impl Passwords {
    /// `stored` is what the stored passwords are hashed with: what stands in their hashes before the salt. Costs that come
    /// later are the configured one.
    ///
    /// Errors: the cost is out of argon2's bounds.
    pub fn new(config: &Config, stored: &BTreeSet<String>) -> Result<Passwords, String> {
        let argon2 = argon2(config.password_hash_memory_kib(), PASSES)?;
        let stored = stored.iter().filter_map(|hash| params(hash).ok());
        let dearest = stored.fold(argon2.params().clone(), |dearest, params| {
            if work(&params) > work(&dearest) { params } else { dearest }
        });
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Passwords { argon2, dearest, at_once: Arc::new(Semaphore::new(processors)) })
    }

    /// The hash to store for a password, with a fresh salt. Errors: a sentence; the system failed.
    pub async fn hash(&self, password: String) -> Result<String, String> {
        let argon2 = self.argon2.clone();
        self.run(move || {
            let hash = argon2.hash_password(password.as_bytes());
            hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
        })
        .await?
    }

    /// Whether the password is the one that was hashed. `stored` is `None` where there is no account or it has no
    /// password: that takes as long as a wrong password, and is false. Errors: the stored hash is damaged, or the system
    /// failed.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, String> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let (argon2, dearest) = (self.argon2.clone(), self.dearest.clone());
        self.run(move || {
            let mut done = 0;
            if let Some(stored) = stored {
                let hash = PasswordHash::new(&stored).map_err(damaged)?;
                if argon2.verify_password(password.as_bytes(), &hash).is_ok() {
                    return Ok(true);
                }
                done = work(&params(&stored)?);
            }
            if let Some((memory_kib, passes)) = rest(&dearest, done) {
                idle(memory_kib, passes, &password)?;
            }
            Ok(false)
        })
        .await?
    }

    /// Whether a stored hash was made with another cost than those that are made today.
    pub fn is_outdated(&self, stored: &str) -> bool {
        params(stored).is_ok_and(|params| work(&params) != work(self.argon2.params()))
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let permit = self.at_once.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let work = move || {
            let done = work();
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
    }
}

/// Argon2id over that much memory.
fn argon2(memory_kib: u32, passes: u32) -> Result<Argon2<'static>, String> {
    let params = Params::new(memory_kib, passes, 1, None).map_err(|error| error.to_string())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// What a hash was made with, or is to be: what stands behind it may be left out.
fn params(hash: &str) -> Result<Params, String> {
    let hash = PasswordHash::new(hash).map_err(damaged)?;
    Params::try_from(&hash).map_err(damaged)
}

fn damaged(error: impl std::fmt::Display) -> String {
    format!("a stored hash is damaged: {error}")
}

/// How much a hash costs, in KiB that are passed over: the time that it takes goes by that.
fn work(params: &Params) -> u64 {
    u64::from(params.m_cost()) * u64::from(params.t_cost())
}

/// The memory in KiB and the passes that take as long as what the dearest hash costs beyond the work that is done; nothing if
/// that takes no time that could be told. The passes are those of the dearest: the same work in less memory and more passes
/// stays in the processor's cache, and is done in half the time.
fn rest(dearest: &Params, done: u64) -> Option<(u32, u32)> {
    let passes = dearest.t_cost();
    let memory_kib = u32::try_from(work(dearest).saturating_sub(done) / u64::from(passes)).ok()?;
    (memory_kib >= Params::MIN_M_COST).then_some((memory_kib, passes))
}

/// Makes a hash for nothing.
fn idle(memory_kib: u32, passes: u32, password: &str) -> Result<(), String> {
    let (salt, mut hash) = ([0_u8; 16], [0_u8; Params::DEFAULT_OUTPUT_LEN]);
    let argon2 = argon2(memory_kib, passes)?;
    argon2.hash_password_into(password.as_bytes(), &salt, &mut hash).map_err(|error| error.to_string())?;
    std::hint::black_box(hash);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::{add_flags, defaults};

    fn passwords(cost: &str, stored: &[&str]) -> Passwords {
        let mut raw = defaults();
        add_flags(&mut raw, [("password_hash_cost", vec![cost.to_owned()])]);
        let stored = stored.iter().map(|hash| (*hash).to_owned()).collect();
        Passwords::new(&Config::from_raw(&raw).expect("valid"), &stored).expect("within bounds")
    }

    #[tokio::test]
    async fn only_the_right_password_of_an_account() {
        let passwords = passwords("1", &[]);
        let stored = passwords.hash("correct horse".to_owned()).await.expect("hashed");
        assert!(stored.starts_with("$argon2id$v=19$m=152,t=2,p=1$"), "{stored}");
        let verify = async |password: &str, stored| passwords.verify(password.to_owned(), stored).await;
        assert_eq!(verify("correct horse", Some(stored.clone())).await, Ok(true));
        assert_eq!(verify("wrong horse", Some(stored.clone())).await, Ok(false));
        assert_eq!(verify(&"x".repeat(PASSWORD_BYTES_MAX + 1), Some(stored)).await, Ok(false));
        assert_eq!(verify("", None).await, Ok(false), "nobody's password opens nothing");
        assert!(verify("a", Some("garbage".to_owned())).await.is_err());
    }

    #[tokio::test]
    async fn the_same_password_twice_is_two_hashes() {
        let passwords = passwords("1", &[]);
        let first = passwords.hash("a".to_owned()).await;
        assert_ne!(first, passwords.hash("a".to_owned()).await);
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_is_good_until_it_is_made_anew() {
        let (cheap, dear) = (passwords("1", &[]), passwords("2", &[]));
        let stored = cheap.hash("correct horse".to_owned()).await.expect("hashed");
        assert!(!cheap.is_outdated(&stored) && dear.is_outdated(&stored));
        for passwords in [cheap, dear] {
            assert_eq!(passwords.verify("correct horse".to_owned(), Some(stored.clone())).await, Ok(true));
            assert_eq!(passwords.verify("wrong horse".to_owned(), Some(stored.clone())).await, Ok(false));
        }
    }

    #[test]
    fn what_is_stored_at_a_higher_cost_is_what_a_refusal_costs() {
        let (cheap, dear) = ("$argon2id$v=19$m=152,t=2,p=1", "$argon2id$v=19$m=19456,t=2,p=1");
        let dearest = |cost, stored: &[&str]| passwords(cost, stored).dearest;
        let of_a_stranger = |params: &Params| rest(params, 0);
        assert_eq!(of_a_stranger(&dearest("1", &[])), Some((152, 2)));
        // In as much memory, too.
        assert_eq!(of_a_stranger(&dearest("1", &[cheap, dear, "garbage"])), Some((19_456, 2)));
        assert_eq!(of_a_stranger(&dearest("8", &[cheap])), Some((19_456, 2)));
    }

    #[test]
    fn a_cheaper_hash_costs_what_lacks_besides() {
        let dearest = passwords("8", &[]).dearest;
        let done = |memory_kib: u64| rest(&dearest, 2 * memory_kib);
        assert_eq!(done(152), Some((19_456 - 152, 2)));
        assert_eq!(done(9_728), Some((9_728, 2)));
        assert_eq!((done(19_456), done(20_000)), (None, None));
    }
}
