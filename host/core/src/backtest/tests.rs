//! Backtests by tables and properties: what is caught, missed, false and early, and that the same history gives the same report.

use super::*;
use crate::{
    combine::Scored,
    decision::{Answer, Fault, Judgement, Reason, Risk, Verdict},
    finding::Hysteresis,
};
use expect_test::{Expect, expect};
use proptest::prelude::*;

const MINUTE: i64 = 60_000;

fn scored(letter: char) -> Scored {
    let level = match letter {
        'C' => Level::Critical,
        'h' => Level::High,
        'l' => Level::Low,
        _ => return Scored::Unknown("too little data".into()),
    };
    Scored::Risk(Risk {
        level,
        score: 0.9,
        confidence: 0.9,
        horizon_ms: None,
        cause: "test.cause".into(),
        reason: String::new(),
        contributions: vec![],
    })
}

fn event(id: &str, subject: &str, from: i64, to: i64) -> Event {
    let at = Time((from + to) / 2 * MINUTE);
    let (from, to) = (Time(from * MINUTE), Time(to * MINUTE));
    Event { id: id.into(), subject: SubjectRef::node(subject), from, to, at, summary: String::new() }
}

fn told(measure: Measure, events: Vec<Event>, compared: bool) -> Told {
    let mut costs = Costs::default();
    costs.count(100, 1_024, None);
    costs.count(300, 2_048, Some(FaultKind::OutOfFuel));
    Told {
        role: Role::RiskScorer,
        slot: None,
        tick_ms: Some(60_000),
        measure,
        events,
        tolerance: Tolerance::default(),
        candidate: (vec![], costs.clone()),
        current: compared.then(|| (vec![], costs)),
        notes: vec![],
    }
}

fn hysteresis() -> Hysteresis {
    Hysteresis { raise_level: Level::Critical, raise_after: 2, clear_after: 2 }
}

/// One letter a minute: `C`ritical, `h`igh, `l`ow, `u`nknown.
fn play(trial: &mut Trial, subject: &str, candidate: &str, current: Option<&str>) {
    let subject = SubjectRef::node(subject);
    for (minute, letter) in (0..).zip(candidate.chars()) {
        let current = current.map(|letters| scored(letters.chars().nth(minute).expect("as long")));
        let at = Time(i64::try_from(minute).expect("small") * MINUTE);
        trial.observe(&subject, at, &scored(letter), current.as_ref());
    }
}

fn alone(letters: &str, events: Vec<Event>, tolerance: Tolerance) -> Report {
    let mut trial = Trial::new(&hysteresis(), false);
    play(&mut trial, "a", letters, None);
    trial.report(Told { tolerance, ..told(Measure::Labels, events, false) })
}

fn line(figures: &Figures) -> String {
    let Figures { alarms, caught, missed, standing, repeated, false_alarms, .. } = figures;
    let lead = figures.lead_ms_p50.map(|ms| ms / MINUTE);
    format!(
        "alarms {alarms} caught {caught} missed {missed} (standing {standing}) repeated {repeated} false {false_alarms} \
         precision {:?} recall {:?} lead {lead:?}",
        figures.precision, figures.recall
    )
}

fn check(letters: &str, windows: &[(i64, i64)], tolerance: Tolerance, expected: Expect) {
    let events = (1..).zip(windows).map(|(n, (from, to))| event(&format!("e{n}"), "a", *from, *to)).collect();
    let report = alone(letters, events, tolerance);
    expected.assert_eq(&line(report.candidate.figures.as_ref().expect("a scorer")));
}

#[test]
fn an_alarm_within_the_window_catches_and_outside_it_is_false() {
    let none = Tolerance::default();
    check(
        "llCCllllllCCll",
        &[(2, 5)],
        none,
        expect![
            "alarms 2 caught 1 missed 0 (standing 0) repeated 0 false 1 precision Some(0.5) recall Some(1.0) lead Some(0)"
        ],
    );
    // The second alarm of one window is no further catch, and not false either.
    check(
        "lCCllCCllll",
        &[(1, 8)],
        none,
        expect![
            "alarms 2 caught 1 missed 0 (standing 0) repeated 1 false 0 precision Some(1.0) recall Some(1.0) lead Some(2)"
        ],
    );
    check(
        "llllllll",
        &[(1, 2), (4, 5)],
        none,
        expect!["alarms 0 caught 0 missed 2 (standing 0) repeated 0 false 0 precision None recall Some(0.0) lead None"],
    );
    check(
        "llCCll",
        &[],
        none,
        expect!["alarms 1 caught 0 missed 0 (standing 0) repeated 0 false 1 precision Some(0.0) recall None lead None"],
    );
}

