//! Several origins of one series, every bound of the window, and the short ways of streams into it. What waits shows nowhere.

use super::*;
use crate::testing::{NOW, key, sample};
use aether_core::telemetry::{Columns, Layout};
use proptest::prelude::*;

fn limits() -> Limits {
    Limits { window_ms: 600_000, samples_per_series: 1_000, series: 100, bytes: 1 << 20, events_per_subject: 3 }
}

fn source(id: &str) -> Arc<Source> {
    Arc::clone(&Feed::new(NodeId::new(id)).source)
}

fn insert(window: &Window, source: &Arc<Source>, key: &SeriesKey, samples: &[Sample], now: Time) {
    let (times, values): (Vec<_>, Vec<_>) = samples.iter().map(|sample| (sample.at, sample.value)).unzip();
    window.insert(source, Series { key: &Arc::new(key.clone()), times: &times, values: &values }, now);
}

fn values(window: &Window, key: &SeriesKey) -> Vec<f64> {
    let views = window.views(&key.subject, &key.metric, None, Time(i64::MIN), Time(i64::MAX));
    views.into_iter().flat_map(|v| v.samples).map(|s| s.value).collect()
}

/// One sample a second.
fn steady(from_s: i64, seconds: i64, value: f64) -> Vec<Sample> {
    (from_s..from_s + seconds).map(|s| sample(NOW.0 + s * 1_000, value)).collect()
}

#[test]
fn the_agent_that_restored_a_workload_speaks_for_it_and_so_does_the_former_one_when_it_comes_back() {
    let window = Window::new(limits());
    let (a, b) = (source("node-a"), source("node-b"));
    let key = key(SubjectRef::workload("counter"), "aether.workload.progress");
    let later = NOW.plus_ms(300_000);
    insert(&window, &a, &key, &steady(0, 20, 1.0), later);
    // node-a goes on telling of it for a while after node-b has it.
    insert(&window, &b, &key, &steady(15, 10, 2.0), later);
    let mut seen = vec![1.0; 15];
    seen.extend([2.0; 10]);
    assert_eq!(values(&window, &key), seen);
    insert(&window, &a, &key, &steady(20, 10, 1.0), later);
    assert_eq!(values(&window, &key), seen, "node-b has only just fallen silent");
    insert(&window, &a, &key, &steady(100, 3, 3.0), later);
    seen.extend([3.0; 3]);
    assert_eq!(values(&window, &key), seen, "back on node-a");
}

#[test]
fn eviction_does_not_make_an_old_stretch_look_new() {
    let window = Window::new(limits());
    let (a, b) = (source("node-a"), source("node-b"));
    let key = key(SubjectRef::workload("counter"), "m");
    insert(&window, &a, &key, &steady(10, 590, 2.0), NOW.plus_ms(600_000));
    insert(&window, &b, &key, &steady(0, 600, 1.0), NOW.plus_ms(600_000));
    assert_eq!(values(&window, &key), [vec![1.0; 10], vec![2.0; 590]].concat());
    window.sweep(NOW.plus_ms(900_000));
    assert_eq!(values(&window, &key), vec![2.0; 300], "node-a began later, though both now begin at the same time");
}

#[test]
fn late_samples_find_their_place_and_a_second_word_replaces_the_first() {
    let window = Window::new(limits());
    let (a, key) = (source("node-a"), key(SubjectRef::node("node-a"), "m"));
    insert(&window, &a, &key, &[sample(NOW.0 + 2, 2.0), sample(NOW.0 + 4, 4.0)], NOW);
    insert(&window, &a, &key, &[sample(NOW.0 + 1, 1.0), sample(NOW.0 + 3, 3.0), sample(NOW.0 + 4, 5.0)], NOW);
    assert_eq!(values(&window, &key), [1.0, 2.0, 3.0, 5.0]);
}

