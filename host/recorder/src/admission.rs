//! What a batch must be to be taken: names that are names, times in order and within reason, sizes within bounds.
//!
//! A value that is no number is not a reason to refuse: it is a gap, dropped and counted.

use crate::{Rejected, Settings};
use aether_core::{
    id::is_name,
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use std::{collections::BTreeMap, sync::Arc};

pub(crate) const SERIES_PER_BATCH: usize = 10_000;
pub(crate) const SAMPLES_PER_BATCH: usize = 200_000;
pub(crate) const EVENTS_PER_BATCH: usize = 10_000;
const NAME_BYTES: usize = 255;
const UNIT_BYTES: usize = 63;
const ID_BYTES: usize = 253;
const ATTRIBUTES: usize = 32;
const ATTRIBUTE_KEY_BYTES: usize = 128;
const ATTRIBUTE_VALUE_BYTES: usize = 1_024;

fn no(code: &'static str, text: String) -> Rejected {
    Rejected::Malformed { code, text }
}

/// Refuses what is malformed, and drops samples that are no finite numbers. Answers how many it dropped. `had`: which of
/// the batch's series have keys that were checked before; none of those beyond its end.
pub(crate) fn admit(batch: &mut Batch, had: &[bool], settings: &Settings, now: Time) -> Result<u64, Rejected> {
    if !is_name(batch.origin.as_str()) {
        return Err(no("telemetry.name", "the origin is not a name: 1 to 63 of a-z 0-9 - . are wanted".to_owned()));
    }
    let samples: usize = batch.series.iter().map(|s| s.samples.len()).sum();
    for (what, count, limit) in [
        ("series", batch.series.len(), SERIES_PER_BATCH),
        ("samples", samples, SAMPLES_PER_BATCH),
        ("events", batch.events.len(), EVENTS_PER_BATCH),
    ] {
        if count > limit {
            return Err(no(
                "telemetry.too_large",
                format!("the batch has {count} {what}, and {limit} is the limit: send smaller batches"),
            ));
        }
    }
    let latest = now.plus_ms(settings.ahead_limit_ms);
    let earliest = Time(now.minus_ms(settings.retain_ms).0.max(1));
    let out_of_reason = |at: Time, of: &str| {
        let text = if at > latest {
            format!(
                "{of} is {} ms ahead of the host's clock, and {} is the limit: check the sender's clock",
                at.since_ms(now),
                settings.ahead_limit_ms
            )
        } else {
            format!(
                "{of} is {} ms old, and history is kept for {} ms: check the sender's clock",
                now.since_ms(at),
                settings.retain_ms
            )
        };
        no("telemetry.time", text)
    };
    let in_reason = earliest..=latest;
    for (series, had) in batch.series.iter().zip(had.iter().chain(std::iter::repeat(&false))) {
        let key = &series.key;
        if !had {
            name(key)?;
        }
        if let Some(pair) = series.samples.windows(2).find(|pair| pair[0].at >= pair[1].at) {
            return Err(no(
                "telemetry.unordered",
                format!(
                    "samples of {} on {} are not in order of time: {} is followed by {}",
                    key.metric, key.subject, pair[0].at.0, pair[1].at.0
                ),
            ));
        }
        let mut edges = [series.samples.first(), series.samples.last()].into_iter().flatten();
        if let Some(edge) = edges.find(|edge| !in_reason.contains(&edge.at)) {
            return Err(out_of_reason(edge.at, &key.metric));
        }
    }
    for event in &batch.events {
        subject(&event.subject)?;
        metric_name(&event.name)?;
        attributes(&event.attributes, &event.name)?;
        if !in_reason.contains(&event.at) {
            return Err(out_of_reason(event.at, &event.name));
        }
    }
    let mut dropped = 0;
    for series in &mut batch.series {
        let before = series.samples.len();
        series.samples.retain(|s| s.value.is_finite());
        dropped += before - series.samples.len();
    }
    Ok(u64::try_from(dropped).unwrap_or(u64::MAX))
}

fn name(key: &SeriesKey) -> Result<(), Rejected> {
    subject(&key.subject)?;
    metric_name(&key.metric)?;
    if key.unit.len() > UNIT_BYTES || !key.unit.chars().all(|c| c.is_ascii_graphic()) {
        return Err(no(
            "telemetry.name",
            format!("the unit of {} is not a UCUM unit of at most {UNIT_BYTES} printable characters", key.metric),
        ));
    }
    attributes(&key.attributes, &key.metric)
}

fn subject(subject: &SubjectRef) -> Result<(), Rejected> {
    let sane = |c: char| c.is_ascii_alphanumeric() || "-._:/@".contains(c);
    if subject.id.is_empty() || subject.id.len() > ID_BYTES || !subject.id.chars().all(sane) {
        return Err(no(
            "telemetry.name",
            format!("a subject's id must be 1 to {ID_BYTES} of letters, digits and - . _ : / @"),
        ));
    }
    Ok(())
}

fn metric_name(name: &str) -> Result<(), Rejected> {
    let sane = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || name.len() > NAME_BYTES || !name.chars().all(sane) {
        return Err(no(
            "telemetry.name",
            format!(
                "a metric's or event's name must be 1 to {NAME_BYTES} of letters, digits and . _ - /, and begin with a letter"
            ),
        ));
    }
    Ok(())
}

fn attributes(attributes: &BTreeMap<String, String>, of: &str) -> Result<(), Rejected> {
    let sane = |text: &str, limit: usize| text.len() <= limit && !text.chars().any(char::is_control);
    let all =
        attributes.iter().all(|(k, v)| !k.is_empty() && sane(k, ATTRIBUTE_KEY_BYTES) && sane(v, ATTRIBUTE_VALUE_BYTES));
    if attributes.len() > ATTRIBUTES || !all {
        return Err(no(
            "telemetry.attributes",
            format!(
                "{of} must have at most {ATTRIBUTES} attributes, with keys of 1 to {ATTRIBUTE_KEY_BYTES} bytes, values of at most {ATTRIBUTE_VALUE_BYTES}, and no control characters"
            ),
        ));
    }
    Ok(())
}

/// Bytes that a batch holds in memory, roughly: what the bound on the unsealed counts. The texts of a key that its stream
/// keeps are not the batch's own.
pub(crate) fn weigh(batch: &Batch) -> usize {
    let of_map = |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| k.len() + v.len() + 64).sum::<usize>();
    let of_key = |key: &SeriesKey| {
        size_of::<SeriesKey>() + key.subject.id.len() + key.metric.len() + key.unit.len() + of_map(&key.attributes)
    };
    let of_series = |series: &SeriesSamples| {
        let own = if Arc::strong_count(&series.key) == 1 { of_key(&series.key) } else { 0 };
        size_of::<SeriesSamples>() + series.samples.len().max(2) * size_of::<Sample>() + own
    };
    let of_event = |event: &DiscreteEvent| {
        size_of::<DiscreteEvent>() + event.subject.id.len() + event.name.len() + of_map(&event.attributes)
    };
    let of_all = batch.series.iter().map(of_series).sum::<usize>() + batch.events.iter().map(of_event).sum::<usize>();
    size_of::<Batch>() + batch.origin.as_str().len() + of_all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, batch, sample};
    use aether_core::{
        subject::SubjectKind,
        telemetry::{DiscreteEvent, SeriesKey},
    };
    use std::sync::Arc;

    fn key(batch: &mut Batch) -> &mut SeriesKey {
        Arc::make_mut(&mut batch.series[0].key)
    }

    fn code(change: impl FnOnce(&mut Batch)) -> &'static str {
        let mut batch = batch("node-a", 1, &[sample(NOW.0 - 2_000, 1.0), sample(NOW.0 - 1_000, 2.0)]);
        change(&mut batch);
        match admit(&mut batch, &[], &Settings::default(), NOW) {
            Ok(_) => "taken",
            Err(rejected) => {
                assert!(!rejected.is_retryable());
                rejected.code()
            }
        }
    }

    #[test]
    fn a_malformed_batch_is_refused_by_code() {
        let event = |at| DiscreteEvent {
            subject: SubjectRef::node("node-a"),
            name: "gpu.xid".to_owned(),
            at,
            attributes: BTreeMap::new(),
        };
        assert_eq!(code(|_| ()), "taken");
        assert_eq!(code(|b| b.series[0].samples.reverse()), "telemetry.unordered");
        assert_eq!(code(|b| b.series[0].samples[0].at = b.series[0].samples[1].at), "telemetry.unordered");
        assert_eq!(code(|b| b.series[0].samples[1].at = NOW.plus_ms(601_000)), "telemetry.time");
        assert_eq!(code(|b| b.series[0].samples[0].at = Time(0)), "telemetry.time");
        assert_eq!(code(|b| b.events.push(event(Time(-5)))), "telemetry.time");
        assert_eq!(code(|b| b.events.push(event(NOW))), "taken");
        assert_eq!(code(|b| b.origin.0 = "../etc".to_owned()), "telemetry.name");
        assert_eq!(
            code(|b| key(b).subject = SubjectRef { kind: SubjectKind::Gpu, id: "a b".to_owned() }),
            "telemetry.name"
        );
        assert_eq!(code(|b| key(b).metric.clear()), "telemetry.name");
        assert_eq!(code(|b| key(b).metric = "x".repeat(256)), "telemetry.name");
        assert_eq!(code(|b| key(b).unit = "\u{7}".to_owned()), "telemetry.name");
        assert_eq!(
            code(|b| drop(key(b).attributes.insert("k".to_owned(), "line\nline".to_owned()))),
            "telemetry.attributes"
        );
        assert_eq!(code(|b| b.series = vec![b.series[0].clone(); SERIES_PER_BATCH + 1]), "telemetry.too_large");
    }

    #[test]
    fn a_value_that_is_no_number_is_a_gap() {
        let mut batch =
            batch("node-a", 1, &[sample(NOW.0 - 2, f64::NAN), sample(NOW.0 - 1, f64::INFINITY), sample(NOW.0, 2.0)]);
        assert_eq!(admit(&mut batch, &[], &Settings::default(), NOW), Ok(2));
        assert_eq!(*batch.series[0].samples, [sample(NOW.0, 2.0)]);
    }
}
