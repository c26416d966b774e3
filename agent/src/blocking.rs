//! Work that blocks, kept off the runtime's own threads.

use crate::clock;
use tracing::error;

/// Runs what touches the disk on a thread for such. None if it failed outright, which is logged. Under a simulated
/// clock it is run at once: there, one thing happens after the other.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if clock::is_simulated() {
        return Some(work());
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) => {
            error!(%error, "something that touches the disk failed");
            None
        }
    }
}
