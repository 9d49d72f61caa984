//! Tokens: who may do what at the API, see what, and enrol nodes. Signed (HS256) with a key that the identity gives.

use headwater_model::Hash;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest life of a token in days.
pub(crate) const MAX_DAYS: u32 = 3650;
/// Patterns of names in one token.
pub(crate) const MAX_NAMES: usize = 64;
/// Bytes of one pattern.
pub(crate) const MAX_NAME_BYTES: usize = 1024;

/// What the bearer of a token may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenRole {
    /// Everything.
    Admin,
    /// Publish, withdraw, list and explain contents whose names match.
    Publisher,
    /// Join contents whose names match and that are not open to all.
    Viewer,
    /// Enrol nodes: what they say of themselves is believed.
    Join,
}

/// What a token says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) role: TokenRole,
    /// Names of contents; a trailing `*` stands for any rest.
    #[serde(default)]
    pub(crate) names: Vec<String>,
    /// Unix seconds.
    pub(crate) exp: u64,
    /// Tells tokens apart.
    pub(crate) jti: String,
}

/// Why a token is not accepted, or not made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Past its time.
    #[error("the token has expired: ask an administrator of the control center for a new one")]
    Expired,
    /// Changed, or of another control center.
    #[error("the token is not one of this control center, or it was cut off when it was copied")]
    NotOurs,
    /// It cannot be made.
    #[error("{0}")]
    Bad(String),
}

/// Makes and checks tokens.
pub(crate) struct Tokens {
    encode: EncodingKey,
    decode: DecodingKey,
}

impl Claims {
    /// Whether `name` is among the names.
    pub(crate) fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        })
    }
}

impl Tokens {
    /// Tokens of the control center with this identity secret.
    pub(crate) fn new(secret: &[u8; 32]) -> Tokens {
        let key = Hash::of(&[b"headwater token key", secret]).0;
        Tokens { encode: EncodingKey::from_secret(&key), decode: DecodingKey::from_secret(&key) }
    }

    /// A new token that lasts `days` from `now_unix_ms`.
    ///
    /// # Errors
    /// [`TokenError::Bad`] says what to change.
    pub(crate) fn make(
        &self,
        role: TokenRole,
        names: Vec<String>,
        days: u32,
        now_unix_ms: u64,
    ) -> Result<String, TokenError> {
        let bad = |what: String| Err(TokenError::Bad(what));
        if days == 0 || days > MAX_DAYS {
            return bad(format!("\"days\" must be from 1 to {MAX_DAYS}"));
        }
        if names.len() > MAX_NAMES || names.iter().any(|n| n.is_empty() || n.len() > MAX_NAME_BYTES) {
            return bad(format!("\"names\" are at most {MAX_NAMES}, of 1 to {MAX_NAME_BYTES} bytes each"));
        }
        if names.is_empty() && matches!(role, TokenRole::Publisher | TokenRole::Viewer) {
            return bad("\"names\" must say which contents, for example [\"films/*\"], or [\"*\"] for all".into());
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| TokenError::Bad(format!("no random numbers: {e}")))?;
        let exp = now_unix_ms / 1000 + u64::from(days) * 86_400;
        let claims = Claims { role, names, exp, jti: headwater_model::id::to_hex(&id) };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encode)
            .map_err(|e| TokenError::Bad(format!("cannot make a token: {e}")))
    }

    /// What `token` says, if it is one of ours and in time.
    ///
    /// # Errors
    /// [`TokenError`].
    pub(crate) fn check(&self, token: &str) -> Result<Claims, TokenError> {
        jsonwebtoken::decode(token, &self.decode, &Validation::new(Algorithm::HS256)).map(|t| t.claims).map_err(|e| {
            match e.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::NotOurs,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 4_000_000_000_000;

    #[test]
    fn tokens_say_what_they_were_made_for() {
        let tokens = Tokens::new(&[1; 32]);
        let token = tokens.make(TokenRole::Publisher, vec!["a/*".into(), "b".into()], 1, NOW).unwrap();
        let claims = tokens.check(&token).unwrap();
        assert_eq!((claims.role, claims.exp), (TokenRole::Publisher, NOW / 1000 + 86_400));
        for (name, covered) in [("a/x", true), ("a/", true), ("a", false), ("b", true), ("bc", false)] {
            assert_eq!(claims.covers(name), covered, "{name}");
        }
        assert_eq!(Tokens::new(&[2; 32]).check(&token), Err(TokenError::NotOurs));
        assert_eq!(tokens.check(&token[..token.len() - 1]), Err(TokenError::NotOurs));
        assert_eq!(tokens.check(""), Err(TokenError::NotOurs));
    }

    #[test]
    fn old_and_senseless_tokens_are_refused() {
        let tokens = Tokens::new(&[1; 32]);
        let old = tokens.make(TokenRole::Admin, vec![], 1, 1000).unwrap();
        assert_eq!(tokens.check(&old), Err(TokenError::Expired));
        // The same claims without a signature.
        let body = old.split('.').nth(1).unwrap();
        assert_eq!(tokens.check(&format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.")), Err(TokenError::NotOurs));
        for (role, names, days) in [
            (TokenRole::Admin, vec![], 0),
            (TokenRole::Admin, vec![], 4000),
            (TokenRole::Viewer, vec![], 1),
            (TokenRole::Viewer, vec![String::new()], 1),
        ] {
            assert!(matches!(tokens.make(role, names, days, NOW), Err(TokenError::Bad(_))));
        }
    }
}
