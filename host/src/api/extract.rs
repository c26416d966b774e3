//! Bodies and parameters whose refusal is a problem document that names the field.

use super::Error;
use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{BytesRejection, FailedToBufferBody, JsonRejection},
    },
    http::{header, request::Parts},
};
use serde::de::DeserializeOwned;

/// The largest body that any endpoint takes. Signals of an hour at one a second stay far below it.
pub const BODY_LIMIT_BYTES: usize = 256 << 10;

/// A JSON body. An empty one is `{}`, for endpoints whose fields are all optional.
pub(super) struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let empty = request.headers().get(header::CONTENT_LENGTH).is_some_and(|length| length == "0")
            || (!request.headers().contains_key(header::CONTENT_LENGTH)
                && !request.headers().contains_key(header::TRANSFER_ENCODING)
                && !request.headers().contains_key(header::CONTENT_TYPE));
        if empty {
            return serde_json::from_str("{}").map(Body).map_err(|error| Error::Body(error.to_string()));
        }
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Body(body)),
            Err(JsonRejection::BytesRejection(BytesRejection::FailedToBufferBody(
                FailedToBufferBody::LengthLimitError(_),
            ))) => Err(Error::TooLarge { limit: BODY_LIMIT_BYTES }),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                Err(Error::Body("the header `Content-Type: application/json` is missing".into()))
            }
            Err(rejection) => Err(Error::Body(said(&rejection))),
        }
    }
}

/// The longest that a person can say of what they do.
pub(super) const COMMENT_BYTES: usize = 2_000;

/// What a person says of what they do, where they must: it is what others read of it in the audit.
pub(super) fn comment(name: &str, text: &str) -> Result<String, Error> {
    let text = text.trim();
    if text.is_empty() || text.len() > COMMENT_BYTES {
        return Err(Error::Body(format!(
            "`{name}` must be 1 to {COMMENT_BYTES} bytes: it is what others will read of it"
        )));
    }
    Ok(text.to_owned())
}

/// Query parameters.
pub(super) struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Params(params)),
            Err(rejection) => Err(Error::Parameter { name: "query".into(), reason: said(&rejection) }),
        }
    }
}

/// The one parameter of a path.
pub(super) struct Id(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) if id.len() <= 256 => Ok(Id(id)),
            Ok(Path(_)) => Err(Error::Parameter { name: "path".into(), reason: "longer than 256 bytes".into() }),
            Err(rejection) => Err(Error::Parameter { name: "path".into(), reason: said(&rejection) }),
        }
    }
}

/// The slot and the entry of a path.
pub(super) struct EntryOf {
    pub slot: String,
    pub entry: String,
}

impl<S: Send + Sync> FromRequestParts<S> for EntryOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((slot, entry))) if slot.len() <= 256 && entry.len() <= 256 => Ok(Self { slot, entry }),
            Ok(Path(_)) => Err(Error::Parameter { name: "path".into(), reason: "longer than 256 bytes".into() }),
            Err(rejection) => Err(Error::Parameter { name: "path".into(), reason: said(&rejection) }),
        }
    }
}

/// The innermost cause, which names the field and the place.
fn said(error: &dyn std::error::Error) -> String {
    let mut innermost = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !text.is_empty() {
            innermost = text;
        }
        cause = error.source();
    }
    innermost
}
