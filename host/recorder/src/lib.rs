//! The flight recorder: the one store of telemetry history. Scorers, evidence, charts, backtests and exports read it.
//!
//! ```text
//! append -> hot window (memory, bounded) ------------------> columns, latest, range, events
//!        -> unsealed batches -- seal --> segment (Parquet, synced) -- open --> hot window, positions
//!                                           |                                      |
//!                                           +-> safe position: what is acknowledged to the sender
//! ```
//! There is no write-ahead log: a batch is *safe* when its segment is sealed and synced, and until then the sender's
//! spool keeps it. A crash loses nothing: what was not sealed is sent again; what was is known as a duplicate, because
//! each segment's footer says how far each origin's stream is settled.
//!
//! Deliberately absent: a clock (the caller passes `now`), tasks of its own (the driver calls [`Recorder::seal`],
//! [`Recorder::compact`] and [`Recorder::enforce_retention`]), any knowledge of what a metric means, and SQL.

mod admission;
mod aside;
mod counters;
mod error;
mod positions;
mod range;
mod recorder;
mod resample;
mod segment;
mod settings;
mod shelf;
#[cfg(test)]
mod testing;
mod window;

pub use error::{Error, Rejected};
pub use positions::Safe;
pub use range::{Bucket, RangeAnswer, RangeQuery, RangeSeries};
pub use recorder::{
    Appended, Compacted, Excerpt, ExcerptQuery, Excerpts, Export, Frozen, Recorder, Sealed, SeriesInfo, Status,
};
pub use settings::Settings;

use object_store::{ObjectStore, local::LocalFileSystem};
use std::{path::Path, sync::Arc};

/// Segments in a folder of this machine, which is made if it is missing. Every write is synced, the file and its folders:
/// without that, a segment could vanish in a power failure after its batches were acknowledged.
pub fn local_store(folder: &Path) -> Result<Arc<dyn ObjectStore>, Error> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Folder { path: folder.display().to_string(), source })?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(Error::Store)?;
    Ok(Arc::new(store.with_fsync(true)))
}
