//! Passwords: argon2id hashes in the PHC format, made and checked off the request threads.
//!
//! A check takes the same time whether the account exists or not, and only a few run at once: each needs as much
//! memory as `password_hash_cost` says.

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
    /// The hash of nobody's password, checked against where there is no account.
    nobody: String,
    at_once: Arc<Semaphore>,
}

impl Passwords {
    /// Errors: the cost is out of argon2's bounds, or the system has no randomness.
    pub fn new(config: &Config) -> Result<Passwords, String> {
        let params = Params::new(config.password_hash_memory_kib(), PASSES, 1, None);
        let params = params.map_err(|error| error.to_string())?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = hash(&argon2, "")?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Passwords { argon2, nobody, at_once: Arc::new(Semaphore::new(processors)) })
    }

    /// The hash to store for a password, with a fresh salt. Errors: a sentence; the system failed.
    pub async fn hash(&self, password: String) -> Result<String, String> {
        let argon2 = self.argon2.clone();
        self.run(move || hash(&argon2, &password)).await?
    }

    /// Whether the password is the one that was hashed. `stored` is `None` where there is no account or it has no
    /// password: that takes as long and is false. Errors: the stored hash is damaged, or the system failed.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, String> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let (argon2, exists) = (self.argon2.clone(), stored.is_some());
        let stored = stored.unwrap_or_else(|| self.nobody.clone());
        self.run(move || {
            let stored =
                PasswordHash::new(&stored).map_err(|error| format!("a stored hash is damaged: {error}"))?;
            Ok(argon2.verify_password(password.as_bytes(), &stored).is_ok() && exists)
        })
        .await?
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

fn hash(argon2: &Argon2<'static>, password: &str) -> Result<String, String> {
    argon2.hash_password(password.as_bytes()).map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::{add_flags, defaults};

    fn passwords() -> Passwords {
        let mut raw = defaults();
        add_flags(&mut raw, [("password_hash_cost", vec!["1".to_owned()])]);
        Passwords::new(&Config::from_raw(&raw).expect("valid")).expect("within bounds")
    }

    #[tokio::test]
    async fn only_the_right_password_of_an_account() {
        let passwords = passwords();
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
        let passwords = passwords();
        let first = passwords.hash("a".to_owned()).await;
        assert_ne!(first, passwords.hash("a".to_owned()).await);
    }
}
