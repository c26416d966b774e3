//! What each change does, and what is refused.

use super::*;

#[test]
fn what_changes_make_of_a_slot() {
    let a = || seed(vec![entry("a-1", None)]);
    let b_active = || [a(), add("b-2", Some("a-1")), force("b-2", Stage::Active)];
    let cases: Vec<(&str, Vec<Change>, &str)> = vec![
        ("a seed is active at once", vec![a()], "a-1:active"),
        (
            "the whole way",
            vec![
                a(),
                add("b-2", Some("a-1")),
                promote("b-2", Stage::Shadow),
                promote("b-2", canary(5)),
                promote("b-2", canary(50)),
                promote("b-2", Stage::Active),
            ],
            "b-2:active>a-1 a-1:retired",
        ),
        ("a canary can shrink", vec![a(), add("b-2", None), force("b-2", canary(50)), promote("b-2", canary(1))], {
            "a-1:active b-2:canary1"
        }),
        ("beside the others", vec![a(), add("b-2", None), force("b-2", Stage::Active)], "a-1:active b-2:active"),
        (
            "a shadow that failed is out, and nobody else is touched",
            vec![a(), add("b-2", Some("a-1")), promote("b-2", Stage::Shadow), roll_back("b-2")],
            "a-1:active b-2:retired>a-1!",
        ),
        (
            "an active one that failed gives its place back",
            b_active().into_iter().chain([roll_back("b-2")]).collect(),
            "a-1:active b-2:retired>a-1!",
        ),
        (
            "what waits for a place waits for the successor's, and gets it",
            vec![
                a(),
                add("b-2", Some("a-1")),
                add("c-3", Some("a-1")),
                force("b-2", Stage::Active),
                force("c-3", Stage::Active),
            ],
            "c-3:active>b-2 b-2:retired>a-1 a-1:retired",
        ),
        (
            "and for the predecessor's again, when the successor failed",
            vec![
                a(),
                add("b-2", Some("a-1")),
                add("c-3", Some("a-1")),
                force("b-2", Stage::Active),
                roll_back("b-2"),
                force("c-3", Stage::Active),
            ],
            "c-3:active>a-1 a-1:retired b-2:retired>a-1!",
        ),
        (
            "one after another falls back to the last good one",
            vec![
                a(),
                add("b-2", Some("a-1")),
                force("b-2", Stage::Active),
                add("c-3", Some("b-2")),
                force("c-3", Stage::Active),
                roll_back("c-3"),
                roll_back("b-2"),
            ],
            "a-1:active b-2:retired>a-1! c-3:retired>b-2!",
        ),
        (
            "whose place was vacated has none to take",
            vec![
                seed(vec![entry("a-1", None), entry("x-1", None)]),
                add("b-2", Some("a-1")),
                retire("a-1"),
                force("b-2", Stage::Active),
            ],
            "x-1:active b-2:active a-1:retired",
        ),
        ("an active one without a predecessor is flagged", vec![a(), flag("a-1")], "a-1:active!"),
        (
            "a flagged one is nobody's good predecessor",
            vec![
                a(),
                flag("a-1"),
                add("b-2", Some("a-1")),
                force("b-2", Stage::Active),
                flag("b-2"),
                add("c-3", Some("b-2")),
                force("c-3", Stage::Active),
            ],
            "c-3:active>b-2 b-2:retired>a-1! a-1:retired!",
        ),
        (
            "a new bundle keeps what stands, replaces by name, and retires the rest",
            vec![
                seed(vec![entry("a-1", None), entry("b-1", None), entry("c-1", None)]),
                add("d-2", None),
                seed(vec![entry("b-1", None), entry("a-2", None)]),
            ],
            "b-1:active a-2:active>a-1 a-1:retired c-1:retired d-2:retired",
        ),
        (
            "what a new bundle brought gives its place back, too",
            vec![a(), seed(vec![entry("a-2", None)]), roll_back("a-2")],
            "a-1:active a-2:retired>a-1!",
        ),
    ];
    for (what, changes, expected) in cases {
        let count = changes.len() as u64;
        let slot = after(changes);
        assert_eq!(shown(&slot), expected, "{what}");
        assert_eq!(slot.generation, count, "{what}");
    }
}

