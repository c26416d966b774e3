//! What the cloud says of this machine: its metadata service is asked for notices that it will be taken away, and those
//! become the same events that a feeder posts to the host.
//!
//! Off unless the configuration names the cloud. Each request is bounded in time and bytes and goes to a loopback or
//! link-local address alone: whoever can change the configuration shall not have this agent fetch from elsewhere. While the
//! service does not answer, what it said last stands; that it does not is a series of its own.

mod http;
mod providers;

use crate::{clock, spool::Spool};
use aether_core::{
    id::NodeId,
    metric,
    signal::{Notice, Notices},
    subject::SubjectRef,
    telemetry::{DiscreteEvent, Sample, SeriesKey, SeriesSamples},
};
use providers::Provider;
use serde::Deserialize;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often it is told that the service answers, or not, while nothing changes.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The clouds whose metadata services are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    Aws,
    Gcp,
    Azure,
}

impl Cloud {
    fn name(self) -> &'static str {
        match self {
            Cloud::Aws => "aws",
            Cloud::Gcp => "gcp",
            Cloud::Azure => "azure",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// None: nobody is asked.
    pub cloud: Option<Cloud>,
    /// Where the metadata service is.
    pub address: SocketAddr,
    pub poll: Duration,
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let address = SocketAddr::from(([169, 254, 169, 254], 80));
        Self { cloud: None, address, poll: Duration::from_secs(5), timeout: Duration::from_secs(5) }
    }
}

/// Asks until `shutdown`.
pub async fn run(settings: Settings, node: NodeId, spool: Arc<Spool>, shutdown: CancellationToken) {
    let Some(cloud) = settings.cloud else { return };
    info!(cloud = cloud.name(), address = %settings.address, "the metadata service is asked for notices");
    let subject = SubjectRef::node(node.as_str());
    let mut provider = Provider::new(cloud, settings.address, settings.timeout);
    let mut notices = Notices::default();
    let mut told: Option<(bool, Instant)> = None;
    let mut polls = interval(settings.poll);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = polls.tick() => {}
        }
        let asked = tokio::select! {
            () = shutdown.cancelled() => return,
            asked = provider.ask() => asked,
        };
        let answers = asked.is_ok();
        match (&asked, told) {
            (Err(error), None | Some((true, _))) => {
                warn!(cloud = cloud.name(), %error, "the metadata service does not tell; it is asked again");
            }
            (Ok(_), Some((false, _))) => info!(cloud = cloud.name(), "the metadata service tells again"),
            _ => {}
        }
        let now = clock::now();
        // What was said last stands while nothing is said.
        let events = asked.map(|said| notices.update(&subject, now, provider.grace_ms(), said)).unwrap_or_default();
        let due = told.is_none_or(|(before, at)| before != answers || at.elapsed() >= TOLD_EVERY);
        if due {
            told = Some((answers, Instant::now()));
        }
        if events.is_empty() && !due {
            continue;
        }
        for DiscreteEvent { name, attributes, .. } in &events {
            warn!(event = name, ?attributes, "the provider has a word on this machine");
        }
        let series = due.then(|| SeriesSamples {
            key: SeriesKey {
                subject: subject.clone(),
                metric: metric::SIGNALS_AVAILABLE.into(),
                unit: "1".into(),
                attributes: BTreeMap::from([("cloud".to_owned(), cloud.name().to_owned())]),
            }
            .into(),
            samples: [Sample { at: now, value: f64::from(u8::from(answers)) }].into(),
        });
        let spool = spool.clone();
        let kept = tokio::task::spawn_blocking(move || spool.append(series.into_iter().collect(), events, now));
        if let Err(error) = kept.await {
            warn!(%error, "a notice could not be put into the spool");
        }
    }
}

/// All that is said now, or why it is not known.
type Asked = Result<Vec<Notice>, Error>;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Http(#[from] http::Error),
    #[error("{path} answers {status}")]
    Status { path: &'static str, status: u16 },
    #[error(transparent)]
    Format(#[from] aether_core::signal::Error),
}

#[cfg(test)]
mod tests;
