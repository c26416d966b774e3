//! Samples at a steady pace, and puts a batch into the spool whenever one is due.
//!
//! On a thread of its own that sleeps from one sample to the next: a second is mostly one sample, and what wakes and hands
//! over on the way to it would be a large part of what it costs.

use crate::{
    capabilities, clock,
    collect::{Collector, Pressed, inventory},
    spool::Spool,
    uplink::Wishes,
};
use aether_core::{catalogue::fact, metric};
use aether_proto::v1::CapabilityReport;
use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// That sources fail, or work again, is told to the host this often at most.
const NEWS_EVERY: Duration = Duration::from_secs(30);

/// The thread, and what it is told.
pub(crate) struct Sampler {
    wishes: watch::Receiver<Wishes>,
    tell: std::sync::mpsc::Sender<Wishes>,
    ended: oneshot::Receiver<()>,
}

impl Sampler {
    /// Begins to sample.
    pub(crate) fn begin(
        collector: Collector,
        spool: Arc<Spool>,
        wishes: watch::Receiver<Wishes>,
        report: Arc<watch::Sender<CapabilityReport>>,
    ) -> io::Result<Self> {
        let (tell, told) = channel();
        let (end, ended) = oneshot::channel();
        let pace = Pace::of(collector, spool, wishes.borrow().clone(), report);
        thread::Builder::new().name("sampler".into()).spawn(move || {
            pace.keep(&told);
            // Nobody may be there any more.
            let _ = end.send(());
        })?;
        Ok(Self { wishes, tell, ended })
    }

    /// Passes on what the host wants, until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = &mut self.ended => {
                    error!("the collector failed; this agent samples no more until it is started again");
                    return;
                }
                Ok(()) = self.wishes.changed() => {
                    // One that has ended is heard of above.
                    let _ = self.tell.send(self.wishes.borrow_and_update().clone());
                }
            }
        }
        drop(self.tell);
        let _ = self.ended.await;
    }
}

struct Pace {
    collector: Collector,
    spool: Arc<Spool>,
    wanted: Wishes,
    report: Arc<watch::Sender<CapabilityReport>>,
    /// The version of the wishes that is followed.
    followed: u64,
    due: Instant,
    batch_due: Instant,
    inventory_due: Instant,
    /// Sources fail that did not, or the other way round, and the host was not told.
    news: bool,
    news_due: Instant,
}

impl Pace {
    fn of(
        collector: Collector,
        spool: Arc<Spool>,
        wanted: Wishes,
        report: Arc<watch::Sender<CapabilityReport>>,
    ) -> Self {
        let due = Instant::now();
        Self {
            collector,
            spool,
            report,
            followed: 0,
            due,
            batch_due: due + wanted.batch_interval,
            inventory_due: due + inventory::EVERY,
            news: false,
            news_due: due,
            wanted,
        }
    }

    /// Until nobody tells anything any more.
    fn keep(mut self, told: &Receiver<Wishes>) {
        loop {
            match told.recv_timeout(self.due.saturating_duration_since(Instant::now())) {
                Ok(wanted) => {
                    // A shorter interval does not wait for the end of the long one before it.
                    self.due = self.due.min(Instant::now() + wanted.sample_interval);
                    self.batch_due = self.batch_due.min(Instant::now() + wanted.batch_interval);
                    self.wanted = wanted;
                }
                Err(RecvTimeoutError::Timeout) => self.sample(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn sample(&mut self) {
        let now = Instant::now();
        // A machine that slept, or was too busy, is not sampled many times to make up for it.
        self.due = (self.due + self.wanted.sample_interval).max(now);
        if now >= self.inventory_due {
            self.inventory_due = now + inventory::EVERY;
            self.take_stock();
        }
        if self.wanted.version != self.followed {
            self.follow();
        }
        let at = clock::now();
        self.collector.sample(at, &self.wanted.disabled_sources, Pressed(self.wanted.pressure_percent));
        if now >= self.batch_due {
            self.batch_due = now + self.wanted.batch_interval.saturating_sub(self.wanted.sample_interval / 2);
            let depth = self.spool.depth();
            let mut note = |metric, unit, value| self.collector.note(at, metric, unit, value);
            note(metric::SPOOL_DEPTH, "{batch}", depth.batches as f64);
            let age = depth.oldest.map_or(0, |oldest| at.since_ms(oldest));
            note(metric::SPOOL_AGE, "s", age as f64 / 1_000.0);
            note(metric::SPOOL_LOST, "{batch}", depth.lost as f64);
            let (series, events) = self.collector.take();
            self.spool.append(series, events, at);
        }
        self.news |= self.collector.has_news();
        // One that comes and goes each second is not told each second.
        if self.news && now >= self.news_due {
            let standings = self.collector.standings(&self.wanted.disabled_sources);
            self.report.send_modify(|report| capabilities::renew(report, &standings));
            (self.news, self.news_due) = (false, now + NEWS_EVERY);
        }
    }

    /// Tells the host of other hardware.
    fn take_stock(&self) {
        let facts = inventory::facts(&inventory::Roots::default());
        self.report.send_if_modified(|report| {
            let is_news = facts.iter().any(|(name, value)| report.facts.get(name) != Some(value));
            report.facts.extend(facts);
            is_news
        });
    }

    fn follow(&mut self) {
        self.followed = self.wanted.version;
        let mut withheld = self.wanted.withheld.clone();
        withheld.extend(self.collector.follow(&self.wanted.intervals, self.wanted.bpf_budget));
        info!(version = self.followed, ?withheld, "the host wants other telemetry");
        let standings = self.collector.standings(&self.wanted.disabled_sources);
        self.report.send_modify(|report| {
            capabilities::renew(report, &standings);
            report.facts.insert(fact::CONFIG_VERSION.into(), self.followed.to_string());
            report.facts.remove(fact::CONFIG_WITHHELD);
            if !withheld.is_empty() {
                report.facts.insert(fact::CONFIG_WITHHELD.into(), withheld.join("; "));
            }
        });
    }
}