#[test]
fn what_is_refused_and_says_why() {
    let slot = after([
        seed(vec![entry("a-1", None)]),
        add("b-2", Some("a-1")),
        add("c-3", None),
        promote("c-3", Stage::Shadow),
        add("d-5", None),
        retire("d-5"),
    ]);
    let unproved = |name: &str, to, proof| Change::Promote { entry: id(name), to, proof: Box::new(proof) };
    let cases = [
        (add("a-1", None), "the slot has an entry `a-1` already"),
        (add("d-5", None), "the slot has an entry `d-5` already"),
        (add("e-9", Some("b-2")), "`e-9` replaces `b-2`, which does not answer in this slot"),
        (add("e-9", Some("z-9")), "`e-9` replaces `z-9`, which does not answer in this slot"),
        (promote("z-9", Stage::Shadow), "the slot has no entry `z-9`"),
        (promote("d-5", Stage::Shadow), "`d-5` is retired; add it again as a candidate"),
        (promote("b-2", Stage::Candidate), "`b-2` is candidate and cannot become candidate"),
        (promote("b-2", Stage::Retired), "`b-2` is candidate and cannot become retired"),
        (promote("a-1", Stage::Active), "`a-1` is active and cannot become active"),
        (promote("a-1", canary(5)), "`a-1` is active and cannot become canary"),
        (promote("c-3", canary(0)), "a canary's share is 1 to 99 percent, not 0"),
        (promote("c-3", canary(100)), "a canary's share is 1 to 99 percent, not 100"),
        (
            promote("b-2", Stage::Active),
            "the step from candidate to active asks for the stages between; give a reason to take it without",
        ),
        (
            promote("c-3", Stage::Active),
            "the step from shadow to active asks for the stages between; give a reason to take it without",
        ),
        (
            unproved("b-2", Stage::Shadow, Proof { self_test: None, ..proof() }),
            "the step from candidate to shadow asks for a self-test without failures; give a reason to take it without",
        ),
        (
            unproved("b-2", Stage::Shadow, Proof { self_test: Some(SelfTest { passed: 9, failed: 1 }), ..proof() }),
            "the step from candidate to shadow asks for a self-test without failures; give a reason to take it without",
        ),
        (
            unproved("c-3", canary(5), Proof { figures: Some(figures(19)), ..proof() }),
            "the step from shadow to canary asks for 20 evaluations at the stage it leaves, of which it has 19; give a reason to take it without",
        ),
        (
            unproved("c-3", canary(5), Proof { figures: None, ..proof() }),
            "the step from shadow to canary asks for 20 evaluations at the stage it leaves, of which it has 0; give a reason to take it without",
        ),
        (retire("a-1"), "`a-1` is the only one that answers in this slot; put another in its place instead"),
        (retire("d-5"), "`d-5` is retired; add it again as a candidate"),
        (retire("z-9"), "the slot has no entry `z-9`"),
        (
            roll_back("a-1"),
            "`a-1` replaced nothing good that could take its place again; it stays. Put another in its place instead",
        ),
        (roll_back("d-5"), "`d-5` is retired; add it again as a candidate"),
        (flag("b-2"), "`b-2` is flagged already, or not active"),
        (seed(vec![entry("x-1", None), entry("x-1", Some("a"))]), "the slot has an entry `x-1` already"),
    ];
    let before = slot.clone();
    for (change, expected) in cases {
        let refused = slot.apply(change.clone(), START).expect_err(&format!("{change:?}"));
        assert_eq!(refused.to_string(), expected, "{change:?}");
    }
    let flagged = slot.apply(flag("a-1"), START).unwrap();
    assert_eq!(flagged.apply(flag("a-1"), START), Err(Refused::Flagged(id("a-1"))));
    assert_eq!(slot, before);
}

#[test]
fn a_reason_takes_any_step_up_and_is_kept() {
    let slot = after([seed(vec![entry("a-1", None)]), add("b-2", Some("a-1")), force("b-2", Stage::Active)]);
    let proof = &slot.entry(&id("b-2")).unwrap().proofs[0];
    assert_eq!(
        (proof.to, proof.at, proof.overridden.as_deref()),
        (Stage::Active, START.plus_ms(120_000), Some("it burns"))
    );
}

#[test]
fn places_and_memory_of_retired_ones_are_bounded() {
    let mut slot = after([seed(vec![entry("a-1", None)])]);
    for number in 1..ENTRIES_MAXIMUM {
        slot = slot.apply(add(&format!("b-{number}"), None), START).unwrap();
    }
    assert_eq!(slot.apply(add("c-1", None), START), Err(Refused::Full));
    // What an active entry would fall back to is kept, however many were retired since.
    let mut slot = after([seed(vec![entry("a-1", None)]), add("b-2", Some("a-1")), force("b-2", Stage::Active)]);
    for number in 0..50u64 {
        let name = format!("c-{number}");
        let at = START.plus_ms(600_000 + number);
        slot = slot.apply(add(&name, None), at).unwrap().apply(retire(&name), at).unwrap();
    }
    assert_eq!(slot.entries.len(), 1 + RETIRED_MAXIMUM + 1);
    let slot = slot.apply(roll_back("b-2"), START.plus_ms(700_000)).unwrap();
    assert_eq!(slot.entries[0].id, id("a-1"));
    assert_eq!(slot.entries[0].stage, Stage::Active);
}

#[test]
fn a_circle_in_what_was_stored_hangs_nobody() {
    let mut slot = after([seed(vec![entry("a-1", None)]), add("b-2", Some("a-1")), force("b-2", Stage::Active)]);
    for entry in &mut slot.entries {
        entry.quarantine = Some(quarantine());
        entry.replaces = Some(id(if entry.id == id("a-1") { "b-2" } else { "a-1" }));
    }
    assert_eq!(slot.predecessor(&id("b-2")), None);
}

#[test]
fn another_role_retires_all_that_was_there() {
    let slot = after([seed(vec![entry("a-1", None)])]);
    let entries = vec![entry("a-2", None)];
    let change =
        Change::Seed { role: Role::PolicyGate, rule: CombiningRule::DenyOverrides, budget: Budget::default(), entries };
    let slot = slot.apply(change, START).unwrap();
    assert_eq!(shown(&slot), "a-2:active a-1:retired");
    assert_eq!((slot.role, slot.rule), (Role::PolicyGate, CombiningRule::DenyOverrides));
}