#[test]
fn an_alarm_that_stood_before_the_window_did_not_catch_and_is_told() {
    check(
        "CCCCCCCCll",
        &[(4, 6)],
        Tolerance::default(),
        expect![
            "alarms 1 caught 0 missed 1 (standing 1) repeated 0 false 1 precision Some(0.0) recall Some(0.0) lead None"
        ],
    );
    // Allowed a lead of three minutes, the same alarm is early.
    check(
        "CCCCCCCCll",
        &[(4, 6)],
        Tolerance { lead_ms: 180_000, late_ms: 0 },
        expect![
            "alarms 1 caught 1 missed 0 (standing 0) repeated 0 false 0 precision Some(1.0) recall Some(1.0) lead Some(4)"
        ],
    );
    check(
        "lllllCCll",
        &[(2, 4)],
        Tolerance { lead_ms: 0, late_ms: 120_000 },
        expect![
            "alarms 1 caught 1 missed 0 (standing 0) repeated 0 false 0 precision Some(1.0) recall Some(1.0) lead Some(-3)"
        ],
    );
}

#[test]
fn events_outside_of_the_history_count_nowhere() {
    let events = vec![event("known", "a", 1, 3), event("other", "b", 1, 3), event("later", "a", 50, 60)];
    let report = alone("lCClll", events, Tolerance::default());
    assert_eq!((report.events_outside, report.events.len()), (2, 1));
    assert_eq!(report.candidate.figures.expect("a scorer").events, 1);
}

