//! Passwords: argon2id, 19 MiB, two passes. Hashing is bounded, so that a storm of log-ins costs a known
//! share of the machine and the rest is told to come back.

use anyhow::Context as _;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::auth::hashers::Hashers;
use crate::checks::Checks;
use crate::error::ApiError;

/// Longer ones are refused before they are hashed.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Shorter ones are not accepted as new passwords.
pub const PASSWORD_CHARS_MIN: usize = 10;
/// A new password must look as if it took so many guesses, as a power of ten: beyond the lists of common ones, names,
/// dates, rows of keys, and what is made of them.
const GUESSES_LOG10_MIN: f64 = 8.0;
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const AT_ONCE: usize = 2;
const WAITING_MAX: usize = 50;
/// PINs have places of their own, so that a storm of log-ins keeps no cashier waiting.
const PINS_AT_ONCE: usize = 1;
const PINS_WAITING_MAX: usize = 20;

/// Notes what no password can hold. How long it is is another matter: too long ones are 413 before they are hashed.
pub fn check_form(checks: &mut Checks, pointer: &str, password: &str) {
    checks.that(!password.contains('\0'), pointer, "must not hold NUL");
}

/// Notes what is wrong with a new password: its length, or that it is among the first that a guesser tries. `about` is
/// what a guesser knows of its user. Takes milliseconds: see [`Passwords::accept`].
fn check_new(checks: &mut Checks, pointer: &str, password: &str, about: &[&str]) {
    check_form(checks, pointer, password);
    let chars = password.chars().count();
    checks.that(chars >= PASSWORD_CHARS_MIN, pointer, "is shorter than 10 characters");
    checks.that(password.len() <= PASSWORD_BYTES_MAX, pointer, "is longer than 1 KiB");
    if chars < PASSWORD_CHARS_MIN || password.len() > PASSWORD_BYTES_MAX {
        return;
    }
    // It looks at the first hundred characters.
    let is_hard = zxcvbn::zxcvbn(password, about).guesses_log10() >= GUESSES_LOG10_MIN;
    checks.that(is_hard, pointer, "is among the first that are guessed: take several words, or a longer text");
}

/// What a stored hash says of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub is_right: bool,
    /// The password is right, and what is stored took less work than a hash takes now. Hashing it anew is left to the
    /// caller: a right password must not take longer before it is known whether it counts.
    pub is_weak: bool,
}

/// The bounded hasher.
pub struct Passwords {
    hashers: Hashers,
    argon: Argon2<'static>,
    /// Verified against when there is no such user, so that the answer takes as long.
    nobody: String,
}

impl Passwords {
    /// For passwords.
    pub fn new() -> anyhow::Result<Self> {
        Self::start(AT_ONCE, WAITING_MAX)
    }

    /// For PINs.
    pub fn of_pins() -> anyhow::Result<Self> {
        Self::start(PINS_AT_ONCE, PINS_WAITING_MAX)
    }

    fn start(at_once: usize, waiting_max: usize) -> anyhow::Result<Self> {
        let params = Params::new(MEMORY_KIB, PASSES, 1, None).context("argon2 parameters")?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = argon.hash_password(b"nobody has this password").context("argon2")?.to_string();
        Ok(Passwords { hashers: Hashers::start(at_once, waiting_max)?, argon, nobody })
    }

    /// 422 at `pointer` unless the password is good enough to be a new one; `about` is what a guesser knows of its user.
    pub async fn accept(&self, pointer: &'static str, password: &str, about: &[&str]) -> Result<(), ApiError> {
        let about: Vec<String> = about.iter().map(|&text| text.to_owned()).collect();
        let password = password.to_owned();
        let judge = move || {
            let about: Vec<&str> = about.iter().map(String::as_str).collect();
            let mut checks = Checks::default();
            check_new(&mut checks, pointer, &password, &about);
            checks.done()
        };
        self.hashers.run(judge).await?
    }

    /// Hashes worked out so far, right or wrong: what tells attempts apart by their cost.
    pub fn hashes(&self) -> u64 {
        self.hashers.begun()
    }

