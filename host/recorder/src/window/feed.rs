//! Origins, and the short way of their streams into the window.

use super::run::Run;
use aether_core::{
    id::NodeId,
    telemetry::{Batch, Layout, SeriesKey},
};
use foldhash::fast::RandomState;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
};

/// Layouts that a feed remembers, in series that it feeds.
const LAYOUTS_SERIES: usize = 8;

/// One origin, and how many series of the window it feeds.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) id: NodeId,
    pub(crate) series: AtomicUsize,
    waiting: Mutex<Waiting>,
}

/// Batches that came and whose samples are not in their runs yet. Each run is somewhere else in memory: to go there once
/// for several samples is far cheaper than for each. Whoever reads a run has them put there first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) batches: Vec<(Arc<Batch>, Runs)>,
    pub(super) samples: usize,
    /// How often the window has let go of a run of this source.
    pub(super) gone: u64,
}

/// One for each series of a layout.
pub(super) type Runs = Arc<[Arc<Run>]>;

impl Source {
    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one origin feeds. Its streams name a series by the same key in each batch: such a key was checked when it came
/// first, and its samples find their run without a look at its texts. Mostly all of a batch's keys stand as in a batch
/// before, and are found at once.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) source: Arc<Source>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By the address of the key, which cannot become another's while the key is kept here.
    places: HashMap<usize, Place, RandomState>,
    /// The latest first.
    layouts: VecDeque<Placed>,
}

#[derive(Debug)]
struct Place {
    key: Arc<SeriesKey>,
    run: Arc<Run>,
}

#[derive(Debug)]
struct Placed {
    layout: Arc<Layout>,
    runs: Runs,
    /// As [`Waiting::gone`] was when each of the runs was there.
    gone: u64,
}

/// The places of a feed, held.
pub(super) struct Places<'a>(MutexGuard<'a, Known>);

fn address(key: &Arc<SeriesKey>) -> usize {
    Arc::as_ptr(key).addr()
}

impl Feed {
    pub(crate) fn new(id: NodeId) -> Self {
        let source = Source { id, series: AtomicUsize::new(0), waiting: Mutex::default() };
        Self { source: Arc::new(source), known: Mutex::default() }
    }

    pub(super) fn places(&self) -> Places<'_> {
        Places(self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which of these keys, themselves and not their like, came before. None: all of them.
    pub(crate) fn had(&self, layout: &Arc<Layout>) -> Option<Vec<bool>> {
        let known = self.places().0;
        if known.layouts.iter().any(|placed| Arc::ptr_eq(&placed.layout, layout)) {
            return None;
        }
        Some(layout.keys().map(|key| known.places.contains_key(&address(key))).collect())
    }
}

impl Drop for Feed {
    /// What waits leads to runs, and those lead to the source.
    fn drop(&mut self) {
        self.source.waiting().batches.clear();
    }
}

impl Places<'_> {
    pub(super) fn run(&self, key: &Arc<SeriesKey>) -> Option<&Run> {
        self.0.places.get(&address(key)).map(|place| &*place.run)
    }

    pub(super) fn keep(&mut self, key: &Arc<SeriesKey>, run: Arc<Run>, of_series: usize) {
        let Known { places, layouts } = &mut *self.0;
        // Streams that ended leave keys behind, and whoever has no stream brings new ones each time.
        if places.len() > 2 * of_series {
            places.clear();
            layouts.clear();
        }
        places.insert(address(key), Place { key: Arc::clone(key), run });
    }

    /// The runs of a layout's series, if it came before and none of them is gone since.
    pub(super) fn runs(&mut self, layout: &Arc<Layout>, gone: u64) -> Option<Runs> {
        let layouts = &mut self.0.layouts;
        let at = layouts.iter().position(|placed| Arc::ptr_eq(&placed.layout, layout))?;
        let placed = layouts.remove(at)?;
        if placed.gone != gone {
            return None;
        }
        let runs = Arc::clone(&placed.runs);
        layouts.push_front(placed);
        Some(runs)
    }

    /// Remembers where the layout's series lead to, if each has a run of its own that is there. `gone`: as it was before.
    pub(super) fn learn(&mut self, layout: &Arc<Layout>, gone: u64, of_series: usize) {
        if Arc::strong_count(layout) == 1 {
            // No stream keeps it: it does not come again.
            return;
        }
        let Known { places, layouts } = &mut *self.0;
        if layouts.iter().any(|placed| Arc::ptr_eq(&placed.layout, layout)) {
            // It came the long way for another reason: it is old, or there was no room.
            return;
        }
        let mut once = HashSet::with_capacity_and_hasher(layout.len(), RandomState::default());
        let run = |key| {
            let Place { key, run } = places.get(&address(key))?;
            (once.insert(address(key)) && !run.lock().is_gone).then(|| Arc::clone(run))
        };
        let Some(runs) = layout.keys().map(run).collect::<Option<Runs>>() else { return };
        layouts.push_front(Placed { layout: Arc::clone(layout), runs, gone });
        let mut room = LAYOUTS_SERIES * of_series;
        let fit =
            layouts.iter().take_while(|placed| room.checked_sub(placed.runs.len()).map(|left| room = left).is_some());
        let fit = fit.count();
        layouts.truncate(fit);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.0.places.len(), self.0.layouts.len())
    }
}
