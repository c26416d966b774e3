//! What the eBPF programs cost the machine that is watched, and a limit to it.
//!
//! Now and then, for the time between two samples, the kernel is asked to measure how long each program runs
//! (`BPF_ENABLE_STATS`; never for longer, since measuring costs as much again). That time, as a share of the time that
//! processors were busy, is the cost. Where all sources together cost more than their budget in two such windows, one
//! after the other, the dearest is taken out of the kernel, says so, and is tried again an hour later.
//!
//! The kernel reads its clock before and after each run, so one reading is in each run's time, and more than the run of
//! a short program: it is taken off again, as long as the same clock takes here. The way to a program (20 ns or so) is
//! not in the figure.

use super::{Budget, Missing, Sink, Source};
use crate::clock;
use aether_core::{metric, time::Time};
use aya::sys::{Stats, enable_stats};
use procfs::{CurrentSI, KernelStats};
use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tracing::warn;

/// From the end of a window to the next one. The first one comes soon.
const WINDOW_EVERY_MS: u64 = 60_000;
const FIRST_AFTER_MS: u64 = 5_000;
/// A window is at least this long; it ends with the first sample after it.
const WINDOW_MS: u64 = 900;
/// Windows over budget, one after the other, after which a source goes.
const WINDOWS_OVER: u32 = 2;
/// For how long a source that was too dear is out.
const OUT_FOR_MS: u64 = 3_600_000;
/// A machine that does nothing is taken to be busy for this share of its processors' time: a share of nothing means
/// nothing.
const BUSY_LEAST: f64 = 0.05;

/// What sources say of themselves, and what becomes of them.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<Mutex<BTreeMap<&'static str, Account>>>);

#[derive(Default)]
struct Account {
    /// What its programs did while the kernel measured: as told last, and at the beginning of the window.
    ran: Ran,
    began: Option<Ran>,
    out: Option<Out>,
}

/// How long programs ran, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ran {
    pub(super) time: Duration,
    pub(super) runs: u64,
}

struct Out {
    until: Time,
    reason: String,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, source: &'static str, ran: Ran) {
        self.lock().entry(source).or_default().ran = ran;
    }

    /// Why a source is out for its cost, while it is.
    pub(super) fn switched_off(&self, source: &str, at: Time) -> Option<String> {
        let mut accounts = self.lock();
        let account = accounts.get_mut(source)?;
        account.out.take_if(|out| at >= out.until);
        account.out.as_ref().map(|out| out.reason.clone())
    }

    fn begin(&self) {
        for account in self.lock().values_mut() {
            account.began = Some(account.ran);
        }
    }

    /// What each source cost since then, as a share of `busy`, without a reading of the clock for each run. One that was
    /// loaded within the window is left out.
    fn shares(&self, busy: Duration, reading: Duration) -> BTreeMap<&'static str, f64> {
        let mut accounts = self.lock();
        let shares = accounts.iter_mut().filter_map(|(source, account)| {
            let began = account.began.take()?;
            let runs = account.ran.runs.checked_sub(began.runs)? as f64;
            let seconds = account.ran.time.checked_sub(began.time)?.as_secs_f64() - runs * reading.as_secs_f64();
            account.out.is_none().then(|| (*source, seconds.max(0.0) / busy.as_secs_f64()))
        });
        shares.collect()
    }

    /// Takes the dearest out.
    fn evict(&self, shares: &BTreeMap<&'static str, f64>, budget: f64, at: Time) -> Option<&'static str> {
        let (&source, share) = shares.iter().max_by(|a, b| a.1.total_cmp(b.1))?;
        let reason = format!(
            "switched off for its cost: its programs took {:.2} % of the time that processors were busy, and the budget \
             of all eBPF sources (`collect.bpf_budget_permille`) is {:.1} %; it is tried again after {} minutes",
            share * 100.0,
            budget * 100.0,
            OUT_FOR_MS / 60_000
        );
        warn!(source, reason);
        self.lock().entry(source).or_default().out = Some(Out { until: at.plus_ms(OUT_FOR_MS), reason });
        Some(source)
    }
}

/// The source that tells the cost, and keeps it within the budget. It stands after all whose cost it tells.
pub(super) struct Cost {
    board: Board,
    budget: Budget,
    next: Option<Time>,
    window: Option<Window>,
    over: u32,
}

struct Window {
    since: Time,
    busy: Duration,
    idle: Duration,
    _measuring: OwnedFd,
}

impl Cost {
    pub(super) fn of(board: Board, budget: Budget) -> Self {
        Self { board, budget, next: None, window: None, over: 0 }
    }

    fn begin(&mut self, at: Time) -> Result<(), Missing> {
        let measuring = measure()?;
        let (busy, idle) = processors()?;
        self.board.begin();
        self.window = Some(Window { since: at, busy, idle, _measuring: measuring });
        Ok(())
    }