#[test]
fn every_bound_holds_and_is_counted() {
    let window = Window::new(limits());
    let a = source("node-a");
    let subject = SubjectRef::node("node-a");
    insert(
        &window,
        &a,
        &key(subject.clone(), "m"),
        &(0..1_500).map(|n| sample(NOW.0 + n, 1.0)).collect::<Vec<_>>(),
        NOW,
    );
    assert_eq!(window.tally().samples.load(Relaxed), 1_000);
    assert_eq!(window.tally().evicted.load(Relaxed), 500);
    assert_eq!(window.complete_from(), Time(NOW.0 + 500));
    for n in 0..150 {
        insert(&window, &a, &key(subject.clone(), &format!("m{n}")), &[sample(NOW.0, 1.0)], NOW);
    }
    assert_eq!(window.tally().series.load(Relaxed), 100);
    assert_eq!(window.tally().hidden.load(Relaxed), 51);
    for n in 0..5 {
        let event = DiscreteEvent {
            subject: subject.clone(),
            name: format!("e{n}"),
            at: NOW.plus_ms(n),
            attributes: BTreeMap::new(),
        };
        window.insert_event(&event, NOW);
        window.insert_event(&event, NOW);
    }
    let names: Vec<_> = window.events(None, Time(0), Time(i64::MAX)).into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["e2", "e3", "e4"]);
    window.sweep(NOW.plus_ms(10_000_000));
    let tally = window.tally();
    assert_eq!(
        [&tally.series, &tally.samples, &tally.bytes].map(|n| n.load(Relaxed)),
        [0, 0, 0],
        "nothing is left, and the books agree"
    );
    assert_eq!(a.series.load(Relaxed), 0);
}

#[test]
fn memory_shortens_the_window_and_it_grows_again() {
    let window = Window::new(Limits { samples_per_series: 100_000, series: 1_000, ..limits() });
    let a = source("node-a");
    for second in 0..600 {
        let now = NOW.plus_ms(second * 1_000);
        for n in 0..200 {
            insert(
                &window,
                &a,
                &key(SubjectRef::node("node-a"), &format!("m{n}")),
                &[Sample { at: now, value: 1.0 }],
                now,
            );
        }
        assert!(window.tally().bytes.load(Relaxed) < (1 << 20) + (1 << 15));
    }
    let now = NOW.plus_ms(600_000);
    assert!(window.tally().evicted.load(Relaxed) > 0);
    assert_eq!(window.tally().hidden.load(Relaxed), 0, "the newest always found room");
    assert!(window.complete_from() > now.minus_ms(600_000));
    assert!(window.complete_from() < now.minus_ms(LEAST_WINDOW_MS));
    let squeezed = window.reach_ms.load(Relaxed);
    window.sweep(now.plus_ms(3_600_000));
    window.sweep(now.plus_ms(3_600_000));
    assert_eq!(window.reach_ms.load(Relaxed), squeezed, "it was swept just now");
    window.sweep(now.plus_ms(7_200_000));
    assert!(window.reach_ms.load(Relaxed) > squeezed);
}

/// One sample of each series of a stream's layout.
fn batch(layout: &Arc<Layout>, at: Time) -> Arc<Batch> {
    let series = Columns::new(Arc::clone(layout), vec![at], vec![1.0; layout.len()]).expect("fits");
    Arc::new(Batch { origin: NodeId::new("node-a"), epoch: 1, sequence: 1, series, events: vec![] })
}

fn layout(keys: &[&Arc<SeriesKey>]) -> Arc<Layout> {
    Layout::new(keys.iter().map(|key| (Arc::clone(key), 0)), &[1]).expect("there is a list").into()
}

