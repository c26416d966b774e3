//! What is remembered of one token: how many batches it has sent, and the totals of what comes as differences.

use super::buckets::Distribution;
use aether_core::telemetry::SeriesKey;
use std::collections::HashMap;

/// One token's way into the recorder.
#[derive(Debug)]
pub(super) struct Feed {
    /// Of the last batch that was taken.
    pub(super) sequence: u64,
    pub(super) totals: Totals,
}

/// Running totals per series. What a request did to them can be taken back, because a request that found no room comes
/// again.
#[derive(Debug)]
pub(super) struct Totals {
    limit: usize,
    series: HashMap<SeriesKey, Total>,
    /// What was there before this request.
    before: Vec<(SeriesKey, Option<Total>)>,
}

#[derive(Clone, Debug)]
struct Total {
    /// Of the newest difference in it.
    time_unix_nano: u64,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Number(f64),
    Distribution(Distribution),
}

/// What a difference came to.
#[derive(Debug, PartialEq)]
pub(super) enum Added<T> {
    Total(T),
    /// It is not newer than what is in the total: it came before.
    Before,
    /// There is no room for another series.
    TooMany(usize),
}

impl Feed {
    pub(super) fn new(series_maximum: usize) -> Self {
        Self { sequence: 0, totals: Totals { limit: series_maximum, series: HashMap::new(), before: vec![] } }
    }
}

impl Totals {
    pub(super) fn add_number(&mut self, key: &SeriesKey, time_unix_nano: u64, value: f64) -> Added<f64> {
        let added = self.add(key, time_unix_nano, |total| {
            let before = if let Some(Value::Number(before)) = total { before } else { 0.0 };
            Value::Number(before + value)
        });
        match added {
            Added::Total(Value::Number(total)) => Added::Total(total),
            // Its kind has just been set.
            Added::Total(Value::Distribution(_)) | Added::Before => Added::Before,
            Added::TooMany(limit) => Added::TooMany(limit),
        }
    }

    pub(super) fn add_distribution(
        &mut self,
        key: &SeriesKey,
        time_unix_nano: u64,
        value: Distribution,
    ) -> Added<Distribution> {
        let added = self.add(key, time_unix_nano, |total| {
            let mut sum = if let Some(Value::Distribution(before)) = total { before } else { Distribution::default() };
            sum.add(&value);
            Value::Distribution(sum)
        });
        match added {
            Added::Total(Value::Distribution(total)) => Added::Total(total),
            Added::Total(Value::Number(_)) | Added::Before => Added::Before,
            Added::TooMany(limit) => Added::TooMany(limit),
        }
    }

    fn add(&mut self, key: &SeriesKey, time_unix_nano: u64, sum: impl FnOnce(Option<Value>) -> Value) -> Added<Value> {
        let before = self.series.get(key).cloned();
        match &before {
            Some(total) if time_unix_nano <= total.time_unix_nano => return Added::Before,
            None if self.series.len() >= self.limit => return Added::TooMany(self.limit),
            Some(_) | None => {}
        }
        let value = sum(before.as_ref().map(|total| total.value.clone()));
        self.series.insert(key.clone(), Total { time_unix_nano, value: value.clone() });
        self.before.push((key.clone(), before));
        Added::Total(value)
    }

    /// The request is in.
    pub(super) fn keep(&mut self) {
        self.before.clear();
    }

    /// The request will come again.
    pub(super) fn take_back(&mut self) {
        while let Some((key, before)) = self.before.pop() {
            match before {
                Some(total) => drop(self.series.insert(key, total)),
                None => drop(self.series.remove(&key)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::subject::SubjectRef;

    #[test]
    fn differences_are_summed_up_once_and_can_be_taken_back() {
        let key = |metric: &str| SeriesKey {
            subject: SubjectRef::node("node-a"),
            metric: metric.into(),
            unit: "1".into(),
            attributes: [].into(),
        };
        let mut totals = Feed::new(1).totals;
        assert_eq!(totals.add_number(&key("a"), 10, 2.0), Added::Total(2.0));
        assert_eq!(totals.add_number(&key("a"), 20, 3.0), Added::Total(5.0));
        assert_eq!(totals.add_number(&key("a"), 20, 3.0), Added::Before, "sent again, because the answer got lost");
        assert_eq!(totals.add_number(&key("b"), 20, 3.0), Added::TooMany(1));
        totals.keep();
        assert_eq!(totals.add_number(&key("a"), 30, 1.0), Added::Total(6.0));
        totals.take_back();
        assert_eq!(totals.add_number(&key("a"), 30, 1.0), Added::Total(6.0));
    }
}