#[test]
fn both_sides_are_compared_both_ways() {
    let mut trial = Trial::new(&hysteresis(), true);
    play(&mut trial, "a", "lCCCllllllllllhl", Some("llCCllllCCllllll"));
    play(&mut trial, "b", "uuuullllllllllll", Some("llllllllllllllll"));
    let events = vec![event("first", "a", 1, 5), event("second", "a", 8, 10)];
    let report = trial.report(told(Measure::Labels, events, true));
    let changes = report.changes.expect("compared");
    assert_eq!((changes.compared, changes.changed, changes.runs), (32, 8, 4));
    assert_eq!(
        (changes.caught.len(), changes.missed, changes.earlier, changes.later),
        (0, vec!["second".into()], 1, 0)
    );
    let rows: String = changes
        .rows
        .iter()
        .map(|row| {
            format!("{} {} x{}: {} -> {}\n", row.about, row.at.0 / MINUTE, row.times, row.current, row.candidate)
        })
        .collect();
    expect![[r#"
        node/a 1 x1: low (test.cause) -> critical (test.cause)
        node/a 8 x2: critical (test.cause) -> low (test.cause)
        node/a 14 x1: low (test.cause) -> high (test.cause)
        node/b 0 x4: low (test.cause) -> unknown
    "#]]
    .assert_eq(&rows);
    assert_eq!(report.candidate.unknown, 4);
    assert_eq!(report.candidate.cost.fuel, 400);
    assert_eq!(report.candidate.cost.fuel_p50, Some(100));
    assert_eq!(report.candidate.cost.faults, BTreeMap::from([(FaultKind::OutOfFuel, 1)]));
    assert_eq!(report.subjects.len(), 2);
}

#[test]
fn recorded_decisions_are_asked_again_and_compared_by_what_would_be_done() {
    let judged = |verdict, code: &str| {
        let reasons = vec![Reason { code: code.into(), text: String::new() }];
        Ok(Answer::Judgement(Judgement { verdict, reasons }))
    };
    let mut trial = Trial::new(&hysteresis(), true);
    let fault = Err(Fault { kind: FaultKind::Trapped, message: "trapped".into() });
    for (n, now) in [(1, judged(Verdict::Allow, "other words")), (2, judged(Verdict::Deny, "too.wide")), (3, fault)] {
        let id = DecisionId(format!("dec-{n}"));
        trial.decide(&id, "node/a", Time(n), &now, &judged(Verdict::Allow, "fine"));
    }
    let report = trial.report(Told { role: Role::PolicyGate, tick_ms: None, ..told(Measure::Nothing, vec![], true) });
    assert_eq!(report.candidate.figures, None);
    assert_eq!((report.period.from, report.period.to, report.period.subjects), (Time(1), Time(3), 1));
    let changes = report.changes.expect("compared");
    assert_eq!((changes.compared, changes.changed), (3, 2));
    let rows: Vec<_> = changes.rows.iter().map(|row| (row.current.as_str(), row.candidate.as_str())).collect();
    assert_eq!(rows, [("allow", "deny (too.wide)"), ("allow", "no answer: trapped")]);
}

#[test]
fn a_bar_is_reached_or_told_and_what_cannot_be_known_is_not_reached() {
    let events = vec![event("e1", "a", 2, 4), event("e2", "a", 8, 9)];
    let report = alone("llCCllllllll", events, Tolerance::default());
    let bars = Bars { min_recall: Some(0.5), min_precision: Some(1.0), max_faults: Some(1), ..Bars::default() };
    assert_eq!(bars.short(&report), []);
    let bars = Bars {
        min_recall: Some(0.9),
        max_false_per_day: Some(0.0),
        min_lead_ms: Some(60_000),
        max_changed: Some(0),
        max_faults: Some(0),
        max_fuel_ratio: Some(1.5),
        ..Bars::default()
    };
    let short: String = bars.short(&report).iter().map(|short| format!("{short}\n")).collect();
    expect![[r#"
        min-recall asks for at least 0.9, and the backtest found 0.5
        min-lead asks for at least 60000, and the backtest found 0
        max-changed asks for at most 0, and the backtest found nothing to tell it by
        max-faults asks for at most 0, and the backtest found 1
        max-fuel-ratio asks for at most 1.5, and the backtest found nothing to tell it by
    "#]]
    .assert_eq(&short);
    // NaN reaches nothing.
    let bars = Bars { min_recall: Some(f64::NAN), ..Bars::default() };
    assert_eq!(bars.short(&report).len(), 1);
}

fn letters() -> impl Strategy<Value = String> {
    "[Chlu]{1,60}"
}

proptest! {
    /// Whatever is said and whatever happens, no alarm and no event is lost or counted twice.
    #[test]
    fn the_books_agree(letters in letters(), windows in proptest::collection::vec((0i64..60, 0i64..10), 0..6), lead in 0u64..5, late in 0u64..5) {
        let events = (1..).zip(&windows).map(|(n, (from, long))| event(&format!("e{n}"), "a", *from, from + long)).collect();
        let report = alone(&letters, events, Tolerance { lead_ms: lead * 60_000, late_ms: late * 60_000 });
        let figures = report.candidate.figures.expect("a scorer");
        prop_assert_eq!(figures.caught + figures.missed, figures.events);
        prop_assert_eq!(figures.events + report.events_outside, windows.len() as u64);
        prop_assert!(figures.standing <= figures.missed);
        prop_assert_eq!(figures.false_alarms, report.false_alarms.len() as u64);
        // One alarm can catch several events, so the rest is a bound.
        let first = figures.alarms - figures.repeated - figures.false_alarms;
        prop_assert!(first <= figures.caught);
        for row in &report.events {
            if let Some(caught) = row.candidate.caught_at {
                prop_assert!(caught >= row.event.from.minus_ms(lead * 60_000) && caught <= row.event.to.plus_ms(late * 60_000));
                prop_assert_eq!(row.candidate.lead_ms, Some(row.event.at.0 - caught.0));
            }
        }
    }

    /// More tolerance never catches less.
    #[test]
    fn tolerance_only_helps_recall(letters in letters(), windows in proptest::collection::vec((0i64..60, 0i64..10), 1..5), lead in 0u64..5) {
        let events: Vec<_> = (1..).zip(&windows).map(|(n, (from, long))| event(&format!("e{n}"), "a", *from, from + long)).collect();
        let caught = |lead_ms| alone(&letters, events.clone(), Tolerance { lead_ms, late_ms: 0 }).candidate.figures.expect("a scorer").caught;
        prop_assert!(caught(lead * 60_000) >= caught(0));
    }

    /// A candidate that says the same changes nothing, and the order in which subjects are told of does not matter.
    #[test]
    fn the_same_answers_change_nothing(a in letters(), b in letters()) {
        let mut trial = Trial::new(&hysteresis(), true);
        play(&mut trial, "a", &a, Some(&a));
        play(&mut trial, "b", &b, Some(&b));
        let one = trial.report(told(Measure::Nothing, vec![], true));
        let changes = one.changes.clone().expect("compared");
        prop_assert_eq!((changes.changed, changes.runs), (0, 0));
        prop_assert_eq!(changes.compared, (a.len() + b.len()) as u64);
        prop_assert_eq!(&one.candidate, one.current.as_ref().expect("compared"));
        let mut trial = Trial::new(&hysteresis(), true);
        play(&mut trial, "b", &b, Some(&b));
        play(&mut trial, "a", &a, Some(&a));
        prop_assert_eq!(one, trial.report(told(Measure::Nothing, vec![], true)));
    }
}