#[test]
fn a_layout_that_came_before_leads_to_its_runs_until_the_window_lets_go_of_one() {
    let window = Window::new(limits());
    let feed = Feed::new(NodeId::new("node-a"));
    let keys = ["m", "n"].map(|m| Arc::new(key(SubjectRef::node("node-a"), m)));
    let (both, alike) = (layout(&[&keys[0], &keys[1]]), layout(&[&Arc::new((*keys[0]).clone())]));
    window.take(&feed, &batch(&both, NOW), NOW);
    assert_eq!(feed.had(&both), None, "all of them");
    assert_eq!(feed.had(&layout(&[&keys[1]])), Some(vec![true]));
    assert_eq!(feed.had(&alike), Some(vec![false]), "its like was not checked");
    window.take(&feed, &batch(&alike, NOW.plus_ms(1_000)), NOW);
    window.take(&feed, &batch(&both, NOW.plus_ms(2_000)), NOW);
    assert_eq!(values(&window, &keys[0]).len(), 3, "all of them are one series");
    assert_eq!((window.tally().series.load(Relaxed), window.tally().samples.load(Relaxed)), (2, 5));

    let later = NOW.plus_ms(10_000_000);
    window.sweep(later);
    window.take(&feed, &batch(&both, later), later);
    assert_eq!(values(&window, &keys[0]).len(), 1, "not into a run that nobody reads any more");
    window.sweep(later.plus_ms(10_000_000));
    let tally = window.tally();
    assert_eq!([&tally.series, &tally.samples, &tally.bytes].map(|n| n.load(Relaxed)), [0, 0, 0]);
}

#[test]
fn what_waits_is_seen_by_all_that_read_is_counted_and_is_bounded() {
    let window = Window::new(limits());
    let feed = Feed::new(NodeId::new("node-a"));
    let key = Arc::new(key(SubjectRef::node("node-a"), "m"));
    let one = layout(&[&key]);
    let seconds = std::cell::Cell::new(0);
    let next = || {
        seconds.set(seconds.get() + 1_000);
        let at = NOW.plus_ms(seconds.get());
        window.take(&feed, &batch(&one, at), at);
        at
    };
    next();
    for taken in 2..=3 * BATCHES_WAIT {
        next();
        assert!(feed.source.waiting().batches.len() < BATCHES_WAIT);
        assert_eq!(window.tally().samples.load(Relaxed), taken);
    }
    let waits = |at: Time| {
        assert_eq!(feed.source.waiting().batches.len(), 1);
        at
    };
    assert_eq!(values(&window, &key).len(), 3 * BATCHES_WAIT);
    let (at, (whole, beginning)) = (waits(next()), (Time(i64::MAX), Time(i64::MIN)));
    assert_eq!(window.views(&key.subject, "m", None, beginning, whole)[0].samples.last().map(|s| s.at), Some(at));
    let at = waits(next());
    assert_eq!(window.stretches(&key.subject, "m", beginning, whole)[0].2.last().map(|s| s.at), Some(at));
    let at = waits(next());
    window.each_series(None, |_, samples, _| assert_eq!(samples.last().map(|s| s.at), Some(at)));
    let at = waits(next());
    assert_eq!(window.span(), Some((NOW.plus_ms(1_000), at)));
    // What is older than what waits comes after it all the same, and the later word stands.
    let at = waits(next());
    let again = Arc::new(Batch { sequence: 2, ..(*batch(&one, at)).clone() });
    let other = Columns::new(layout(&[&key]), vec![at], vec![2.0]).expect("fits");
    window.take(&feed, &Arc::new(Batch { series: other, ..(*again).clone() }), at);
    assert_eq!(values(&window, &key).last(), Some(&2.0));
    // A sweep looks at what waits, too.
    window.sweep(next().plus_ms(10_000_000));
    let tally = window.tally();
    assert_eq!([&tally.series, &tally.samples, &tally.bytes].map(|n| n.load(Relaxed)), [0, 0, 0]);
    let source = Arc::downgrade(&feed.source);
    next();
    next();
    drop((feed, window));
    assert!(source.upgrade().is_none(), "what waits keeps nothing alive");
}

