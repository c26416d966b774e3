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
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By the address of the key, which cannot become another's while the key is kept here.
    places: HashMap<usize, Place, RandomState>,
    /// As they stood in the batch before: mostly they stand so again, and are found here in order and not all over the
    /// memory.
    order: Vec<Option<Place>>,
}

#[derive(Clone, Debug)]
struct Place {
    key: Arc<SeriesKey>,
    run: Arc<Run>,
}

/// The places of a feed, held.
pub(super) struct Places<'a>(MutexGuard<'a, Known>);

fn address(key: &Arc<SeriesKey>) -> usize {
    Arc::as_ptr(key).addr()
}

impl Feed {
    pub(crate) fn new(id: NodeId) -> Self {
        Self { source: Arc::new(Source { id, series: AtomicUsize::new(0) }), known: Mutex::default() }
    }

    pub(super) fn places(&self) -> Places<'_> {
        Places(self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which of these keys, themselves and not their like, came before.
    pub(crate) fn had(&self, series: &[SeriesSamples]) -> Vec<bool> {
        let mut places = self.places();
        series.iter().enumerate().map(|(at, one)| places.run(at, &one.key).is_some()).collect()
    }
}

impl Places<'_> {
    /// The run of the key that stands there in a batch.
    pub(super) fn run(&mut self, at: usize, key: &Arc<SeriesKey>) -> Option<&Run> {
        let Known { places, order } = &mut *self.0;
        if order.len() <= at {
            order.resize(at + 1, None);
        }
        let stood = order.get_mut(at)?;
        if stood.as_ref().is_none_or(|place| !Arc::ptr_eq(&place.key, key)) {
            *stood = Some(places.get(&address(key))?.clone());
        }
        stood.as_ref().map(|place| &*place.run)
    }

    pub(super) fn keep(&mut self, key: &Arc<SeriesKey>, run: Arc<Run>, of_series: usize) {
        let Known { places, order } = &mut *self.0;
        // Where a run took the place of one that is gone, it is looked up again.
        order.clear();
        // Streams that ended leave keys behind, and whoever has no stream brings new ones each time.
        if places.len() > 2 * of_series {
            places.clear();
        }
        places.insert(address(key), Place { key: Arc::clone(key), run });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.places.len()
    }
}
