//! Which of several hosts on one database drives: the one that has the lease. The others wait.
//!
//! The lease decides who may try; what it protects does not hang on any clock. Whatever drives is written under the
//! lease's epoch ([`Store::under`]), an order carries it, and an agent takes none that is older than it has seen.

use crate::{clock, store};
use std::time::Duration;
use store::Store;
use tokio_util::sync::CancellationToken;

/// Renewals within the time after which it counts as given up.
const RENEWALS: u32 = 3;

/// Waits until `holder` has the lease, and gives the store to drive with. A lease that was not renewed for `lease_ms` is
/// taken over.
pub async fn take(store: &Store, holder: &str, lease_ms: u64) -> Result<Store, store::Error> {
    let mut seen = None;
    loop {
        match store.take_lease(holder, seen.as_ref(), clock::now()).await? {
            Ok(epoch) => {
                tracing::info!(epoch, "this host drives");
                return Ok(store.under(epoch));
            }
            Err(by) => {
                if seen.is_none() {
                    tracing::warn!(
                        holder = by.holder,
                        "another host drives this database; this one waits until it stops [AE0089]"
                    );
                }
                seen = Some(by);
            }
        }
        tokio::time::sleep(Duration::from_millis(lease_ms)).await;
    }
}

/// Renews the lease until another has it (then it returns), or until `stop`.
pub async fn keep(store: Store, lease_ms: u64, stop: CancellationToken) {
    let mut renewals = tokio::time::interval(Duration::from_millis(lease_ms) / RENEWALS);
    renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = renewals.tick() => {}
        }
        match store.renew_lease().await {
            Ok(true) => {}
            Ok(false) => {
                tracing::error!("another host has taken the lease; this one drives no longer [AE0088]");
                return;
            }
            // As long as nobody else has taken it, it is this host's.
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the lease could not be renewed; it is tried again"
                );
            }
        }
    }
}
