//! Stories scored by tables of facts: what each line of a score rests on.

use super::*;

fn facts() -> Facts {
    let seen = Seen {
        id: IncidentId::new("inc-1"),
        opened_at: Time(5_000),
        cause: "spot.rebalance".into(),
        flagged: true,
        planned_at: Some(Time(5_100)),
        verbs: MIGRATION.iter().map(|verb| (*verb).into()).collect(),
        approved_at: Some(Time(9_000)),
        begun_at: Some(Time(9_001)),
        ended: 4,
        succeeded: 4,
        repeated: 0,
        finished_at: Some(Time(12_000)),
        closed_at: Some(Time(22_000)),
        resolution: Some(Resolution::Resolved),
    };
    Facts { begun_at: Some(Time(1_000)), undone_at: Some(Time(22_500)), incident: Some(seen), ..Facts::default() }
}

fn verdicts(kind: Kind, facts: &Facts) -> String {
    let letter = |line: &Line| match line.verdict {
        Verdict::Met => 'm',
        Verdict::NotMet => 'x',
        Verdict::NotReached => '-',
    };
    score(kind, Time(1_000), facts).iter().map(letter).collect()
}

#[test]
fn a_story_is_scored_line_by_line() {
    let with = |change: &dyn Fn(&mut Facts)| {
        let mut facts = facts();
        change(&mut facts);
        verdicts(Kind::SpotReclaim, &facts)
    };
    let seen = |change: &dyn Fn(&mut Seen)| with(&|facts| change(facts.incident.as_mut().unwrap()));
    // begins, finding, cause, flagged, plan, approval, once, verified, nothing left
    assert_eq!(with(&|_| {}), "mmmmmmmmm");
    assert_eq!(with(&|facts| facts.incident = None), "mx------m");
    assert_eq!(seen(&|seen| seen.opened_at = Time(16_001)), "mxmmmmmmm");
    assert_eq!(seen(&|seen| seen.cause = "host.memory".into()), "mmxmmmmmm");
    assert_eq!(seen(&|seen| seen.flagged = false), "mmmxmmmmm");
    assert_eq!(seen(&|seen| seen.verbs = vec!["cgroup.limit".into()]), "mmmmxmxmm");
    assert_eq!(seen(&|seen| seen.approved_at = None), "mmmmmxmmm");
    assert_eq!(seen(&|seen| seen.approved_at = Some(Time(10_000))), "mmmmmxmmm");
    assert_eq!(seen(&|seen| seen.repeated = 1), "mmmmmmxmm");
    assert_eq!(seen(&|seen| seen.succeeded = 3), "mmmmmmxmm");
    assert_eq!(seen(&|seen| seen.resolution = Some(Resolution::Undone)), "mmmmmmmxm");
    assert_eq!(with(&|facts| facts.undone_at = None), "mmmmmmmmx");
    assert_eq!(with(&|facts| facts.left = Some("a mount".into())), "mmmmmmmmx");
    // Nobody approved.
    let waiting = seen(&|seen| {
        (seen.approved_at, seen.begun_at, seen.ended, seen.succeeded) = (None, None, 0, 0);
        (seen.resolution, seen.closed_at, seen.finished_at) = (None, None, None);
    });
    assert_eq!(waiting, "mmmmm---m");
    let refused = Facts { refused: Some("not allowed".into()), ..Facts::default() };
    assert_eq!(verdicts(Kind::SpotReclaim, &refused), "xx-------");
}

#[test]
fn silence_is_scored_line_by_line() {
    let silence = Silence {
        noticed_at: Some(Time(9_000)),
        unknown: Some(true),
        ordered: 0,
        back_at: Some(Time(33_000)),
        before: Some("generation 1, demo-counter".into()),
        after: Some("generation 1, demo-counter".into()),
        lost_before: 2,
        lost_after: 2,
    };
    let facts = Facts { begun_at: Some(Time(1_000)), undone_at: Some(Time(32_000)), silence, ..Facts::default() };
    let with = |change: &dyn Fn(&mut Silence)| {
        let mut facts = facts.clone();
        change(&mut facts.silence);
        verdicts(Kind::HostDeath, &facts)
    };
    // begins, noticed, unknown, nothing ordered, back, the same, no loss, nothing left
    assert_eq!(with(&|_| {}), "mmmmmmmm");
    assert_eq!(with(&|silence| silence.noticed_at = None), "mx---mmm");
    assert_eq!(with(&|silence| silence.unknown = Some(false)), "mmxmmmmm");
    assert_eq!(with(&|silence| silence.ordered = 1), "mmmxmmmm");
    assert_eq!(with(&|silence| silence.back_at = None), "mmmmx--m");
    assert_eq!(with(&|silence| silence.back_at = Some(Time(92_001))), "mmmmxmmm");
    assert_eq!(with(&|silence| silence.after = Some("generation 2".into())), "mmmmmxmm");
    assert_eq!(with(&|silence| silence.lost_after = 3), "mmmmmmxm");
}

#[test]
fn a_plan_for_several_workloads_is_the_same_plan() {
    let verbs = |count: usize| -> Vec<String> {
        (0..count).flat_map(|_| MIGRATION.iter().map(|verb| (*verb).to_owned())).collect()
    };
    assert!(is_plan(&verbs(1), MIGRATION) && is_plan(&verbs(3), MIGRATION));
    assert!(!is_plan(&[], MIGRATION) && !is_plan(&verbs(1)[..3], MIGRATION) && !is_plan(&verbs(1), LIMIT));
}

#[test]
fn names_are_read_as_they_are_written() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.name()), Some(kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
    assert_eq!(Kind::parse("flood"), None);
}