    fn end(&mut self, window: &Window, into: &mut Sink<'_>) -> Result<(), Missing> {
        let (busy, idle) = processors()?;
        let (busy, idle) = (busy.saturating_sub(window.busy), idle.saturating_sub(window.idle));
        let busy = busy.max((busy + idle).mul_f64(BUSY_LEAST));
        if busy.is_zero() {
            return Ok(());
        }
        let shares = self.board.shares(busy, reading_time());
        for (&source, share) in &shares {
            into.node(metric::BPF_COST, "1", &[("source", source)], *share);
        }
        let budget = self.budget.get();
        let over = shares.values().sum::<f64>() > budget;
        self.over = if over { self.over + 1 } else { 0 };
        if self.over >= WINDOWS_OVER {
            self.over = 0;
            self.board.evict(&shares, budget, into.at);
        }
        Ok(())
    }
}

impl Source for Cost {
    fn name(&self) -> &'static str {
        "bpf_cost"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let at = into.at;
        let Some(next) = self.next else {
            // Whether it can be measured at all.
            measure()?;
            self.next = Some(at.plus_ms(FIRST_AFTER_MS));
            return Ok(());
        };
        if let Some(window) = self.window.take_if(|window| at.since_ms(window.since) >= WINDOW_MS) {
            // Over budget, the next look is soon.
            self.end(&window, into)?;
            self.next = Some(at.plus_ms(if self.over > 0 { FIRST_AFTER_MS } else { WINDOW_EVERY_MS }));
        } else if self.window.is_none() && at >= next {
            self.begin(at)?;
        }
        Ok(())
    }

    fn rest(&mut self) {
        self.window = None;
    }
}

/// Has the kernel measure how long programs run, for as long as what is returned is open.
fn measure() -> Result<OwnedFd, Missing> {
    enable_stats(Stats::RunTime).map_err(|error| {
        let why = match error.io_error.kind() {
            std::io::ErrorKind::PermissionDenied => "the agent lacks CAP_SYS_ADMIN".to_string(),
            _ => error.io_error.to_string(),
        };
        Missing::new(format!("how long eBPF programs run cannot be measured, so their budget is not kept: {why}"))
    })
}

/// How long one reading of the clock takes: the least over some batches, since what comes between is none of it.
fn reading_time() -> Duration {
    const BATCHES: u32 = 5;
    const READINGS: u32 = 100;
    let batch = || {
        let began = clock::monotonic_ns();
        let ended = (0..READINGS).fold(began, |_, _| clock::monotonic_ns());
        Duration::from_nanos(ended - began) / READINGS
    };
    (0..BATCHES).map(|_| batch()).min().unwrap_or_default()
}

/// How long processors were busy, and idle, since the boot.
fn processors() -> Result<(Duration, Duration), Missing> {
    let t = KernelStats::current()?.total;
    let busy = t.user + t.nice + t.system + t.irq.unwrap_or(0) + t.softirq.unwrap_or(0) + t.steal.unwrap_or(0);
    let ticks = procfs::ticks_per_second().max(1);
    let time = |count: u64| Duration::from_millis(count.saturating_mul(1_000) / ticks);
    Ok((time(busy), time(t.idle + t.iowait.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// One window in which the first source ran for so many milliseconds of a second, a thousand times, and the second
    /// for one.
    fn window(board: &Board, first_ms: u64, reading: Duration) -> BTreeMap<&'static str, f64> {
        let ran = |source| board.lock().get(source).map_or(Ran::default(), |account| account.ran);
        let (first, second) = (ran("first"), ran("second"));
        board.tell("first", first);
        board.tell("second", second);
        board.begin();
        let and = |ran: Ran, ms: u64| Ran { time: ran.time + Duration::from_millis(ms), runs: ran.runs + 1_000 };
        board.tell("first", and(first, first_ms));
        board.tell("second", and(second, 1));
        board.shares(SECOND, reading)
    }

    #[test]
    fn the_dearest_goes_and_comes_back() {
        let board = Board::default();
        let shares = window(&board, 30, Duration::ZERO);
        assert_eq!(shares, BTreeMap::from([("first", 0.03), ("second", 0.001)]));
        assert_eq!(board.evict(&shares, 0.02, Time(1_000)), Some("first"));
        let reason = board.switched_off("first", Time(2_000)).unwrap();
        assert!(reason.contains("3.00 %") && reason.contains("2.0 %"), "{reason}");
        assert_eq!(board.switched_off("second", Time(2_000)), None);
        assert_eq!(window(&board, 0, Duration::ZERO), BTreeMap::from([("second", 0.001)]), "what is out has no cost");
        assert_eq!(board.switched_off("first", Time(1_000).plus_ms(OUT_FOR_MS)), None);
    }

    #[test]
    fn the_clock_is_not_what_a_program_costs() {
        // Of 30 µs a run, ten are the clock's; of one, all.
        let shares = window(&Board::default(), 30, Duration::from_micros(10));
        assert!((shares["first"] - 0.02).abs() < 1e-9, "{shares:?}");
        assert_eq!(shares["second"], 0.0);
        assert!(reading_time() < Duration::from_millis(1));
    }

    #[test]
    fn what_began_within_a_window_is_not_judged_by_it() {
        let board = Board::default();
        board.begin();
        board.tell("late", Ran { time: SECOND, runs: 9 });
        assert!(board.shares(SECOND, Duration::ZERO).is_empty());
        // Loaded anew, a program has run for less than before.
        board.begin();
        board.tell("late", Ran::default());
        assert!(board.shares(SECOND, Duration::ZERO).is_empty());
        assert_eq!(board.evict(&BTreeMap::new(), 0.02, Time(0)), None);
    }
}
