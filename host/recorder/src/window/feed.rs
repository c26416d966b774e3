//! Origins, and the short way of their streams into the window.

use super::run::Run;
use aether_core::{
    id::NodeId,
    telemetry::{SeriesKey, SeriesSamples},
};
use foldhash::fast::RandomState;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
};

/// One origin, and how many series of the window it feeds.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) id: NodeId,
    pub(crate) series: AtomicUsize,
}

/// What one origin feeds. Its streams name a series by the same key in each batch: such a key was checked when it came
/// first, and its samples find their run without a look at its texts.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) source: Arc<Source>,
    /// By the address of the key, which cannot become another's while the key is kept here.
    places: Mutex<HashMap<usize, Place, RandomState>>,
}

#[derive(Debug)]
struct Place {
    _key: Arc<SeriesKey>,
    run: Arc<Run>,
}

/// The places of a feed, held.
pub(super) struct Places<'a>(MutexGuard<'a, HashMap<usize, Place, RandomState>>);

fn address(key: &Arc<SeriesKey>) -> usize {
    Arc::as_ptr(key).addr()
}

impl Feed {
    pub(crate) fn new(id: NodeId) -> Self {
        Self { source: Arc::new(Source { id, series: AtomicUsize::new(0) }), places: Mutex::default() }
    }

    pub(super) fn places(&self) -> Places<'_> {
        Places(self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which of these keys, themselves and not their like, came before.
    pub(crate) fn had(&self, series: &[SeriesSamples]) -> Vec<bool> {
        let places = self.places();
        series.iter().map(|one| places.run(&one.key).is_some()).collect()
    }
}

impl Places<'_> {
    pub(super) fn run(&self, key: &Arc<SeriesKey>) -> Option<&Run> {
        self.0.get(&address(key)).map(|place| &*place.run)
    }

    pub(super) fn keep(&mut self, key: &Arc<SeriesKey>, run: Arc<Run>, of_series: usize) {
        // Streams that ended leave keys behind, and whoever has no stream brings new ones each time.
        if self.0.len() > 2 * of_series {
            self.0.clear();
        }
        self.0.insert(address(key), Place { _key: Arc::clone(key), run });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
