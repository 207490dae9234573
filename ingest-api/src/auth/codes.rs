//! Random texts that people type and programs keep, and how they are stored: as hashes. They hold enough randomness that
//! a fast hash is enough.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const TOKEN_BYTES: usize = 32;

/// Random characters of 5 bits each, without I, L, O and U.
pub fn random_text(chars: usize) -> String {
    random_bytes(chars).into_iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}

/// 256 random bits for a program to keep.
pub fn random_token() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes(TOKEN_BYTES))
}

pub fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    rand::fill(&mut bytes).unwrap_or_else(|_| panic!("the system gives no random bytes"));
    bytes
}

/// In groups of four, to be typed.
pub fn grouped(code: &str) -> String {
    let groups: Vec<&str> = (0..code.len().div_ceil(4)).map(|n| &code[n * 4..code.len().min(n * 4 + 4)]).collect();
    groups.join("-")
}

/// The code as it was made: case, spaces and hyphens do not count.
pub fn canonical(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase()
}

/// What is stored of a code that is typed.
pub fn hash_code(code: &str) -> [u8; 32] {
    Sha256::digest(canonical(code)).into()
}

/// What is stored of a token that is kept by a program.
pub fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_typed_in_groups_and_read_back_in_any_spelling() {
        let code = random_text(16);
        let typed = grouped(&code);
        assert_eq!((typed.len(), typed.matches('-').count()), (19, 3));
        assert_eq!(hash_code(&typed.to_lowercase().replace('-', " ")), hash_code(&code));
        assert_ne!(hash_code(&random_text(16)), hash_code(&code));
        assert_eq!(URL_SAFE_NO_PAD.decode(random_token()).unwrap().len(), 32);
    }
}
