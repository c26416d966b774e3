//! What was refused is kept whole, can be offered again under other limits, and is never had twice.

use super::{telemetry::Sender, *};
use aether_core::audit::{Act, ActOutcome};
use aether_host::{
    fabric::{NotReplayed, Replayed},
    store::dead_letters::DeadLetter,
};
use aether_recorder::RangeQuery;

fn act() -> Act {
    Act::by_itself("telemetry.replay", "dead-letter".into(), BTreeMap::new())
}

async fn letters(host: &Host) -> Vec<DeadLetter> {
    host.store.dead_letters(None, None, 100).await.unwrap()
}

/// All samples of the node's series, from the segments as well.
async fn samples(host: &Host) -> u64 {
    let query = RangeQuery {
        subject: SubjectRef::node("node-a"),
        metric: "system.cpu.utilization".into(),
        from: clock::now().minus_ms(600_000),
        to: clock::now().plus_ms(1),
        max_points: 1,
    };
    let answer = host.recorder.range_deep(&query).await.unwrap();
    answer.series.iter().flat_map(|series| &series.buckets).map(|bucket| u64::from(bucket.samples)).sum()
}

#[tokio::test]
async fn a_refused_batch_is_kept_before_its_sender_hears_of_it_and_replayed_once() {
    let folder = tempfile::tempdir().unwrap();
    let narrow = Settings { batch_bytes: 4 << 10, ..Settings::default() };
    let mut host = Host::start(folder.path(), narrow.clone()).await;
    let (mut peer, _) = host.join("node-a").await;
    let mut sender = Sender::new();
    peer.send(Up::Telemetry(sender.batch(1))).await;
    let node = SubjectRef::node("node-a");
    // Its series was defined by the batch before: the letter must not need this stream.
    let oversized = peer.rejected(sender.batch_of(node.clone(), 2, 1_000, 0)).await;
    assert_eq!(oversized.code, "oversized");
    let foreign = peer.rejected(sender.batch_of(SubjectRef::node("node-b"), 3, 2, 0)).await;
    assert_eq!(foreign.code, "malformed");
    let found = letters(&host).await;
    let told: Vec<_> = found.iter().map(|letter| (letter.sequence.as_str(), letter.code.as_str())).collect();
    assert_eq!(told, [("3", "malformed"), ("2", "oversized")]);
    assert!(found.iter().all(|letter| letter.kept && letter.origin == NodeId::new("node-a")));
    let (foreign, oversized) = (found[0].number, found[1].number);

    let refused = host.fabric.replay_dead_letter(oversized, act()).await.unwrap_err();
    assert!(matches!(refused, NotReplayed::Refused { code: "oversized", .. }), "{refused:?}");
    let (_, read) = host.fabric.read_dead_letter(foreign).await.unwrap().unwrap();
    assert!(read.unwrap_err().to_string().contains("not node-a's to speak of"));
    assert!(matches!(host.fabric.replay_dead_letter(99, act()).await, Err(NotReplayed::Unknown(99))));
    host.recorder.seal(clock::now()).await.unwrap();
    assert_eq!(samples(&host).await, 2);
    drop(peer);
    host.await_lost("node-a").await;

    // The operator has given it more room.
    let host = Host::start(folder.path(), Settings::default()).await;
    let (_, read) = host.fabric.read_dead_letter(oversized).await.unwrap().unwrap();
    assert_eq!(read.unwrap().series.values().len(), 1_000);
    assert_eq!(host.fabric.replay_dead_letter(oversized, act()).await.unwrap(), Replayed::Taken);
    assert_eq!(host.fabric.replay_dead_letter(oversized, act()).await.unwrap(), Replayed::Before);
    assert_eq!(samples(&host).await, 1_002);
    assert!(letters(&host).await[1].replayed_at.is_some());
    let audited = host.store.last_audited("telemetry.replay").await.unwrap().unwrap();
    assert_eq!(audited.outcome, ActOutcome::Done);

    // A replay is on disk when it is answered: a host that dies right after has it, and still doubles nothing.
    let host = Host::start(folder.path(), Settings::default()).await;
    assert_eq!(samples(&host).await, 1_002);
    assert_eq!(host.fabric.replay_dead_letter(oversized, act()).await.unwrap(), Replayed::Before);
    assert_eq!(samples(&host).await, 1_002);
}

#[tokio::test]
async fn a_runaway_agent_fills_neither_the_list_nor_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Settings { dead_letters_maximum: 5, ..Settings::default() };
    let mut host = Host::start(folder.path(), bounds).await;
    let (mut peer, _) = host.join("node-a").await;
    let mut sender = Sender::new();
    for sequence in 1..=100 {
        let bad = v1::TelemetryBatch { schema_id: 9, ..sender.batch(sequence) };
        assert_eq!(peer.rejected(bad).await.code, "schema");
    }
    let sequences: Vec<_> = letters(&host).await.into_iter().map(|letter| letter.sequence).collect();
    assert_eq!(sequences, ["60", "59", "58", "57", "56"], "sixty within a minute, and the newest five of those");
}
