//! Who may call: API tokens, and the cookie sessions that a browser gets for one.
//!
//! A token is 32 random bytes, shown once; the store keeps its BLAKE3 alone. That a hash so fast is enough rests on the
//! token being drawn and never chosen: there is nothing to guess. A browser trades a token for a session in a cookie
//! (HttpOnly, SameSite=Strict), because an `EventSource` cannot send headers.
//!
//! Node agents are not here: they join through the fabric, with credentials of their own.

pub use crate::store::tokens::Scope;
use crate::{
    clock,
    store::{self, Store, tokens::TokenInfo},
};
use aether_core::{
    id::{Digest, PrincipalId},
    incident::Rank,
    time::Time,
};
use axum::http::{HeaderMap, header};

/// Beginning of every API token, so that a leaked one is known for what it is.
const TOKEN_PREFIX: &str = "aet_";
/// Of the cookie that holds a browser's session.
pub const COOKIE: &str = "aether_session";
/// How long a browser stays signed in.
pub const SESSION_MS: u64 = 12 * 3_600_000;

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub id: PrincipalId,
    pub name: String,
    pub rank: Rank,
    pub scope: Scope,
    pub expires_at: Option<Time>,
    /// Signed in by cookie: a request that changes something must come from our own page.
    pub by_cookie: bool,
}

/// What a caller brought along.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Token(String),
    Cookie(String),
}

impl Credential {
    /// From the headers of a request; a token goes before a cookie.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            return scheme.eq_ignore_ascii_case("bearer").then(|| Credential::Token(token.trim().into()));
        }
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
            .map(|secret| Credential::Cookie(secret.into()))
    }

    pub fn hash(&self) -> Digest {
        let (Credential::Token(secret) | Credential::Cookie(secret)) = self;
        Digest::of(secret.as_bytes())
    }

    /// Whose it is, if it is good now.
    pub async fn principal(&self, store: &Store, now: Time) -> Result<Option<Principal>, store::Error> {
        let hash = self.hash();
        let found = match self {
            Credential::Token(_) => store.token(&hash, now).await?.map(|info| (info.expires_at, info, false)),
            Credential::Cookie(_) => store.session(&hash, now).await?.map(|(info, ends)| (Some(ends), info, true)),
        };
        Ok(found.map(|(expires_at, info, by_cookie)| {
            let TokenInfo { id, name, rank, scope, .. } = info;
            Principal { id, name, rank, scope, expires_at, by_cookie }
        }))
    }
}

/// A new secret, to be shown once.
pub fn new_token() -> Result<String, getrandom::Error> {
    Ok(format!("{TOKEN_PREFIX}{}", hex(&clock::secret::<32>()?)))
}

/// A new secret for a browser's cookie.
pub fn new_session() -> Result<String, getrandom::Error> {
    Ok(hex(&clock::secret::<32>()?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}

/// The token's name with four random bytes: who did what reads well in the audit, and two of a name are told apart.
fn principal_id(name: &str) -> Result<PrincipalId, getrandom::Error> {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut id = words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-");
    id.truncate(48);
    if id.is_empty() {
        id.push_str("token");
    }
    Ok(PrincipalId(format!("{id}-{}", hex(&clock::secret::<4>()?))))
}

/// Makes, stores and gives a token for the API: the secret and what is known of it.
pub async fn issue(
    store: &Store,
    name: &str,
    rank: Rank,
    by: &str,
    now: Time,
    expires_at: Option<Time>,
) -> Result<(String, TokenInfo), IssueError> {
    issue_for(store, name, rank, Scope::Full, by, now, expires_at).await
}

/// The same, for the whole API or for one part of it.
pub async fn issue_for(
    store: &Store,
    name: &str,
    rank: Rank,
    scope: Scope,
    by: &str,
    now: Time,
    expires_at: Option<Time>,
) -> Result<(String, TokenInfo), IssueError> {
    let secret = new_token()?;
    let info = TokenInfo {
        id: principal_id(name)?,
        name: name.into(),
        rank,
        scope,
        created_at: now,
        created_by: by.into(),
        expires_at,
    };
    store.create_token(&info, &Digest::of(secret.as_bytes())).await?;
    Ok((secret, info))
}

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("the operating system gave no random bytes")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a header"))).collect()
    }

    #[test]
    fn a_credential_is_found_where_it_may_be() {
        let token = |text: &str| Some(Credential::Token(text.into()));
        assert!(Credential::of(&headers(&[(header::AUTHORIZATION, "Bearer aet_1")])) == token("aet_1"));
        assert!(Credential::of(&headers(&[(header::AUTHORIZATION, "bearer  aet_1 ")])) == token("aet_1"));
        assert!(Credential::of(&headers(&[(header::AUTHORIZATION, "Basic aet_1")])).is_none());
        let cookie = headers(&[(header::COOKIE, "a=b; aether_session=77; c=d")]);
        assert!(Credential::of(&cookie) == Some(Credential::Cookie("77".into())));
        assert!(Credential::of(&headers(&[(header::COOKIE, "aether_sessions=77")])).is_none());
        let both = headers(&[(header::COOKIE, "aether_session=77"), (header::AUTHORIZATION, "Bearer x")]);
        assert!(Credential::of(&both) == token("x"), "a token goes before a cookie");
    }

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (a, b) = (new_token().expect("random"), new_token().expect("random"));
        assert_eq!(a.len(), TOKEN_PREFIX.len() + 64);
        assert_ne!(a, b);
    }
}