#[test]
fn in_whatever_order_keys_stand_each_leads_to_its_own_run() {
    let window = Window::new(limits());
    let feed = Feed::new(NodeId::new("node-a"));
    let [a, b, c] = ["a", "b", "c"].map(|m| Arc::new(key(SubjectRef::node("node-a"), m)));
    let layouts = [&[&a, &b][..], &[&b, &a], &[&b], &[&c, &b, &a], &[&a, &b, &c], &[&c], &[&b, &b]].map(layout);
    for (second, layout) in (0..).zip(layouts.iter().chain(&layouts)) {
        window.take(&feed, &batch(layout, NOW.plus_ms(second * 1_000)), NOW.plus_ms(second * 1_000));
    }
    let seconds = |key: &SeriesKey| -> Vec<u64> {
        let views = window.views(&key.subject, &key.metric, None, Time(i64::MIN), Time(i64::MAX));
        views.into_iter().flat_map(|v| v.samples).map(|sample| sample.at.since_ms(NOW) / 1_000).collect()
    };
    let twice = |once: &[u64]| [once, &once.iter().map(|second| second + 7).collect::<Vec<_>>()].concat();
    let expected = [twice(&[0, 1, 3, 4]), twice(&[0, 1, 2, 3, 4, 6]), twice(&[3, 4, 5])];
    assert_eq!([&a, &b, &c].map(|key| seconds(key)), expected);
}

#[test]
fn keys_and_layouts_that_nobody_sends_any_more_are_not_kept() {
    let window = Window::new(limits());
    let feed = Feed::new(NodeId::new("node-a"));
    for n in 0..1_000 {
        let keys = ["m", "n"].map(|m| Arc::new(key(SubjectRef::node("node-a"), m)));
        let both = layout(&[&keys[0], &keys[1]]);
        window.take(&feed, &batch(&both, NOW.plus_ms(n)), NOW);
        let (keys, layouts) = feed.places().len();
        assert!(keys <= 5 && layouts <= 8, "{keys} and {layouts}");
        // A backlog is of the same layout again and again.
        for _ in 0..3 {
            window.take(&feed, &batch(&both, NOW.minus_ms(10_000_000)), NOW);
        }
        assert_eq!(feed.places().len().1, layouts);
    }
    assert_eq!(window.tally().series.load(Relaxed), 2);
}

proptest! {
    /// However samples are cut into batches and in which order those come, the same is seen.
    #[test]
    fn order_of_arrival_does_not_matter(
        samples in proptest::collection::btree_map((0usize..2, 0i64..200), -1e3..1e3f64, 1..100),
        pieces in proptest::collection::vec(0usize..7, 100),
    ) {
        let key = key(SubjectRef::workload("w"), "m");
        let now = NOW.plus_ms(1_000_000);
        let in_order = Window::new(Limits { window_ms: 10_000_000, ..limits() });
        let scattered = Window::new(Limits { window_ms: 10_000_000, ..limits() });
        let feeds = ["node-a", "node-b"].map(|id| Feed::new(NodeId::new(id)));
        let shared = Arc::new(key.clone());
        let same = layout(&[&shared]);
        let at = |s: &i64| sample(NOW.0 + s * 3_000, 0.0).at;
        for ((origin, s), value) in &samples {
            insert(&in_order, &feeds[*origin].source, &key, &[Sample { at: at(s), value: *value }], now);
        }
        for piece in (0..7).rev() {
            for (((origin, s), value), _) in samples.iter().zip(&pieces).filter(|(_, p)| **p == piece) {
                let key = if s % 3 == 0 { Arc::new(key.clone()) } else { Arc::clone(&shared) };
                let one = if s % 3 == 0 { layout(&[&key]) } else { Arc::clone(&same) };
                let series = Columns::new(one, vec![at(s)], vec![*value]).expect("fits");
                let batch = Batch { origin: NodeId::new("node-a"), epoch: 1, sequence: 1, series, events: vec![] };
                scattered.take(&feeds[*origin], &Arc::new(batch), now);
            }
        }
        prop_assert_eq!(values(&in_order, &key), values(&scattered, &key));
        let views = in_order.views(&key.subject, "m", None, Time(0), Time(i64::MAX));
        prop_assert!(views[0].samples.windows(2).all(|w| w[0].at < w[1].at), "one value for one time");
    }
}
