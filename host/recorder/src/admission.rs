//! What a batch must be to be taken: names that are names, times in order and within reason, sizes within bounds.
//!
//! A value that is no number is not a reason to refuse: it is a gap, dropped and counted.

use crate::{Rejected, Settings};
use aether_core::{
    id::is_name,
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, SeriesKey},
    time::Time,
};
use std::{collections::BTreeMap, sync::Arc};

pub(crate) const SERIES_PER_BATCH: usize = 10_000;
pub(crate) const SAMPLES_PER_BATCH: usize = 200_000;
pub(crate) const EVENTS_PER_BATCH: usize = 10_000;
/// Of a series in a layout, beside its key.
const SERIES_BYTES: usize = 32;
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
/// the batch's series have keys that were checked before; none of those beyond its end. None: all of them.
pub(crate) fn admit(batch: &mut Batch, had: Option<&[bool]>, settings: &Settings, now: Time) -> Result<u64, Rejected> {
    if !is_name(batch.origin.as_str()) {
        return Err(no("telemetry.name", "the origin is not a name: 1 to 63 of a-z 0-9 - . are wanted".to_owned()));
    }
    for (what, count, limit) in [
        ("series", batch.series.len(), SERIES_PER_BATCH),
        ("samples", batch.series.values().len(), SAMPLES_PER_BATCH),
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
    if let Some(had) = had {
        let unchecked = batch.series.layout().keys().zip(had.iter().chain(std::iter::repeat(&false)));
        unchecked.filter(|(_, had)| !**had).try_for_each(|(key, _)| name(key))?;
    }
    let is_ordered = |times: &[Time]| times.is_sorted_by(|a, b| a < b);
    let edges = |times: &[Time]| [times.first().copied(), times.last().copied()].into_iter().flatten();
    let is_sane = |times: &[Time]| is_ordered(times) && edges(times).all(|edge| in_reason.contains(&edge));
    if let Some(bad) = batch.series.times().find(|times| !is_sane(times)) {
        let of = batch.series.iter().find(|series| series.times == bad);
        let of = of.map_or_else(|| "no series".to_owned(), |s| format!("{} on {}", s.key.metric, s.key.subject));
        if let Some(pair) = bad.windows(2).find(|pair| pair[0] >= pair[1]) {
            let text = format!("samples of {of} are not in order of time: {} is followed by {}", pair[0].0, pair[1].0);
            return Err(no("telemetry.unordered", text));
        }
        if let Some(edge) = edges(bad).find(|edge| !in_reason.contains(edge)) {
            return Err(out_of_reason(edge, &of));
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
    let dropped = batch.series.values().iter().filter(|value| !value.is_finite()).count();
    if dropped > 0 {
        let mut rows = batch.series.rows();
        rows.iter_mut().for_each(|row| row.samples.retain(|sample| sample.value.is_finite()));
        batch.series = rows.into();
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

/// Bytes that a batch holds in memory, roughly: what the bound on the unsealed counts. A layout and the texts of keys that
/// its stream keeps are not the batch's own.
pub(crate) fn weigh(batch: &Batch) -> usize {
    let of_map = |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| k.len() + v.len() + 64).sum::<usize>();
    let of_key = |key: &Arc<SeriesKey>| {
        let texts = key.subject.id.len() + key.metric.len() + key.unit.len() + of_map(&key.attributes);
        let own = if Arc::strong_count(key) == 1 { size_of::<SeriesKey>() + texts } else { 0 };
        SERIES_BYTES + own
    };
    let layout = batch.series.layout();
    let of_layout = if Arc::strong_count(layout) == 1 { layout.keys().map(of_key).sum() } else { 0 };
    let of_times: usize = batch.series.times().map(size_of_val).sum();
    let of_event = |event: &DiscreteEvent| {
        size_of::<DiscreteEvent>() + event.subject.id.len() + event.name.len() + of_map(&event.attributes)
    };
    let of_series = of_layout + of_times + size_of_val(batch.series.values());
    size_of::<Batch>() + batch.origin.as_str().len() + of_series + batch.events.iter().map(of_event).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, batch, sample};
    use aether_core::{
        subject::SubjectKind,
        telemetry::{DiscreteEvent, SeriesKey, SeriesSamples},
    };
    use std::sync::Arc;

    fn change(batch: &mut Batch, change: impl FnOnce(&mut SeriesSamples)) {
        let mut rows = batch.series.rows();
        change(&mut rows[0]);
        batch.series = rows.into();
    }

    fn key(batch: &mut Batch, changed: impl FnOnce(&mut SeriesKey)) {
        change(batch, |series| changed(Arc::make_mut(&mut series.key)));
    }

    fn code(change: impl FnOnce(&mut Batch)) -> &'static str {
        let mut batch = batch("node-a", 1, &[sample(NOW.0 - 2_000, 1.0), sample(NOW.0 - 1_000, 2.0)]);
        change(&mut batch);
        match admit(&mut batch, Some(&[]), &Settings::default(), NOW) {
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
        assert_eq!(code(|b| change(b, |s| s.samples.reverse())), "telemetry.unordered");
        assert_eq!(code(|b| change(b, |s| s.samples[0].at = s.samples[1].at)), "telemetry.unordered");
        assert_eq!(code(|b| change(b, |s| s.samples[1].at = NOW.plus_ms(601_000))), "telemetry.time");
        assert_eq!(code(|b| change(b, |s| s.samples[0].at = Time(0))), "telemetry.time");
        assert_eq!(code(|b| b.events.push(event(Time(-5)))), "telemetry.time");
        assert_eq!(code(|b| b.events.push(event(NOW))), "taken");
        assert_eq!(code(|b| b.origin.0 = "../etc".to_owned()), "telemetry.name");
        assert_eq!(
            code(|b| key(b, |key| key.subject = SubjectRef { kind: SubjectKind::Gpu, id: "a b".to_owned() })),
            "telemetry.name"
        );
        assert_eq!(code(|b| key(b, |key| key.metric.clear())), "telemetry.name");
        assert_eq!(code(|b| key(b, |key| key.metric = "x".repeat(256))), "telemetry.name");
        assert_eq!(code(|b| key(b, |key| key.unit = "\u{7}".to_owned())), "telemetry.name");
        assert_eq!(
            code(|b| key(b, |key| drop(key.attributes.insert("k".to_owned(), "line\nline".to_owned())))),
            "telemetry.attributes"
        );
        assert_eq!(
            code(|b| b.series = vec![b.series.rows()[0].clone(); SERIES_PER_BATCH + 1].into()),
            "telemetry.too_large"
        );
    }

    #[test]
    fn a_value_that_is_no_number_is_a_gap() {
        let mut batch =
            batch("node-a", 1, &[sample(NOW.0 - 2, f64::NAN), sample(NOW.0 - 1, f64::INFINITY), sample(NOW.0, 2.0)]);
        assert_eq!(admit(&mut batch, Some(&[]), &Settings::default(), NOW), Ok(2));
        assert_eq!(batch.series.at(0).samples().collect::<Vec<_>>(), [sample(NOW.0, 2.0)]);
    }
}
