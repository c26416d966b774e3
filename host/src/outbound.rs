//! What requests to services outside have in common: headers with secrets from files, URLs that do not carry them in the
//! open, and answers of which only so much is read.

use reqwest::{
    Client, Response, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::io::AsyncReadExt as _;

/// Bytes of a file with a secret.
const SECRET_BYTES: u64 = 16 << 10;

/// Never follows a redirect: it would take the secrets elsewhere.
pub(crate) fn client(timeout_ms: u64) -> Result<Client, reqwest::Error> {
    // The only failure is that another was chosen before, and that one serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .timeout(Duration::from_millis(timeout_ms))
        .redirect(redirect::Policy::none())
        .user_agent(concat!("aether/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Whether it is a URL to ask, and one that may carry secrets, if there are some.
pub(crate) fn check(url: &str, secrets: bool) -> Result<(), String> {
    let parsed = match Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => parsed,
        Ok(_) | Err(_) => return Err(format!("`{url}` is no http or https URL")),
    };
    let loopback = match parsed.host_str().unwrap_or_default() {
        "localhost" => true,
        host => host.trim_matches(['[', ']']).parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback()),
    };
    if secrets && parsed.scheme() == "http" && !loopback {
        return Err("secrets would go over the network in plain text: use https".into());
    }
    Ok(())
}

pub(crate) fn check_names<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    for name in names {
        HeaderName::try_from(name.as_str()).map_err(|_| format!("`{name}` is no name of a header"))?;
    }
    Ok(())
}

pub(crate) async fn secret(path: &Path) -> Result<String, String> {
    let read = async {
        let mut text = String::new();
        tokio::fs::File::open(path).await?.take(SECRET_BYTES).read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text.trim().to_owned())
    };
    read.await.map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// The files are read each time, so that a secret can be changed while the host runs.
pub(crate) async fn headers(
    plain: &BTreeMap<String, String>,
    files: &BTreeMap<String, PathBuf>,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in plain {
        add(&mut headers, name, value, false)?;
    }
    for (name, path) in files {
        add(&mut headers, name, &secret(path).await?, true)?;
    }
    Ok(headers)
}

pub(crate) fn add(headers: &mut HeaderMap, name: &str, value: &str, secret: bool) -> Result<(), String> {
    let name = HeaderName::try_from(name).map_err(|_| format!("`{name}` is no name of a header"))?;
    let mut value =
        HeaderValue::from_str(value).map_err(|_| format!("the value of the header {name} cannot be sent"))?;
    value.set_sensitive(secret);
    headers.insert(name, value);
    Ok(())
}

/// The body, and whether it was longer than the limit.
pub(crate) async fn body(answer: &mut Response, limit: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut text = vec![];
    while let Some(piece) = answer.chunk().await? {
        let room = limit - text.len();
        text.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            return Ok((text, true));
        }
    }
    Ok((text, false))
}
