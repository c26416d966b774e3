//! The market's part of a spot reclaim: calm prices, a climb, and the provider's notice, as a feeder would have sent
//! them. Ordinary series and events of the recorder, which say that they are of a drill.

use crate::store::drills::Drill;
use aether_core::{
    drill::ATTRIBUTE,
    id::NodeId,
    metric,
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_recorder::{Recorder, Rejected};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The origin of these signals in the recorder.
const ORIGIN: &str = "drills";
/// Samples of the price before it climbs, and while it does, one each ten seconds.
const CALM_SAMPLES: u32 = 30;
const CLIMB_SAMPLES: u32 = 12;
const SAMPLE_MS: u64 = 10_000;
const CALM_PRICE: f64 = 0.31;
/// Enough to be seen, and not so much that the price alone is an alarm for an hour after the drill.
const PEAK_PRICE: f64 = 0.40;

/// Numbers the batches. The epoch is the start of this process: a batch is never taken for an earlier one.
pub(super) struct Market {
    epoch: u64,
    sequence: Mutex<u64>,
}

impl Market {
    pub(super) fn new(now: Time) -> Self {
        Self { epoch: u64::try_from(now.0).unwrap_or_default(), sequence: Mutex::new(0) }
    }

    /// The market as it looks at a reclaim. Nothing is told of the time before the newest price that is known.
    pub(super) fn climb(&self, recorder: &Recorder, drill: &Drill, now: Time) -> Result<(), String> {
        let subject = SubjectRef::node(drill.node.as_str());
        let since = recorder.latest(&subject, metric::MARKET_PRICE).into_iter().map(|(_, sample)| sample.at).max();
        self.append(recorder, drill, climb(now, since), &[], now)
    }

    /// The price is calm, and the recommendation is taken back.
    pub(super) fn calm(&self, recorder: &Recorder, drill: &Drill, now: Time) -> Result<(), String> {
        let calm = vec![Sample { at: now, value: CALM_PRICE }];
        self.append(recorder, drill, calm, &[("state", "cleared")], now)
    }

    fn append(
        &self,
        recorder: &Recorder,
        drill: &Drill,
        samples: Vec<Sample>,
        state: &[(&str, &str)],
        now: Time,
    ) -> Result<(), String> {
        let subject = SubjectRef::node(drill.node.as_str());
        let said = BTreeMap::from([
            ("source".to_owned(), drill.by.0.clone()),
            (ATTRIBUTE.to_owned(), drill.kind.name().to_owned()),
        ]);
        let key = SeriesKey {
            subject: subject.clone(),
            metric: metric::MARKET_PRICE.into(),
            unit: "{USD}/h".into(),
            attributes: said.clone(),
        };
        let mut attributes = said;
        attributes.extend(state.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let notice = DiscreteEvent { subject, name: metric::MARKET_REBALANCE.into(), at: now, attributes };
        let series =
            if samples.is_empty() { vec![] } else { vec![SeriesSamples { key: key.into(), samples: samples.into() }] };
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = NodeId::new(ORIGIN);
        let batch =
            Batch { origin, epoch: self.epoch, sequence: *sequence + 1, series: series.into(), events: vec![notice] };
        match recorder.append(batch, now) {
            Ok(_) => {
                *sequence += 1;
                Ok(())
            }
            Err(Rejected::Full { .. }) => Err("the recorder has no room just now".into()),
            Err(Rejected::Malformed { text, .. }) => {
                // The recorder counts the sequence of a malformed batch as settled.
                *sequence += 1;
                Err(text)
            }
        }
    }
}

fn climb(now: Time, since: Option<Time>) -> Vec<Sample> {
    let samples = CALM_SAMPLES + CLIMB_SAMPLES;
    let price = |sample: u32| {
        let at = now.minus_ms(u64::from(samples - 1 - sample) * SAMPLE_MS);
        let climbed = f64::from(sample.saturating_sub(CALM_SAMPLES - 1)) / f64::from(CLIMB_SAMPLES);
        // A little restless, as markets are, and the same each time.
        let ripple = f64::from(sample % 3) * 0.001;
        Sample { at, value: CALM_PRICE + ripple + climbed * (PEAK_PRICE - CALM_PRICE) }
    };
    (0..samples).map(price).filter(|sample| Some(sample.at) > since).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_climbs_from_calm_and_ends_now() {
        let now = Time(1_000_000_000);
        let prices = climb(now, None);
        assert!(prices[..CALM_SAMPLES as usize].iter().all(|price| price.value < CALM_PRICE * 1.05));
        assert!(prices.last().is_some_and(|price| (PEAK_PRICE..PEAK_PRICE + 0.01).contains(&price.value)));
        assert!(prices.windows(2).all(|pair| pair[0].at < pair[1].at));
        assert_eq!(prices.last().map(|price| price.at), Some(now));
    }

    #[test]
    fn a_second_drill_tells_nothing_of_the_time_of_the_first() {
        let now = Time(1_000_000_000);
        let since = now.minus_ms(3 * SAMPLE_MS);
        let prices = climb(now, Some(since));
        assert!(prices.iter().all(|price| price.at > since));
        assert_eq!(prices.len(), 3);
    }
}
