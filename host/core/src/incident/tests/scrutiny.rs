//! How closely people look, reckoned from stories.

use super::stories::Story;
use crate::incident::scrutiny::{Scrutiny, asked, scrutiny};

fn reckon(scripts: &[&str]) -> Vec<Scrutiny> {
    let journals = scripts.iter().map(|script| {
        let (mut story, _) = Story::open();
        story.play(script);
        story.journal
    });
    scrutiny(journals.flat_map(|journal| asked(&journal)))
}

#[test]
fn every_way_a_question_ends_is_counted_once() {
    let all = reckon(&[
        "propose; judge demand; after 3s; approve ann; reserve; accept; ok",
        "propose; judge demand; after 90s; approve ann because",
        "propose; judge demand; after 200s; deny ann",
        "propose; judge demand; after 600s; timer approval",
        "propose; judge demand",
        "propose; judge two; after 5s; approve ann; after 25s; approve ben because",
        "propose; judge two; after 40s; approve ann glass",
        // Nobody was asked.
        "propose; judge deny",
        "propose; judge free",
    ]);
    let [gate] = &all[..] else { panic!("{all:?}") };
    let expected = Scrutiny {
        gate: gate.gate.clone(),
        asked: 7,
        approved: 4,
        denied: 1,
        expired: 1,
        waiting: 1,
        hasty: 1,
        wordless: 1,
        break_glass: 1,
        median_ms: Some(40_000),
        rubber_stamp: Some(1.0 / 6.0),
    };
    assert_eq!(*gate, expected);
}

#[test]
fn what_the_posture_alone_asks_is_its_own() {
    let all = reckon(&["propose; judge allow; after 1s; approve ann", "propose; judge demand; after 1s; approve ann"]);
    let names: Vec<_> = all.iter().map(|one| (one.gate.as_str(), one.rubber_stamp)).collect();
    assert_eq!(names, [("gate", Some(1.0)), ("posture", Some(1.0))]);
}

#[test]
fn a_word_that_did_not_count_and_one_taken_back_end_nothing() {
    let all = reckon(&[
        "propose; judge two; after 2s; approve ann; approve ann; withdraw ann; after 20s; approve ben; approve eve",
    ]);
    assert_eq!((all[0].asked, all[0].approved, all[0].hasty, all[0].median_ms), (1, 1, 0, Some(22_000)));
}

#[test]
fn nothing_asked_is_no_share_and_a_journal_without_a_beginning_is_empty() {
    assert_eq!(reckon(&["propose; judge demand"])[0].rubber_stamp, None);
    assert_eq!(asked(&[]), []);
    let (mut story, _) = Story::open();
    story.play("propose; judge demand");
    assert_eq!(asked(&story.journal[1..]), []);
}
