//! Lets a request through to a handler, or not: who is it, and is the rank enough?

use super::{App, Error};
use crate::{
    auth::{Credential, Principal, Scope},
    clock,
    store::audit::{Act, ActOutcome},
};
use aether_core::incident::Rank;
use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, Method, header, request::Parts},
    middleware::Next,
    response::Response,
};
use std::collections::BTreeMap;

pub(super) async fn check(
    State((app, needed)): State<(App, Rank)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Error> {
    let principal = authenticate(&app, request.headers()).await?;
    if principal.scope != Scope::Full {
        return Err(Error::Scope);
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && principal.by_cookie && !same_site(request.headers()) {
        return Err(Error::CrossSite);
    }
    if principal.rank < needed {
        if changes {
            let path = request.uri().path().chars().take(256).collect();
            let detail = BTreeMap::from([("needed".to_owned(), needed.name().to_owned())]);
            app.audit(&principal, "access", path, ActOutcome::Refused, detail).await?;
        }
        return Err(Error::Rank { needed, given: principal.rank });
    }
    request.extensions_mut().insert(principal);
    Ok(next.run(request).await)
}

/// Who sends these headers.
pub(super) async fn authenticate(app: &App, headers: &HeaderMap) -> Result<Principal, Error> {
    let credential = Credential::of(headers).ok_or(Error::Unauthenticated)?;
    credential.principal(app.store(), clock::now()).await?.ok_or(Error::BadToken)
}

/// Whether a browser sent this from our own page. SameSite=Strict says so already; this holds where a browser does not
/// know it, and for other ports of the same machine, which count as the same site.
pub(super) fn same_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (None, _) => text(header::HeaderName::from_static("sec-fetch-site")).is_none_or(|site| site == "same-origin"),
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        (Some(_), None) => false,
    }
}

/// Who is calling, put there by [`check`].
impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.extensions.get::<Principal>().cloned().ok_or(Error::Unauthenticated)
    }
}

impl App {
    pub(super) async fn audit(
        &self,
        by: &Principal,
        action: &str,
        target: String,
        outcome: ActOutcome,
        detail: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let mut detail = detail;
        detail.insert("name".into(), by.name.clone());
        let act = Act { principal: by.id.clone(), rank: Some(by.rank), action: action.into(), target, outcome, detail };
        self.store().audit(clock::now(), act).await?;
        Ok(())
    }
}
