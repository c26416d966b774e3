//! Calls of the API, with the address and the token from where people expect them to be found.

use super::Options;
use crate::{api::Problem, config::DATA_DIR, serve};
use anyhow::{Context, anyhow, bail};
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);
/// How long one may take to what brings something in. The host's own limit is a little shorter.
const UPLOAD_LIMIT: Duration = Duration::from_secs(620);

pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Client {
    /// Flags and environment first, then the `client.json` that a server of this folder has written.
    pub(super) fn find(options: &Options) -> anyhow::Result<Self> {
        // The only failure is that another was chosen before, and that one serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let known = written();
        let url = match (&options.url, &known) {
            (Some(url), _) => url.clone(),
            (None, Some(known)) => known.url.clone(),
            (None, None) => bail!(
                "no host is known here. Start one with `aether up` or `aether serve` in this folder, or name one with \
                 --url (AETHER_URL) and --token (AETHER_TOKEN)"
            ),
        };
        let url = url.trim_end_matches('/').to_owned();
        // A token of one host is never sent to another.
        let token = options.token.clone().or_else(|| known.filter(|known| known.url == url).map(|known| known.token));
        let mut builder = reqwest::Client::builder().timeout(ANSWER_LIMIT);
        if let Some(path) = &options.ca {
            let pem = std::fs::read(path).with_context(|| format!("the file {} cannot be read", path.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("{} holds no certificate in PEM", path.display()))?;
            builder = builder.tls_certs_merge(certificates);
        }
        Ok(Self { http: builder.build().context("no HTTP client can be made")?, url, token })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send(Method::GET, path, None::<&()>).await
    }

    /// What a GET answers with, piece by piece as it comes.
    pub(super) async fn stream(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut answer = self.answer(self.authorised(Method::GET, path).timeout(UPLOAD_LIMIT)).await?;
        if !answer.status().is_success() {
            return Err(self.problem(answer).await);
        }
        while let Some(piece) = answer.chunk().await.context("the answer broke off; what came of it is not whole")? {
            take(&piece)?;
        }
        Ok(())
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// A POST that answers with nothing.
    pub(super) async fn done(&self, path: &str) -> anyhow::Result<()> {
        let answer = self.request(Method::POST, path, Some(&())).await?;
        if answer.status().is_success() { Ok(()) } else { Err(self.problem(answer).await) }
    }

    /// Sends text as it is.
    pub(super) async fn put<T: DeserializeOwned>(&self, path: &str, text: Vec<u8>) -> anyhow::Result<T> {
        let mut request = self.http.request(Method::PUT, format!("{}/api/v1/{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = self.answer(request.header("content-type", "text/csv").body(text)).await?;
        self.understood(answer).await
    }

    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let answer = self.request(Method::DELETE, path, None::<&()>).await?;
        if answer.status().is_success() { Ok(()) } else { Err(self.problem(answer).await) }
    }

    /// Sends a file's bytes as they are.
    pub(super) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &str,
        headers: &[(reqwest::header::HeaderName, String)],
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let mut request = self.authorised(Method::POST, path).timeout(UPLOAD_LIMIT);
        request = request.header(reqwest::header::CONTENT_TYPE, content_type).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.understood(self.answer(request).await?).await
    }

    /// Has the host do what may take it minutes.
    pub(super) async fn post_slowly<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let request = self.authorised(Method::POST, path).timeout(UPLOAD_LIMIT).json(body);
        self.understood(self.answer(request).await?).await
    }

    /// Something that has no answer but that it was done.
    pub(super) async fn post_nothing(&self, path: &str) -> anyhow::Result<()> {
        let answer = self.request(Method::POST, path, None::<&()>).await?;
        if answer.status().is_success() { Ok(()) } else { Err(self.problem(answer).await) }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<T> {
        self.understood(self.request(method, path, body).await?).await
    }

    async fn understood<T: DeserializeOwned>(&self, answer: reqwest::Response) -> anyhow::Result<T> {
        if !answer.status().is_success() {
            return Err(self.problem(answer).await);
        }
        answer
            .json()
            .await
            .context("the host's answer was not understood; it may be of another version than this program")
    }

    fn authorised(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}/api/v1/{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<reqwest::Response> {
        let mut request = self.authorised(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.answer(request).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
        request.send().await.map_err(|error| {
            let why = if error.is_timeout() {
                "gave no answer in time"
            } else if error.is_connect() {
                "cannot be reached. Is it running?"
            } else {
                "broke off"
            };
            anyhow!("the host at {} {why}", self.url)
        })
    }

    async fn problem(&self, answer: reqwest::Response) -> anyhow::Error {
        let status = answer.status();
        match answer.json::<Problem>().await {
            Ok(problem) => {
                let hint = match status {
                    StatusCode::UNAUTHORIZED => "; give one with --token or AETHER_TOKEN",
                    _ => "",
                };
                anyhow!("{} [{}]{hint}", problem.detail, problem.code)
            }
            Err(_) => anyhow!("the host at {} answered {status}, and not as Aether does", self.url),
        }
    }
}

/// The newest `client.json` in the folders where servers write it.
fn written() -> Option<serve::Client> {
    let chosen = std::env::var_os("AETHER_SERVER_DATA_DIR").map(PathBuf::from);
    let folders = match chosen {
        Some(folder) => vec![folder],
        None => vec![PathBuf::from(DATA_DIR), Path::new(DATA_DIR).join("host")],
    };
    folders
        .into_iter()
        .map(|folder| folder.join("client.json"))
        .filter_map(|path| Some((std::fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max()
        .and_then(|(_, path)| serde_json::from_slice(&std::fs::read(path).ok()?).ok())
}

/// A part of a path as it may stand there.
pub(super) fn escaped(part: &str) -> String {
    part.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}