    /// The hash to store, with its salt and parameters.
    pub async fn hash(&self, password: String) -> Result<String, ApiError> {
        let argon = self.argon.clone();
        self.hashers
            .run(move || argon.hash_password(password.as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(|error| ApiError::internal(anyhow::anyhow!("argon2: {error}")))
    }

    /// Compares a password with the stored hash; always costs one hash, also without one.
    pub async fn check(&self, password: String, stored: Option<String>) -> Result<Checked, ApiError> {
        let argon = self.argon.clone();
        let (hash, is_somebody) = match stored {
            Some(hash) => (hash, true),
            None => (self.nobody.clone(), false),
        };
        self.hashers
            .run(move || {
                let parsed = PasswordHash::new(&hash).ok();
                let is_match =
                    parsed.as_ref().is_some_and(|hash| argon.verify_password(password.as_bytes(), hash).is_ok());
                let is_right = is_match && is_somebody;
                Checked { is_right, is_weak: is_right && parsed.as_ref().is_none_or(is_weak) }
            })
            .await
    }
}

/// Whether this hash took less work than one takes now.
fn is_weak(hash: &PasswordHash) -> bool {
    let is_enough = |params: Params| params.m_cost() >= MEMORY_KIB && params.t_cost() >= PASSES;
    hash.algorithm.as_str() != "argon2id" || !Params::try_from(hash).is_ok_and(is_enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let passwords = Passwords::new().unwrap();
        let stored = passwords.hash("correct horse".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let wrong = Checked { is_right: false, is_weak: false };
        let right = Checked { is_right: true, is_weak: false };
        assert_eq!(passwords.check("correct horse".into(), Some(stored.clone())).await.unwrap(), right);
        assert_eq!(passwords.check("correct horsf".into(), Some(stored)).await.unwrap(), wrong);
        assert_eq!(passwords.check("nobody has this password".into(), None).await.unwrap(), wrong);
        assert_eq!(passwords.check("".into(), Some("no hash at all".into())).await.unwrap(), wrong);
    }

    #[tokio::test]
    async fn a_weak_hash_is_told_from_a_strong_one_to_who_knows_the_password() {
        let passwords = Passwords::new().unwrap();
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8_192, 1, 1, None).unwrap());
        let stored = weak.hash_password(b"correct horse").unwrap().to_string();
        let wrong = passwords.check("correct horsf".into(), Some(stored.clone())).await.unwrap();
        assert_eq!(wrong, Checked { is_right: false, is_weak: false });
        let right = passwords.check("correct horse".into(), Some(stored)).await.unwrap();
        assert_eq!(right, Checked { is_right: true, is_weak: true });
    }

    #[tokio::test]
    async fn judging_a_new_password_takes_a_place_as_hashing_does() {
        let passwords = Passwords::new().unwrap();
        let places = AT_ONCE + WAITING_MAX;
        let storm = futures::future::join_all((0..places).map(|_| passwords.hash("x".into())));
        let (storm, judged) = tokio::join!(storm, passwords.accept("/password", "password12", &[]));
        assert!(storm.iter().all(Result::is_ok));
        assert_eq!(judged.unwrap_err().code, "overloaded");
        assert_eq!(passwords.accept("/password", "password12", &[]).await.unwrap_err().errors[0].pointer, "/password");
    }

    #[test]
    fn a_password_that_is_guessed_first_is_refused() {
        let problem = |password: &str| {
            let mut checks = Checks::default();
            check_new(&mut checks, "/password", password, &["anna.smith", "A7"]);
            checks.done().err().map(|problem| problem.errors[0].pointer.clone())
        };
        for bad in ["password12", "1234567890", "qwertyuiop", "iloveyou12", "aaaaaaaaaaaa", "anna.smith1", "Passw0rd!1"]
        {
            assert_eq!(problem(bad).as_deref(), Some("/password"), "{bad}");
        }
        assert_eq!(problem("short").as_deref(), Some("/password"));
        assert_eq!(problem(&"x7!k".repeat(300)).as_deref(), Some("/password"));
        let passphrase = "nine tills and a quiet drawer count the coins of the long day!!!!";
        assert_eq!(passphrase.chars().count(), 65);
        for good in [passphrase, "a long enough password", "Kassenzettel-Montag", "Пароль длинный и редкий"]
        {
            assert_eq!(problem(good), None, "{good}");
        }
    }
}
