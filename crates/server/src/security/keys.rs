//! API keys: kept as hashes, compared in constant time.

use std::path::Path;

use axum::http::{HeaderMap, StatusCode, header};
use brisk_store::{Limit, read_text};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::error::{ApiError, Result};

/// Least length of a key: with letters and digits drawn at random, 160 bits and more.
const LEAST: usize = 32;
/// Most keys.
const MOST: usize = 4096;

/// Names and hashes of keys.
pub struct Keys {
    keys: Vec<(String, [u8; 32])>,
}

impl Keys {
    /// Reads a file with a key a line, or `NAME KEY`; empty lines and what follows a `#` at a line's beginning
    /// are passed over.
    ///
    /// # Errors
    /// A file that cannot be read or holds no key; a line that is none, by its number and never its content.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = read_text(file, Limit::TEXT).map_err(|error| error.to_string())?;
        Self::parse(&text).map_err(|problem| format!("{}: {problem}", file.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<(String, [u8; 32])> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = number + 1;
            let (name, key) = match line.split_once(char::is_whitespace) {
                Some((name, key)) => (name.to_owned(), key.trim()),
                None => (format!("key-{number}"), line),
            };
            let letters = |byte: u8| byte.is_ascii_graphic();
            if key.len() < LEAST || !key.bytes().all(letters) {
                return Err(format!(
                    "line {number} is no key: expected at least {LEAST} letters and digits, drawn at random \
                     (openssl rand -hex 32), or a name, a space and such a key"
                ));
            }
            if keys.iter().any(|(known, _)| *known == name) {
                return Err(format!("line {number}: a second key is called {name}"));
            }
            keys.push((name, hash(key)));
        }
        match keys.len() {
            0 => Err("holds no key; make one with openssl rand -hex 32".to_owned()),
            1..=MOST => Ok(Self { keys }),
            count => Err(format!("holds {count} keys; at most {MOST} are taken")),
        }
    }

    /// The name of the key that a request carries.
    ///
    /// # Errors
    /// `invalid_api_key`.
    pub fn check(&self, headers: &HeaderMap) -> Result<&str> {
        let refused = |message| ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message);
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|given| given.to_str().ok());
        let Some(key) = given.and_then(bearer) else {
            return Err(refused("an API key is needed: Authorization: Bearer KEY"));
        };
        let hash = hash(key);
        // Every key is compared, whichever fits.
        let (mut found, mut place) = (Choice::from(0), 0u64);
        for (index, (_, known)) in self.keys.iter().enumerate() {
            let same = known.ct_eq(&hash);
            place = u64::conditional_select(&place, &(index as u64), same);
            found |= same;
        }
        match bool::from(found) {
            true => Ok(&self.keys[place as usize].0),
            false => Err(refused("the API key is none of this server's")),
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Keys({})", self.keys.len())
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, key) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn asked(keys: &Keys, header: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(header::AUTHORIZATION, header.parse().unwrap());
        }
        keys.check(&headers).ok().map(str::to_owned)
    }

    #[test]
    fn keys_are_known_by_their_names() {
        let keys = Keys::parse(&format!("# mine\n\nalice {A}\n{B}\n")).unwrap();
        let bearer = |key: &str| format!("Bearer {key}");
        assert_eq!(asked(&keys, Some(&bearer(A))).as_deref(), Some("alice"));
        assert_eq!(
            asked(&keys, Some(&format!("bearer  {B}"))).as_deref(),
            Some("key-4")
        );
        for wrong in [
            None,
            Some(A),
            Some("Basic x"),
            Some(&*bearer(&A[1..])),
            Some("Bearer "),
        ] {
            assert_eq!(asked(&keys, wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_file_without_good_keys_is_refused_without_telling_them() {
        for (text, word) in [
            ("", "no key"),
            ("# only words\n", "no key"),
            ("short", "line 1"),
            (&*format!("x {A}\nx {B}"), "second key"),
        ] {
            let error = Keys::parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
            assert!(!error.contains("short") && !error.contains(A), "{error}");
        }
    }
}
