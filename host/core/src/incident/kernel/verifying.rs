//! Verification: success must show on samples that were taken after execution ended, and hold for the whole watch.

use super::super::{
    event::{Effect, TimerKind},
    state::{Incident, Phase, Reading, Resolution},
};
use crate::{
    artifact::{Body, Evidence, Status},
    catalogue::verb,
    time::Time,
};

/// Beyond the watch itself: samples have to be taken, batched and sent first.
const WATCH_GRACE_MS: u64 = 30_000;

impl Incident {
    pub(super) fn executed(&mut self, now: Time, out: &mut Vec<Effect>) {
        let dry = self.flags.dry_run;
        let summary = if dry { "dry run: every step was checked, nothing was changed" } else { "every step was done" };
        self.record_execution(now, Status::Complete, summary.into(), out);
        if self.success().is_empty() || self.is_moot() {
            return self.verified(now, now, true, &[], (0, 0), out);
        }
        let watch = self.plan.as_ref().map_or(0, |plan| plan.watch_ms);
        // Twice the watch, so that success has time to begin and then to hold for the whole of it.
        let until = now.plus_ms(watch.saturating_mul(2).saturating_add(WATCH_GRACE_MS));
        self.phase = Phase::Verifying { since: now, until, held_since: None, read_at: None, samples: 0, gaps: 0 };
        out.push(Effect::Watch);
        out.push(Effect::Arm { timer: TimerKind::Watch, at: until });
    }

    /// A dry run puts nothing to sleep and wakes nothing, so that cannot be seen.
    fn is_moot(&self) -> bool {
        let power = |step: &crate::plan::Step| [verb::SLEEP, verb::WAKE].contains(&step.verb.as_str());
        self.flags.dry_run && self.plan.as_ref().is_some_and(|plan| plan.steps.iter().any(power))
    }

    pub(super) fn verifying(&mut self, now: Time, readings: &[Reading], every_ms: Option<u64>, out: &mut Vec<Effect>) {
        let Phase::Verifying { since, until, held_since, read_at, samples, gaps } = self.phase.clone() else { return };
        let complete = self.success().iter().all(|condition| readings.iter().any(|r| r.condition == *condition));
        // What was not looked at for longer than a reading is good for may have been anything meanwhile.
        let unseen = self.success().iter().map(|condition| condition.fresh_within_ms).min().unwrap_or(u64::MAX);
        let gap = held_since.is_some()
            && every_ms.is_some_and(|every| {
                read_at.is_some_and(|last| now.since_ms(last) > unseen.max(every.saturating_mul(2)))
            });
        let newest = |readings: &[Reading]| readings.iter().filter_map(|reading| reading.sampled_at).max();
        let is_new = newest(readings) > newest(&self.after);
        self.after = readings.to_vec();
        let holds = complete && readings.iter().all(|reading| reading.holds(now, since));
        let held_before = held_since.filter(|_| !gap);
        let held_since = holds.then(|| held_before.unwrap_or(now));
        let gaps = gaps.saturating_add(u32::from(gap));
        let samples = match (holds, held_before) {
            (false, _) => 0,
            (true, None) => 1,
            (true, Some(_)) => samples.saturating_add(u32::from(is_new)),
        };
        let watch = self.plan.as_ref().map_or(0, |plan| plan.watch_ms);
        if held_since.is_some_and(|held| now.since_ms(held) >= watch) {
            return self.verified(now, since, true, readings, (samples, gaps), out);
        }
        if now >= until {
            return self.verified(now, since, false, readings, (samples, gaps), out);
        }
        self.phase = Phase::Verifying { since, until, held_since, read_at: Some(now), samples, gaps };
    }

    /// What makes the evidence of success weaker than it looks.
    fn weaknesses(&self, verified: bool, after: &[Reading], (samples, gaps): (u32, u32)) -> Vec<String> {
        let mut weak: Vec<String> = after
            .iter()
            .filter(|reading| reading.value.is_none())
            .map(|reading| format!("{} of {} was not sampled", reading.condition.metric, reading.condition.target))
            .collect();
        if self.flags.dry_run {
            weak.push("a dry run changes nothing that could be verified".into());
            return weak;
        }
        if after.is_empty() {
            weak.push("the plan names no condition of success".into());
            return weak;
        }
        if gaps > 0 {
            weak.push(format!(
                "nobody looked for longer than a reading is good for, {gaps} time(s); the watch began anew after it"
            ));
        }
        if verified && samples < 2 {
            weak.push("success rests on a single sample".into());
        }
        if self.before.iter().all(|reading| reading.value.is_none()) {
            weak.push("nothing was sampled before, so there is nothing to compare with".into());
        }
        if after.iter().all(|reading| reading.condition.minimum.is_none_or(|minimum| minimum <= 0.0)) {
            weak.push("every condition would hold on an idle machine, too: success was not shown under load".into());
        }
        weak
    }

    pub(super) fn verified(
        &mut self,
        now: Time,
        since: Time,
        verified: bool,
        after: &[Reading],
        seen: (u32, u32),
        out: &mut Vec<Effect>,
    ) {
        out.push(Effect::Disarm { timer: TimerKind::Watch });
        let weak = self.weaknesses(verified, after, seen);
        let dry = self.flags.dry_run;
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
            let unchecked = after.is_empty() && !dry;
            let resolution = if unchecked { Resolution::Unchecked } else { Resolution::Resolved };
            let action = unchecked.then(|| "Look at the subject: it was done, and nobody checked what it did.".into());
            self.close(now, resolution, summary.into(), action, out);
        } else {
            out.push(Effect::Tell { message: format!("{}: {summary}", self.id) });
            let action = "Look at the workload: the action was done, its success did not show.".to_string();
            self.close(now, Resolution::NotVerified, summary.into(), Some(action), out);
        }
    }
}
