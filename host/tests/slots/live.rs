//! Slots under a driver that asks them.

use super::*;
use aether_core::{
    decision::{Answer, Assessment, FaultKind},
    slot::Change,
};
use aether_runtime::{Assets, Environment, Replay, replay};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

fn score(envelope: &Envelope) -> f64 {
    match &envelope.outcome {
        Ok(Answer::Assessment(Assessment::Risk(risk))) => risk.score,
        other => panic!("{other:?}"),
    }
}

/// Every thread asks whoever stands there, again and again, while two components take each other's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_lose_no_evaluation_and_mix_none() {
    const SWAPS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    write_bundle(folder.path(), &scoring(0.25), "");
    let plant = Plant::open(folder.path()).await;
    let first = plant.now().slot().entries[0].component.clone();
    let second = plant.upload(scoring(0.75)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..3)
        .map(|number| {
            let (slots, stop, second) = (plant.slots.clone(), Arc::clone(&stop), second.clone());
            std::thread::spawn(move || {
                let mut seen = BTreeSet::new();
                let mut count = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let generation = slots.current(&risk()).unwrap();
                    let asked = generation.cast(&format!("node/node-{number}"));
                    assert_eq!(asked.answering.len(), 1, "somebody answers, and nobody beside them");
                    let live = &asked.answering[0];
                    let evaluation = live.prepared.evaluate(&guest::question(), Environment::default());
                    let Ok(Answer::Assessment(Assessment::Risk(found))) = evaluation.outcome else {
                        panic!("{:?}", evaluation.outcome)
                    };
                    let expected = if *live.prepared.digest() == second { 0.75 } else { 0.25 };
                    assert_eq!(found.score, expected, "the answer is of the component that was asked");
                    seen.insert((generation.number(), live.entry.id.clone(), live.prepared.digest().clone()));
                    count += 1;
                }
                (seen, count)
            })
        })
        .collect();
    for swap in 0..SWAPS {
        let active = plant.now().slot().active().next().unwrap().id.clone();
        let component = if swap % 2 == 0 { &second } else { &first };
        let next = plant.add(component, Some(&active)).await;
        plant.promote(&next, Stage::Active).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut seen = BTreeSet::new();
    let mut asked = 0;
    for thread in asking {
        let (of_thread, count) = thread.join().unwrap();
        seen.extend(of_thread);
        asked += count;
    }
    let last = plant.now().number();
    assert_eq!(last, 1 + 2 * SWAPS as u64);
    assert!(asked > 0 && seen.len() > 2, "{asked} evaluations of {} generations", seen.len());
    for (number, entry, digest) in seen {
        let made = plant.store.generation(&risk(), number).await.unwrap().unwrap();
        let stood = made.slot.entry(&entry).unwrap();
        assert_eq!((stood.stage, &stood.component), (Stage::Active, &digest), "generation {number}");
    }
    plant.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_answers_for_its_share_of_the_nodes_and_always_for_the_same() {
    const NODES: usize = 60;
    let folder = tempfile::tempdir().unwrap();
    write_bundle(folder.path(), &scoring(0.25), "");
    let fleet = Fleet::start(folder.path(), NODES).await;
    let plant = &fleet.plant;
    let before = fleet.scored_since(1).await;
    assert!(before.iter().all(|envelope| score(envelope) == 0.25));
    let active = plant.now().slot().entries[0].id.clone();
    let canary = plant.add(&plant.upload(scoring(0.75)).await, Some(&active)).await;
    plant.promote(&canary, Stage::Canary { percent: 30 }).await;
    let chosen = async |generation: u64| -> BTreeSet<String> {
        let decisions = fleet.scored_since(generation).await;
        let of = |envelope: &Envelope| {
            let aether_core::decision::Question::Score(observation) = &envelope.question else { panic!("a scorer") };
            observation.subject.id.clone()
        };
        for envelope in &decisions {
            let is_canary = envelope.entry == canary;
            assert_eq!(score(envelope), if is_canary { 0.75 } else { 0.25 });
            assert_eq!(matches!(envelope.stage, Stage::Canary { .. }), is_canary);
        }
        decisions.iter().filter(|envelope| envelope.entry == canary).map(of).collect()
    };
    let generation = plant.now().number();
    let first = chosen(generation).await;
    // Four standard deviations around 18 of 60.
    assert!((4..=32).contains(&first.len()), "{} of {NODES} nodes", first.len());
    let at = fleet.decisions().iter().map(|envelope| envelope.at).max();
    until("another tick", async || (fleet.decisions().iter().map(|e| e.at).min() > at).then_some(())).await;
    assert_eq!(chosen(generation).await, first, "a node stays on its side");
    plant.promote(&canary, Stage::Canary { percent: 60 }).await;
    let wider = chosen(plant.now().number()).await;
    assert!(wider.is_superset(&first) && wider.len() > first.len());
    plant.promote(&canary, Stage::Active).await;
    let all = fleet.scored_since(plant.now().number()).await;
    assert!(all.iter().all(|envelope| (&envelope.entry, envelope.stage) == (&canary, Stage::Active)), "for all");
    assert_eq!(plant.standing(), format!("{canary}:active"));
    let proofs = plant.now().slot().entry(&canary).unwrap().proofs.clone();
    assert_eq!(proofs.len(), 4);
    assert!(proofs[3].figures.as_ref().unwrap().evaluations > 0, "what it did as a canary is in its proof");
    assert!(proofs[3].baseline.unwrap().fuel_p50.is_some(), "and what the one before it did");
    fleet.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_starts_to_fail_is_taken_out_and_the_one_before_answers_again() {
    let folder = tempfile::tempdir().unwrap();
    write_bundle(folder.path(), &scoring(0.25), "");
    let fleet = Fleet::start(folder.path(), 2).await;
    let plant = &fleet.plant;
    let good = plant.now().slot().entries[0].id.clone();
    // Long enough for a busy machine to compile and promote it before.
    let from = clock::now().plus_ms(8_000);
    let digest = plant.upload(failing_from(from)).await;
    let failing = plant.add(&digest, Some(&good)).await;
    plant.promote(&failing, Stage::Active).await;
    let promoted = plant.now().number();
    assert!(fleet.scored_since(promoted).await.iter().all(|envelope| envelope.entry == failing));
    until("the former is active again", async || (plant.standing() == format!("{good}:active")).then_some(())).await;
    let rolled_back = plant.now().number();
    let after = fleet.scored_since(rolled_back).await;
    assert!(after.iter().all(|envelope| envelope.entry == good && score(envelope) == 0.25));

    // Told, with what is needed to see it fail again.
    let retired = plant.now().slot().entry(&failing).unwrap().clone();
    let quarantine = retired.quarantine.unwrap();
    assert!(quarantine.reason.contains("ended in a fault"), "{quarantine:?}");
    let reproducer = plant.store.decision(&quarantine.reproducer.unwrap()).await.unwrap().unwrap();
    assert_eq!((&reproducer.entry, reproducer.generation), (&failing, promoted));
    assert_eq!(reproducer.outcome.as_ref().unwrap_err().kind, FaultKind::Trapped);
    let config = plant.store.config(&reproducer.config).await.unwrap().unwrap();
    let component = plant.registry.load(&reproducer.component).await.unwrap();
    let prepared = component.activate(&config, &reproducer.limits, &Assets::default()).unwrap();
    assert_eq!(replay(&prepared, &reproducer), Replay::Identical);

    let made = &plant.now().made;
    assert!(matches!(made.change, Change::RollBack { .. }) && made.by.as_str() == "aether", "{made:?}");
    let told = format!("aether slot.roll-back slot/risk/{failing} Done");
    until("the audit tells it, once", async || {
        let audit = plant.audit().await;
        (audit.iter().filter(|line| **line == told).count() == 1).then_some(())
    })
    .await;
    let record = plant.registry.record(&digest).await.unwrap();
    assert_eq!(record.quarantine.unwrap().entry, failing);
    let again = plant.slots.act(&risk(), Deed::Add(plant.new_entry(&digest, None)), ann()).await;
    assert!(matches!(again, Err(Error::Quarantined { .. })));
    assert!(plant.audit().await.last().unwrap().ends_with("slot.add slot/risk Refused"));
    fleet.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_has_no_effect_and_one_that_would_do_otherwise_is_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    write_bundle(folder.path(), &scoring(0.25), "");
    let fleet = Fleet::start(folder.path(), 2).await;
    let plant = &fleet.plant;
    let active = plant.now().slot().entries[0].id.clone();
    let agreeing = plant.add(&plant.upload(scoring(0.3)).await, Some(&active)).await;
    plant.promote(&agreeing, Stage::Shadow).await;
    let alarm = plant.add(&plant.upload(alarming()).await, Some(&active)).await;
    plant.promote(&alarm, Stage::Shadow).await;
    until("the one that would do otherwise is out", async || {
        let now = plant.now();
        now.slot().entry(&alarm).filter(|entry| entry.quarantine.is_some()).map(|_| ())
    })
    .await;
    let quarantine = plant.now().slot().entry(&alarm).unwrap().quarantine.clone().unwrap();
    assert!(quarantine.reason.starts_with("100.0 % of its answers would have led to another deed"), "{quarantine:?}");
    let reproducer = plant.store.decision(&quarantine.reproducer.unwrap()).await.unwrap().unwrap();
    assert_eq!((&reproducer.entry, reproducer.stage), (&alarm, Stage::Shadow));
    // The other one goes on, and with what was seen of it can take the next step without anybody's word.
    until("the other one was compared often enough", async || {
        let figures = plant.now().live(&agreeing)?.figures();
        (figures.compared >= 20).then(|| assert_eq!((figures.diverged, figures.faults.len()), (0, 0)))
    })
    .await;
    let deed = plant.promotion(&agreeing, Stage::Canary { percent: 50 }, None);
    plant.slots.act(&risk(), deed, ann()).await.unwrap();
    assert_eq!(plant.standing(), format!("{active}:active {agreeing}:canary"));
    assert!(fleet.decisions().iter().all(|envelope| envelope.entry != alarm), "a shadow's answer has no effect");
    fleet.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_with_nobody_before_it_stays_and_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    write_bundle(folder.path(), &failing_from(aether_core::time::Time(0)), "");
    let fleet = Fleet::start(folder.path(), 2).await;
    let plant = &fleet.plant;
    let only = plant.now().slot().entries[0].id.clone();
    until("it is flagged", async || plant.now().slot().entry(&only)?.quarantine.clone()).await;
    assert_eq!(plant.standing(), format!("{only}:active"));
    let figures = || plant.now().live(&only).unwrap().figures().evaluations;
    let now = figures();
    until("it was asked again and again", async || (figures() > now + 10).then_some(())).await;
    assert_eq!((plant.now().number(), plant.now().made.change.name()), (2, "flag"));
    let flagged = format!("aether slot.flag slot/risk/{only} Done");
    until("the audit tells it", async || plant.audit().await.contains(&flagged).then_some(())).await;
    assert_eq!(plant.audit().await, ["aether slot.seed slot/risk Done".to_owned(), flagged]);
    // What is unknown is not taken for low.
    assert!(fleet.control.risks().iter().all(|risk| risk.risk.is_none() && risk.unknown.is_some()));
    fleet.close().await;
}

#[tokio::test]
async fn of_two_steps_at_once_one_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    write_bundle(folder.path(), &scoring(0.25), "");
    let plant = Plant::open(folder.path()).await;
    let active = plant.now().slot().entries[0].id.clone();
    let one = plant.add(&plant.upload(scoring(0.5)).await, Some(&active)).await;
    let other = plant.add(&plant.upload(scoring(0.75)).await, Some(&active)).await;
    let (of_one, of_other) =
        (plant.promotion(&one, Stage::Active, Some("mine")), plant.promotion(&other, Stage::Active, Some("no, mine")));
    let (slot, generation) = (risk(), plant.now().number());
    let (a, b) = tokio::join!(plant.slots.act(&slot, of_one, ann()), plant.slots.act(&slot, of_other, ann()));
    let (done, refused) = if a.is_ok() { (a, b) } else { (b, a) };
    assert!(done.is_ok());
    let found = generation + 1;
    assert!(matches!(refused, Err(Error::Stale { given, found: at }) if (given, at) == (generation, found)));
    assert_eq!(plant.now().number(), found);
    assert_eq!(plant.now().slot().active().count(), 1);
    let audit = plant.audit().await;
    assert_eq!(audit.iter().filter(|line| line.contains("slot.promote") && line.ends_with("Refused")).count(), 1);
    plant.close().await;
}
