//! Verification: success must show on samples that were taken after execution ended, and hold for the whole watch.

use super::super::{
    event::{Effect, TimerKind},
    state::{Incident, Phase, Reading, Resolution},
};
use crate::{
    artifact::{Body, Evidence, Status},
    time::Time,
};

/// Beyond the watch itself: samples have to be taken, batched and sent first.
const WATCH_GRACE_MS: u64 = 30_000;

impl Incident {
    pub(super) fn executed(&mut self, now: Time, out: &mut Vec<Effect>) {
        let dry = self.flags.dry_run;
        let summary = if dry { "dry run: every step was checked, nothing was changed" } else { "every step was done" };
        self.record_execution(now, Status::Complete, summary.into(), out);
        if self.success().is_empty() {
            return self.verified(now, now, true, &[], out);
        }
        let watch = self.plan.as_ref().map_or(0, |plan| plan.watch_ms);
        // Twice the watch, so that success has time to begin and then to hold for the whole of it.
        let until = now.plus_ms(watch.saturating_mul(2).saturating_add(WATCH_GRACE_MS));
        self.phase = Phase::Verifying { since: now, until, held_since: None };
        out.push(Effect::Watch);
        out.push(Effect::Arm { timer: TimerKind::Watch, at: until });
    }

    pub(super) fn verifying(
        &mut self,
        now: Time,
        since: Time,
        until: Time,
        held_since: Option<Time>,
        readings: &[Reading],
        out: &mut Vec<Effect>,
    ) {
        let complete = self.success().iter().all(|condition| readings.iter().any(|r| r.condition == *condition));
        self.after = readings.to_vec();
        let holds = complete && readings.iter().all(|reading| reading.holds(now, since));
        let held_since = holds.then(|| held_since.unwrap_or(now));
        let watch = self.plan.as_ref().map_or(0, |plan| plan.watch_ms);
        if held_since.is_some_and(|held| now.since_ms(held) >= watch) {
            return self.verified(now, since, true, readings, out);
        }
        if now >= until {
            return self.verified(now, since, false, readings, out);
        }
        self.phase = Phase::Verifying { since, until, held_since };
    }

    pub(super) fn verified(
        &mut self,
        now: Time,
        since: Time,
        verified: bool,
        after: &[Reading],
        out: &mut Vec<Effect>,
    ) {
        out.push(Effect::Disarm { timer: TimerKind::Watch });
        let mut weak: Vec<String> = after
            .iter()
            .filter(|reading| reading.value.is_none())
            .map(|reading| format!("{} of {} was not sampled", reading.condition.metric, reading.condition.target))
            .collect();
        let dry = self.flags.dry_run;
        if dry {
            weak.push("a dry run changes nothing that could be verified".into());
        } else if after.is_empty() {
            weak.push("the plan names no condition of success".into());
        }
        let summary = match (verified, dry, after.is_empty()) {
            (true, true, _) => "dry run: nothing to verify",
            (true, false, true) => "no condition of success was given, so none was checked",
            (true, false, false) => "every condition of success held on fresh evidence for the whole watch window",
            (false, _, _) => "success did not show within the watch window",
        };
        let evidence = after
            .iter()
            .map(|reading| Evidence::Series {
                subject: reading.condition.target.subject(),
                metric: reading.condition.metric.clone(),
                from: since,
                to: now,
            })
            .collect();
        let body = Body::VerificationResult {
            verified,
            before: self.before.clone(),
            after: after.to_vec(),
            watch_ms: self.plan.as_ref().map_or(0, |plan| plan.watch_ms),
            weak,
            summary: summary.into(),
        };
        self.record(now, if verified { Status::Complete } else { Status::Failed }, evidence, body, out);
        self.note(now, summary.into());
        if verified {
            self.close(now, Resolution::Resolved, summary.into(), None, out);
        } else {
            out.push(Effect::Tell { message: format!("{}: {summary}", self.id) });
            let action = "Look at the workload: the action was done, its success did not show.".to_string();
            self.close(now, Resolution::NotVerified, summary.into(), Some(action), out);
        }
    }
}
