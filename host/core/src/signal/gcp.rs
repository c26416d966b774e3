//! Google Compute Engine: preemption and host maintenance, of the metadata server.
//!
//! `GET /computeMetadata/v1/instance/preempted` is `TRUE` or `FALSE`, `.../instance/maintenance-event` is `NONE`,
//! `MIGRATE_ON_HOST_MAINTENANCE` or `TERMINATE_ON_HOST_MAINTENANCE`; `wait_for_change=true` holds the answer until it changes.
//! <https://cloud.google.com/compute/docs/instances/create-use-spot>,
//! <https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice>

use super::{Error, Kind, Notice, format, said};

/// From the notice of a preemption to the end.
pub const PREEMPTION_MS: u64 = 30_000;

/// `instance/preempted`.
pub fn preempted(body: &str) -> Result<Option<Notice>, Error> {
    match body.trim() {
        "TRUE" => {
            let said = said(&[("source", "gcp.metadata"), ("action", "preempted")]);
            Ok(Some(Notice { kind: Kind::Termination { deadline: None }, at: None, said }))
        }
        "FALSE" => Ok(None),
        other => Err(format("instance/preempted", format_args!("`{}` is neither TRUE nor FALSE", super::short(other)))),
    }
}

/// `instance/maintenance-event`. A live migration takes nothing away. A machine with GPUs cannot be migrated: it is
/// terminated an hour after the notice, so that is a time to leave, and not yet the end.
pub fn maintenance_event(body: &str) -> Result<Option<Notice>, Error> {
    match body.trim() {
        "NONE" | "MIGRATE_ON_HOST_MAINTENANCE" => Ok(None),
        event @ "TERMINATE_ON_HOST_MAINTENANCE" => {
            let said = said(&[("source", "gcp.metadata"), ("action", event)]);
            Ok(Some(Notice { kind: Kind::Rebalance, at: None, said }))
        }
        other => Err(format("instance/maintenance-event", format_args!("`{}` is not known", super::short(other)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_answers() {
        assert_eq!(preempted("FALSE"), Ok(None));
        assert_eq!(preempted("TRUE\n").unwrap().map(|notice| notice.kind), Some(Kind::Termination { deadline: None }));
        assert!(preempted("<html>").is_err());
        let kind = |text| maintenance_event(text).map(|notice| notice.map(|notice| notice.kind));
        assert_eq!(kind("NONE"), Ok(None));
        assert_eq!(kind("MIGRATE_ON_HOST_MAINTENANCE"), Ok(None));
        assert_eq!(kind("TERMINATE_ON_HOST_MAINTENANCE"), Ok(Some(Kind::Rebalance)));
        assert!(kind("").is_err());
    }
}
