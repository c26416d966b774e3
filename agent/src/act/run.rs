//! One order while it is carried out: its journal, its way to the host, its deadline, and whether it was called off.
//! For the blocking thread that carries it out.

use super::{check::Task, journal::Journal};
use crate::{clock::Stopwatch, uplink::Link};
use aether_proto::v1::{self, dispatch_state::State};
use ed25519_dalek::VerifyingKey;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

/// Progress is told at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Between two looks at what is waited for. A workload may be stopped meanwhile.
const POLL_EVERY: Duration = Duration::from_millis(2);
/// How long telling it may take.
const TELL_WITHIN: Duration = Duration::from_millis(50);
/// How often something is told that the host must confirm, and how long that may take each time.
const CONFIRM_TRIES: u32 = 5;
const CONFIRM_WITHIN: Duration = Duration::from_secs(3);
/// What is left of the step's time for undoing and answering: an answer after the host stopped waiting is no answer.
const RESERVE_SHARE: u32 = 10;
const RESERVE_MAXIMUM: Duration = Duration::from_secs(10);

/// Why an order was not carried out to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Interrupted {
    #[error("it was called off")]
    Cancelled,
    #[error("its time was up")]
    Deadline,
}

impl Interrupted {
    pub fn code(self) -> &'static str {
        match self {
            Interrupted::Cancelled => "order.cancelled",
            Interrupted::Deadline => "order.timeout",
        }
    }
}

pub struct Run {
    task: Task,
    journal: Arc<Journal>,
    pub link: Link,
    /// Manifests must be signed by it.
    pub host_key: Option<VerifyingKey>,
    runtime: Handle,
    cancel: CancellationToken,
    /// The host has confirmed what it was told of this order.
    confirmed: watch::Receiver<bool>,
    begun: Stopwatch,
    limit: Duration,
    told: Mutex<Option<Stopwatch>>,
}

impl Run {
    pub fn new(
        task: Task,
        journal: Arc<Journal>,
        link: Link,
        host_key: Option<VerifyingKey>,
        runtime: Handle,
        cancel: CancellationToken,
        confirmed: watch::Receiver<bool>,
    ) -> Self {
        let whole = Duration::from_millis(task.timeout_ms);
        let limit = whole.saturating_sub((whole / RESERVE_SHARE).min(RESERVE_MAXIMUM));
        let (begun, told) = (Stopwatch::start(), Mutex::new(None));
        Self { task, journal, link, host_key, runtime, cancel, confirmed, begun, limit, told }
    }

    pub fn task(&self) -> &Task {
        &self.task
    }

    pub fn elapsed_ms(&self) -> u64 {
        self.begun.elapsed_ms()
    }

    /// Notes that a phase begins. What cannot be noted must not be begun.
    pub fn phase(&self, phase: &str) -> std::io::Result<()> {
        self.journal.phase(&self.task.order.key, phase).map(|_| ())
    }

    /// What is left of its time.
    pub fn left(&self) -> Duration {
        self.limit.saturating_sub(self.begun.elapsed())
    }

    /// Whether to go on.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.cancel.is_cancelled() {
            return Err(Interrupted::Cancelled);
        }
        if self.begun.elapsed() >= self.limit {
            return Err(Interrupted::Deadline);
        }
        Ok(())
    }

    /// Waits for something asynchronous, no longer than the order may take.
    pub fn wait<F: Future>(&self, future: F) -> Result<F::Output, Interrupted> {
        self.check()?;
        let left = self.left();
        self.runtime.block_on(async {
            tokio::select! {
                output = future => Ok(output),
                () = self.cancel.cancelled() => Err(Interrupted::Cancelled),
                () = tokio::time::sleep(left) => Err(Interrupted::Deadline),
            }
        })
    }

    /// Tries `attempt` until it gives something, no longer than the order may take.
    pub fn poll<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Result<T, Interrupted> {
        loop {
            if let Some(found) = attempt() {
                return Ok(found);
            }
            self.check()?;
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// Tells the host a state of this order, until it confirms that it has it. False if it does not.
    pub fn confirmed(&self, state: State) -> Result<bool, Interrupted> {
        for _ in 0..CONFIRM_TRIES {
            let key = self.task.order.key.0.clone();
            let told = v1::DispatchState { key, journal_position: 0, state: Some(state.clone()) };
            let mut confirmed = self.confirmed.clone();
            let answer = async {
                self.link.tell(told).await;
                confirmed.wait_for(|confirmed| *confirmed).await.is_ok()
            };
            let answered = async { tokio::time::timeout(CONFIRM_WITHIN, answer).await.unwrap_or(false) };
            // Without a stream it is not told, and told again.
            if self.wait(answered)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells the host how far it is. For people: no decision hangs on it.
    pub fn tell(&self, permille: u32, note: impl Into<String>) {
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_some_and(|told| told.elapsed() < PROGRESS_EVERY) {
                return;
            }
            *told = Some(Stopwatch::start());
        }
        let progress = v1::OrderProgress { permille: permille.min(1_000), note: note.into() };
        let key = self.task.order.key.0.clone();
        let state = v1::DispatchState { key, journal_position: 0, state: Some(State::Progress(progress)) };
        // Without a stream there may be no room; then it is not told.
        let told = async { tokio::time::timeout(TELL_WITHIN, self.link.tell(state)).await };
        let _ = self.wait(told);
    }
}
