//! How each cloud's metadata service is asked.

use super::{
    Asked, Cloud, Error,
    http::{Answer, ask},
};
use aether_core::signal::{self, Notice};
use std::{net::SocketAddr, time::Duration};
use tokio::time::Instant;

const AWS_TOKEN_TTL_S: u64 = 21_600;
/// A token is made anew so long before its end.
const AWS_TOKEN_SPARE: Duration = Duration::from_secs(600);
/// How long Google's server holds an answer until something changes.
const GCP_HOLD: Duration = Duration::from_secs(10);
/// What a provider without a deadline leaves.
const GRACE_MS: u64 = 120_000;

/// A metadata service, and what is remembered of it.
pub(super) struct Provider {
    cloud: Cloud,
    address: SocketAddr,
    timeout: Duration,
    /// AWS: the session's token, and when it ends.
    token: Option<(String, Instant)>,
    /// Google: as which version `preempted` was last seen.
    etag: Option<String>,
    /// Azure: what this machine is called in events.
    machine: Option<String>,
}

impl Provider {
    pub(super) fn new(cloud: Cloud, address: SocketAddr, timeout: Duration) -> Self {
        Self { cloud, address, timeout, token: None, etag: None, machine: None }
    }

    /// How long a machine has after a notice that names no time.
    pub(super) fn grace_ms(&self) -> u64 {
        match self.cloud {
            Cloud::Gcp => signal::PREEMPTION_MS,
            // It has begun.
            Cloud::Aws | Cloud::Azure => GRACE_MS,
        }
    }

    pub(super) async fn ask(&mut self) -> Asked {
        match self.cloud {
            Cloud::Aws => self.aws().await,
            Cloud::Gcp => self.gcp().await,
            Cloud::Azure => self.azure().await,
        }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Error> {
        Ok(ask(self.address, "GET", path, headers, self.timeout).await?)
    }

    /// Version 2 of the service: a session's token first.
    async fn aws(&mut self) -> Asked {
        let mut notices = vec![];
        notices.extend(self.aws_document("/latest/meta-data/spot/instance-action", signal::instance_action).await?);
        let rebalance = "/latest/meta-data/events/recommendations/rebalance";
        notices.extend(self.aws_document(rebalance, signal::rebalance).await?);
        Ok(notices)
    }

    async fn aws_document(
        &mut self,
        path: &'static str,
        read: fn(&str) -> Result<Notice, signal::Error>,
    ) -> Result<Option<Notice>, Error> {
        // A token that is refused is made anew, once.
        for fresh in [false, true] {
            let token = self.aws_token(fresh).await?;
            let answer = self.get(path, &[("x-aws-ec2-metadata-token", &token)]).await?;
            match answer.status {
                200 => return Ok(Some(read(&answer.body)?)),
                404 => return Ok(None),
                401 if !fresh => {}
                status => return Err(Error::Status { path, status }),
            }
        }
        Err(Error::Status { path, status: 401 })
    }

    async fn aws_token(&mut self, fresh: bool) -> Result<String, Error> {
        const PATH: &str = "/latest/api/token";
        if let Some((token, ends)) = &self.token
            && !fresh
            && Instant::now() + AWS_TOKEN_SPARE < *ends
        {
            return Ok(token.clone());
        }
        let ttl = AWS_TOKEN_TTL_S.to_string();
        let headers = [("x-aws-ec2-metadata-token-ttl-seconds", ttl.as_str())];
        let answer = ask(self.address, "PUT", PATH, &headers, self.timeout).await?;
        if answer.status != 200 {
            return Err(Error::Status { path: PATH, status: answer.status });
        }
        self.token = Some((answer.body.clone(), Instant::now() + Duration::from_secs(AWS_TOKEN_TTL_S)));
        Ok(answer.body)
    }

    /// The server holds its word on a preemption until it changes: it comes at once, though nobody asks often.
    async fn gcp(&mut self) -> Asked {
        const PREEMPTED: &str = "/computeMetadata/v1/instance/preempted";
        const MAINTENANCE: &str = "/computeMetadata/v1/instance/maintenance-event";
        let flavor = [("metadata-flavor", "Google")];
        let maintenance = self.get(MAINTENANCE, &flavor).await?;
        if maintenance.status != 200 {
            return Err(Error::Status { path: MAINTENANCE, status: maintenance.status });
        }
        let mut notices: Vec<Notice> = signal::maintenance_event(&maintenance.body)?.into_iter().collect();
        // What is new is told without waiting for what may come.
        let hold = match &self.etag {
            Some(etag) if notices.is_empty() => {
                format!("{PREEMPTED}?wait_for_change=true&last_etag={etag}&timeout_sec={}", GCP_HOLD.as_secs())
            }
            Some(_) | None => PREEMPTED.to_owned(),
        };
        let preempted = ask(self.address, "GET", &hold, &flavor, self.timeout + GCP_HOLD).await?;
        if preempted.status != 200 {
            return Err(Error::Status { path: PREEMPTED, status: preempted.status });
        }
        let is_etag = |etag: &String| (1..=64).contains(&etag.len()) && etag.bytes().all(|b| b.is_ascii_alphanumeric());
        self.etag = preempted.etag.filter(is_etag);
        notices.extend(signal::preempted(&preempted.body)?);
        Ok(notices)
    }

    async fn azure(&mut self) -> Asked {
        const EVENTS: &str = "/metadata/scheduledevents?api-version=2020-07-01";
        const NAME: &str = "/metadata/instance/compute/name?api-version=2021-02-01&format=text";
        let headers = [("metadata", "true")];
        if self.machine.is_none() {
            let answer = self.get(NAME, &headers).await?;
            if answer.status != 200 {
                return Err(Error::Status { path: NAME, status: answer.status });
            }
            self.machine = Some(answer.body.trim().to_owned());
        }
        let answer = self.get(EVENTS, &headers).await?;
        if answer.status != 200 {
            return Err(Error::Status { path: EVENTS, status: answer.status });
        }
        Ok(signal::scheduled_events(&answer.body, self.machine.as_deref().unwrap_or_default())?)
    }
}
