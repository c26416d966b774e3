//! An observation that is rebuilt from history is the one that was made at the time, bit for bit.

use aether_core::{
    id::NodeId,
    observation::{Aggregation, Column, EventInput, Input, MetricInput, ObservedEvent},
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_recorder::{Excerpt, ExcerptQuery, Recorder, Settings, local_store};
use proptest::prelude::*;
use std::{collections::BTreeMap, path::Path};

const NOW: Time = Time(1_795_226_400_000);
const METRICS: [&str; 2] = ["system.cpu.utilization", "aether.workload.progress"];

fn inputs() -> Vec<Input> {
    let all =
        [Aggregation::Last, Aggregation::Mean, Aggregation::Max, Aggregation::Min, Aggregation::Sum, Aggregation::Rate];
    let metric = |name: &str, aggregation, window_ms, step_ms| {
        Input::Metric(MetricInput { name: name.into(), unit: "1".into(), window_ms, step_ms, aggregation })
    };
    let mut inputs: Vec<Input> = all.map(|aggregation| metric(METRICS[0], aggregation, 20_000, 1_000)).into();
    inputs.extend(all.map(|aggregation| metric(METRICS[1], aggregation, 45_000, 7_000)));
    inputs.push(Input::Events(EventInput { name: "aether.market.rebalance".into(), window_ms: 30_000, at_most: 3 }));
    inputs
}

async fn open(folder: &Path, now: Time) -> Recorder {
    Recorder::open(Settings::default(), local_store(folder).expect("a folder"), now).await.expect("opens")
}

/// One second of the fleet: which of two agents speaks of the workload, and what is said.
#[derive(Clone, Debug)]
struct Second {
    agents: (bool, bool),
    value: f64,
    event: bool,
    seal: bool,
}

fn seconds() -> impl Strategy<Value = Vec<Second>> {
    let second = (any::<(bool, bool)>(), -1e3..1e3f64, proptest::bool::weighted(0.1), proptest::bool::weighted(0.2));
    let second = second.prop_map(|(agents, value, event, seal)| Second { agents, value, event, seal });
    proptest::collection::vec(second, 1..90)
}

fn batch(origin: &str, n: u64, at: Time, second: &Second, subject: &SubjectRef) -> Batch {
    let series = METRICS.map(|metric| SeriesSamples {
        key: SeriesKey {
            subject: subject.clone(),
            metric: metric.into(),
            unit: "1".into(),
            attributes: BTreeMap::from([("cpu".into(), (n % 2).to_string())]),
        }
        .into(),
        samples: [Sample {
            at: at.minus_ms(n % 400),
            value: second.value + if origin == "node-a" { 0.5 } else { 0.25 },
        }]
        .into(),
    });
    let event = DiscreteEvent {
        subject: subject.clone(),
        name: "aether.market.rebalance".into(),
        at,
        attributes: BTreeMap::from([("n".into(), n.to_string())]),
    };
    let events = if second.event { vec![event] } else { vec![] };
    Batch { origin: NodeId::new(origin), epoch: 1, sequence: n, series: Vec::from(series).into(), events }
}

type Seen = (Time, Vec<Column>, Vec<ObservedEvent>);

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_observed_live_is_rebuilt_from_hot_and_from_sealed_history(seconds in seconds()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let folder = tempfile::tempdir().expect("a folder");
            let subject = SubjectRef::workload("counter");
            let recorder = open(folder.path(), NOW).await;
            let mut live: Vec<Seen> = Vec::new();
            for (n, second) in (1u64..).zip(&seconds) {
                let now = NOW.plus_ms(n * 1_000);
                for (speaks, origin) in [(second.agents.0, "node-a"), (second.agents.1, "node-bb")] {
                    if speaks {
                        recorder.append(batch(origin, n, now, second, &subject), now).expect("taken");
                    }
                }
                if second.seal {
                    recorder.seal(now).await.expect("seals");
                }
                live.push((now, recorder.columns(&subject, &inputs(), now), recorder.events(&subject, &inputs(), now)));
            }
            let end = NOW.plus_ms(seconds.len() as u64 * 1_000);
            recorder.seal(end).await.expect("seals");
            let later = open(folder.path(), end.plus_ms(3 * 3_600_000)).await;
            assert_eq!(later.columns(&subject, &inputs(), end), [], "the hot window has gone on");
            for recorder in [&recorder, &later] {
                for one in [None, Some([subject.clone()].into())] {
                    let query = ExcerptQuery::observing(&inputs(), one, NOW, end, None);
                    let excerpts = recorder.excerpts(&query).await.expect("reads");
                    assert!(!excerpts.cut && excerpts.unreadable == 0);
                    let nothing = Excerpt::default();
                    let excerpt = excerpts.subjects.get(&subject).unwrap_or(&nothing);
                    for (at, columns, events) in &live {
                        assert_eq!(&excerpt.columns(&inputs(), *at, None), columns, "at {}", at.0 - NOW.0);
                        assert_eq!(&excerpt.events(&inputs(), *at), events, "at {}", at.0 - NOW.0);
                    }
                }
            }
        });
    }
}

#[test]
fn history_from_elsewhere_is_sorted_once_and_says_what_it_is() {
    let key =
        SeriesKey { subject: SubjectRef::node("a"), metric: "m".into(), unit: "%".into(), attributes: BTreeMap::new() };
    let sample = |at, value| Sample { at: Time(at), value };
    let late =
        SeriesSamples { key: key.clone().into(), samples: [sample(600_000, 3.0), sample(0, 9.0)].as_slice().into() };
    let first = SeriesSamples {
        key: key.into(),
        samples: [sample(0, 1.0), sample(300_000, f64::NAN), sample(300_000, 2.0)].as_slice().into(),
    };
    let excerpt = Excerpt::of(vec![first, late], vec![]);
    assert_eq!((excerpt.samples(), excerpt.step_ms()), (3, Some(300_000)));
    assert_eq!(excerpt.span(), Some((Time(0), Time(600_000))));
    assert_eq!(excerpt.names(), [("m", Some("%"))].into());
    let input = Input::Metric(MetricInput {
        name: "m".into(),
        unit: "%".into(),
        window_ms: 900_000,
        step_ms: 300_000,
        aggregation: Aggregation::Last,
    });
    assert_eq!(excerpt.columns(std::slice::from_ref(&input), Time(600_000), None)[0].values, [9.0, 2.0, 3.0]);
    // Nothing of the future is seen.
    let before = &excerpt.columns(std::slice::from_ref(&input), Time(599_999), None)[0].values;
    assert!(before[0].is_nan() && before[1..] == [9.0, 2.0], "{before:?}");
    // As much as a hot window of five minutes shows.
    let short = &excerpt.columns(&[input], Time(600_000), Some(300_000))[0].values;
    assert!(short[0].is_nan() && short[1..] == [2.0, 3.0], "{short:?}");
}
