//! Backtests: history asked anew, under a virtual clock, of components that may stand in a slot one day.
//!
//! ```text
//! recorder (hot and sealed) --+                          +-- each component once a step, on bounded threads
//! imported CSV ---------------+-> excerpt -> observation +-> Trial (aether-core) -> report
//! recorded decisions ---------------------> question ----+
//! ```
//! The same runner serves the command line without a server and the server. The clock of an evaluation is its virtual
//! time, its randomness is seeded by what is tested and when: so the same history and components give the same report.
//! Nothing that a backtest finds has an effect on the fleet.
//!
//! Deliberately absent: what counts as caught (`aether_core::backtest`), and what becomes of a report (the slots').

mod documents;
mod error;
mod history;
mod jobs;
mod labels;
mod run;
mod store;
pub mod when;

pub use documents::{BacktestInfo, BacktestRequest, BacktestState, HistoryAbout, HistoryInfo};
pub use error::Error;
pub use history::{History, Imported, Mapping, ROWS_LIMIT, subject_of};
pub use jobs::{Backtests, Parts};
pub use labels::labels;
pub use run::{Bounds, Progress, Sides, Test, run};
pub use store::{HISTORY_BYTES_LIMIT, Histories};
