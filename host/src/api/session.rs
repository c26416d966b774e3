//! Signing in and out: a browser trades a token for a cookie, because an `EventSource` cannot send headers.

use super::{
    App, Error, Problem,
    access::same_site,
    extract::Body,
    view::{Session, SignIn},
};
use crate::{
    auth::{self, COOKIE, Credential, Principal, SESSION_MS, Scope},
    clock,
    store::audit::{Act, ActOutcome},
};
use aether_core::{
    id::{Digest, PrincipalId},
    time::Time,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Failed sign-ins that reach the audit within a minute; more are counted alone, so that nobody can fill the disk.
const AUDITED_FAILURES: u32 = 10;

/// How many failures this minute has seen.
#[derive(Debug, Default)]
pub(super) struct FailedSignIns(Mutex<(i64, u32)>);

impl FailedSignIns {
    fn is_worth_auditing(&self, now: Time) -> bool {
        let minute = now.0 / 60_000;
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 != minute {
            *state = (minute, 0);
        }
        state.1 = state.1.saturating_add(1);
        state.1 <= AUDITED_FAILURES
    }
}

fn shown(principal: Principal) -> Session {
    let Principal { id, name, rank, expires_at, scope: _, by_cookie: _ } = principal;
    Session { principal: id, name, rank, expires_at }
}

/// Who am I, and what may I do?
#[utoipa::path(get, path = "/session", tag = "session", operation_id = "getSession",
    responses((status = 200, body = Session), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn session(principal: Principal) -> Json<Session> {
    Json(shown(principal))
}

/// Sign in. The answer sets a cookie that is good for twelve hours, or as long as the token.
#[utoipa::path(post, path = "/session", tag = "session", operation_id = "signIn", request_body = SignIn,
    responses((status = 200, body = Session), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn sign_in(
    State(app): State<App>,
    headers: HeaderMap,
    Body(sign_in): Body<SignIn>,
) -> Result<Response, Error> {
    if !same_site(&headers) {
        return Err(Error::CrossSite);
    }
    let now = clock::now();
    let credential = Credential::Token(sign_in.token.trim().to_owned());
    let Some(principal) = credential.principal(app.store(), now).await? else {
        metrics::counter!("aether_sign_in_failures_total").increment(1);
        if app.0.failed_sign_ins.is_worth_auditing(now) {
            let act = Act {
                principal: PrincipalId::new("nobody"),
                rank: None,
                action: "session.create".into(),
                target: "session".into(),
                outcome: ActOutcome::Refused,
                detail: BTreeMap::new(),
            };
            app.store().audit(now, act).await?;
        }
        return Err(Error::BadToken);
    };
    if principal.scope != Scope::Full {
        return Err(Error::Scope);
    }
    let ends = now.plus_ms(SESSION_MS);
    let ends = principal.expires_at.map_or(ends, |expires_at| ends.min(expires_at));
    let secret = auth::new_session().map_err(Error::internal)?;
    app.store().create_session(&principal.id, &Digest::of(secret.as_bytes()), now, ends).await?;
    app.audit(&principal, "session.create", "session".into(), ActOutcome::Done, BTreeMap::new()).await?;
    let cookie = cookie(&app, &secret, ends.since_ms(now) / 1_000)?;
    let session = shown(Principal { expires_at: Some(ends), ..principal });
    Ok(([(header::SET_COOKIE, cookie)], Json(session)).into_response())
}

/// Sign out: the cookie's session ends. A token stays good.
#[utoipa::path(delete, path = "/session", tag = "session", operation_id = "signOut",
    responses((status = 204, description = "Signed out, or was not signed in")))]
pub(super) async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Result<Response, Error> {
    if !same_site(&headers) {
        return Err(Error::CrossSite);
    }
    if let Some(credential @ Credential::Cookie(_)) = Credential::of(&headers) {
        app.store().delete_session(&credential.hash()).await?;
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie(&app, "", 0)?)]).into_response())
}

fn cookie(app: &App, secret: &str, seconds: u64) -> Result<HeaderValue, Error> {
    let secure = if app.0.parts.secure { "; Secure" } else { "" };
    let text = format!("{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    HeaderValue::from_str(&text).map_err(Error::internal)
}
