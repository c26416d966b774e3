//! The web page, embedded in the binary. Paths that are no file are the page's own, so it gets them all.

use super::Error;
use axum::{
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "ui/dist"]
struct Page;

const INDEX: &str = "index.html";

pub(super) async fn serve(method: Method, uri: Uri) -> Response {
    if !matches!(method, Method::GET | Method::HEAD) {
        return Error::Method.into_response();
    }
    let path = uri.path().trim_start_matches('/');
    let (name, file) = match Page::get(path) {
        Some(file) if !path.is_empty() => (path, file),
        // A missing script or picture is missing; only what looks like a place within the page is the page.
        _ if path.rsplit('/').next().is_some_and(|last| last.contains('.')) => {
            return Error::NoEndpoint.into_response();
        }
        _ => match Page::get(INDEX) {
            Some(index) => (INDEX, index),
            None => return not_built(),
        },
    };
    // Names of built files hold a hash of what is in them; the index names the others and has none.
    let cache = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    ([(header::CONTENT_TYPE, kind(name)), (header::CACHE_CONTROL, cache)], file.data).into_response()
}

/// By the end of its name: the few kinds that a built page is made of.
fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn not_built() -> Response {
    let text = "The web page was not built into this binary. Run `make ui`, then build again. The API and the command \
                line work without it.\n";
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
