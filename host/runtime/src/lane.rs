//! Lanes: a wasmtime engine with a pool of its own for each processor.
//!
//! One pool for all hands the memory that one processor just used, and that is still in its cache, to the next
//! evaluation on another, and every reference count in it goes back and forth: two threads then do hardly more than one.
//! So each processor has its lane, and leaves it only where all its places are taken.

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu};
use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A full pool makes wasmtime's `instantiate` an error, so nobody gets that far without a place.
pub(crate) struct Places {
    lanes: Box<[Lane]>,
    /// Lane of each processor by its number, where it may be used at all.
    of_processor: Box<[usize]>,
    wait: Duration,
    /// Threads that found all lanes full.
    waiting: AtomicUsize,
    turnstile: Mutex<()>,
    freed: Condvar,
}

/// Alone in its cache line: that is what it is for.
#[repr(align(128))]
struct Lane {
    places: u32,
    free: AtomicU32,
}

/// A place in a lane, given back when dropped.
pub(crate) struct Place<'a> {
    places: &'a Places,
    lane: usize,
}

impl Places {
    /// `total` places in as many lanes as there are processors to use them.
    pub(crate) fn new(total: u32, wait: Duration) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::in_lanes(total, u32::try_from(processors).unwrap_or(u32::MAX), wait)
    }

    pub(crate) fn in_lanes(total: u32, lanes: u32, wait: Duration) -> Self {
        let lanes = lanes.clamp(1, total.max(1));
        let places = |lane| total / lanes + u32::from(lane < total % lanes);
        Self {
            lanes: (0..lanes).map(|lane| Lane { places: places(lane), free: AtomicU32::new(places(lane)) }).collect(),
            of_processor: processors(),
            wait,
            waiting: AtomicUsize::new(0),
            turnstile: Mutex::new(()),
            freed: Condvar::new(),
        }
    }

    /// Places of each lane.
    pub(crate) fn each(&self) -> impl Iterator<Item = u32> {
        self.lanes.iter().map(|lane| lane.places)
    }

    /// Whether nobody is in.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.free.load(Ordering::SeqCst) == lane.places)
    }

    /// Waits its turn; none if there was no room in time.
    pub(crate) fn enter(&self) -> Option<Place<'_>> {
        let own = self.own();
        if let Some(place) = self.try_enter(own) {
            return Some(place);
        }
        let turnstile = self.turnstile.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the look that decides to wait: whoever leaves after it sees that somebody waits.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut place = None;
        let full = |(): &mut ()| {
            place = self.try_enter(own);
            place.is_none()
        };
        drop(self.freed.wait_timeout_while(turnstile, self.wait, full).unwrap_or_else(PoisonError::into_inner));
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        place
    }

    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// The lane of the processor that this thread runs on.
    fn own(&self) -> usize {
        let processor = sched_getcpu();
        self.of_processor.get(processor).copied().unwrap_or(processor) % self.lanes.len()
    }

    /// The first place that is free, from lane `own` on.
    fn try_enter(&self, own: usize) -> Option<Place<'_>> {
        let count = self.lanes.len();
        (own..own + count)
            .map(|lane| lane % count)
            .find(|lane| self.lanes[*lane].take())
            .map(|lane| Place { places: self, lane })
    }
}

impl Lane {
    fn take(&self) -> bool {
        self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| free.checked_sub(1)).is_ok()
    }
}

impl Place<'_> {
    pub(crate) fn lane(&self) -> usize {
        self.lane
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Places { lanes, waiting, turnstile, freed, .. } = self.places;
        lanes[self.lane].free.fetch_add(1, Ordering::SeqCst);
        if waiting.load(Ordering::SeqCst) > 0 {
            // Whoever holds it has looked and does not wait yet; told now, it would not hear.
            drop(turnstile.lock().unwrap_or_else(PoisonError::into_inner));
            freed.notify_one();
        }
    }
}

/// Ranks of the processors that this process may use, by their number: 3 and 35 are the first and the second.
fn processors() -> Box<[usize]> {
    let Ok(allowed) = sched_getaffinity(None) else { return Box::default() };
    let mut rank = 0;
    let ranks = (0..CpuSet::MAX_CPU).map(|processor| {
        let own = rank;
        rank += usize::from(allowed.is_set(processor));
        own
    });
    ranks.collect()
}

#[cfg(test)]
mod tests {
    use super::{Place, Places};
    use std::{collections::BTreeMap, sync::mpsc, time::Duration};

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn there_are_as_many_places_as_were_asked_for_and_a_lane_has_at_least_one() {
        for (total, lanes, each) in [(1, 4, vec![1]), (5, 2, vec![3, 2]), (16, 3, vec![6, 5, 5]), (2, 2, vec![1, 1])] {
            let places = Places::in_lanes(total, lanes, Duration::ZERO);
            assert_eq!(places.each().collect::<Vec<_>>(), each);
            let taken: Vec<Place> = std::iter::from_fn(|| places.enter()).collect();
            assert_eq!(taken.len(), total as usize);
            drop(taken);
            assert_eq!(places.each().collect::<Vec<_>>(), each);
        }
    }

    #[test]
    fn a_full_lane_is_left_for_the_next() {
        let places = Places::in_lanes(4, 2, Duration::ZERO);
        let taken: Vec<Place> = (0..4).filter_map(|_| places.try_enter(1)).collect();
        assert_eq!(taken.iter().map(Place::lane).collect::<Vec<_>>(), [1, 1, 0, 0]);
    }

    #[test]
    fn whoever_waits_gets_the_place_that_is_left() {
        let places = Places::in_lanes(2, 2, LONG);
        let (told, entered) = mpsc::channel();
        std::thread::scope(|scope| {
            let first = places.enter().expect("room");
            let second = places.enter().expect("room");
            for _ in 0..8 {
                let (places, told) = (&places, told.clone());
                scope.spawn(move || {
                    let place = places.enter().expect("a place in time");
                    told.send(place.lane()).expect("the test listens");
                });
            }
            drop(first);
            drop(second);
        });
        drop(told);
        let mut lanes = BTreeMap::new();
        for lane in entered {
            *lanes.entry(lane).or_insert(0) += 1;
        }
        assert_eq!(lanes.values().sum::<u32>(), 8);
        assert_eq!(places.each().sum::<u32>(), 2);
    }
}
