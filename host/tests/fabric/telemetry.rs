//! Batches: what is acknowledged and when, and what becomes of bad ones.

use super::*;

const EPOCH: u64 = 77;

pub(crate) struct Sender {
    encoder: Encoder,
    at: i64,
}

impl Sender {
    pub(crate) fn new() -> Self {
        Self { encoder: Encoder::default(), at: clock::now().0 - 60_000 }
    }

    pub(crate) fn batch_of(
        &mut self,
        subject: SubjectRef,
        sequence: u64,
        samples: usize,
        lost_before: u64,
    ) -> v1::TelemetryBatch {
        let key = SeriesKey {
            subject,
            metric: "system.cpu.utilization".into(),
            unit: "1".into(),
            attributes: BTreeMap::new(),
        };
        let samples = (0..samples).map(|_| {
            self.at += 1;
            Sample { at: Time(self.at), value: 0.5 }
        });
        let series = vec![SeriesSamples { key: key.into(), samples: samples.collect() }].into();
        let batch = Batch { origin: NodeId::new("node-a"), epoch: EPOCH, sequence, series, events: vec![] };
        self.encoder.encode(&batch, lost_before)
    }

    pub(crate) fn batch(&mut self, sequence: u64) -> v1::TelemetryBatch {
        self.batch_of(SubjectRef::node("node-a"), sequence, 2, 0)
    }
}

async fn acknowledged(peer: &mut Peer) -> u64 {
    match peer.next().await {
        Down::TelemetryAck(v1::TelemetryAck { epoch: EPOCH, sequence, beyond }) if beyond.is_empty() => sequence,
        other => panic!("an acknowledgement wanted: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let (mut peer, welcome) = host.join("node-a").await;
    assert_eq!(welcome.telemetry_ack, None);
    let mut sender = Sender::new();
    let second = {
        let mut taken = host.recorder.tap();
        peer.send(Up::Telemetry(sender.batch(1))).await;
        assert_eq!(taken.recv().await.unwrap().sequence, 1);
        let second = sender.batch(2);
        peer.send(Up::Telemetry(second.clone())).await;
        second
    };
    peer.nothing_was_said().await;
    assert_eq!(host.recorder.latest(&SubjectRef::node("node-a"), "system.cpu.utilization").len(), 1, "seen at once");
    host.recorder.seal(clock::now()).await.unwrap();
    assert_eq!(acknowledged(&mut peer).await, 2);
    // Sent again, because the acknowledgement might have got lost: it is given again, and nothing is counted twice.
    peer.send(Up::Telemetry(second)).await;
    assert_eq!(acknowledged(&mut peer).await, 2);
    let view = host.fabric.node(&NodeId::new("node-a")).unwrap().telemetry;
    assert_eq!((view.batches, view.duplicates, view.acknowledged), (2, 1, Some(2)));
    drop(peer);
    host.await_lost("node-a").await;
    // A later session goes on from there.
    let (_peer, welcome) = Peer::welcomed(&host.url, hello("node-a", credential(&welcome.credential))).await;
    assert_eq!(welcome.telemetry_ack, Some(v1::TelemetryAck { epoch: EPOCH, sequence: 2, beyond: vec![] }));
    assert!(welcome.telemetry_any_order);
}

#[tokio::test]
async fn batches_come_in_any_order_and_what_is_missing_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let (mut peer, welcome) = host.join("node-a").await;
    let mut sender = Sender::new();
    // What is sampled goes ahead of a backlog that began with 41; 52 and 53 were lost.
    for (sequence, lost_before) in [(41, 40), (51, 0), (54, 2), (42, 0)] {
        let batch = sender.batch_of(SubjectRef::node("node-a"), sequence, 2, lost_before);
        peer.send(Up::Telemetry(batch)).await;
    }
    let lost = v1::TelemetryAck { epoch: EPOCH, sequence: 40, beyond: vec![v1::SequenceRange { first: 52, last: 53 }] };
    assert_eq!(peer.was_said().await, [Down::TelemetryAck(lost)], "of what is lost");
    host.recorder.seal(clock::now()).await.unwrap();
    let safe = v1::TelemetryAck { epoch: EPOCH, sequence: 42, beyond: vec![v1::SequenceRange { first: 51, last: 54 }] };
    assert_eq!(peer.next().await, Down::TelemetryAck(safe.clone()));
    let view = host.fabric.node(&NodeId::new("node-a")).unwrap().telemetry;
    assert_eq!((view.batches, view.lost, view.acknowledged), (4, 2, Some(42)), "what was before 41 nobody asked for");
    drop(peer);
    host.await_lost("node-a").await;
    // A later session hears of both, and has 43 to 50 to send still, of which it lost most.
    let (mut peer, welcome) = Peer::welcomed(&host.url, hello("node-a", credential(&welcome.credential))).await;
    assert_eq!(welcome.telemetry_ack, Some(safe));
    let mut sender = Sender::new();
    for (sequence, lost_before) in [(44, 1), (55, 0)] {
        let batch = sender.batch_of(SubjectRef::node("node-a"), sequence, 2, lost_before);
        peer.send(Up::Telemetry(batch)).await;
    }
    // Had already, but it tells what is gone.
    peer.send(Up::Telemetry(sender.batch_of(SubjectRef::node("node-a"), 51, 2, 6))).await;
    let said = peer.was_said().await;
    let beyond = vec![v1::SequenceRange { first: 45, last: 54 }];
    assert_eq!(said.last(), Some(&Down::TelemetryAck(v1::TelemetryAck { epoch: EPOCH, sequence: 43, beyond })));
    host.recorder.seal(clock::now()).await.unwrap();
    assert_eq!(acknowledged(&mut peer).await, 55);
    let view = host.fabric.node(&NodeId::new("node-a")).unwrap().telemetry;
    assert_eq!((view.batches, view.duplicates, view.lost), (6, 1, 9));
}

#[tokio::test]
async fn bad_batches_are_refused_by_code_and_hold_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings { batch_bytes: 4 << 10, ..Settings::default() }).await;
    let (mut peer, _) = host.join("node-a").await;
    let (mut other, _) = host.join("node-b").await;
    let mut sender = Sender::new();
    peer.send(Up::Telemetry(sender.batch(1))).await;

    peer.send(Up::Telemetry(sender.batch(2))).await;

    let oversized = peer.rejected(sender.batch_of(SubjectRef::node("node-a"), 3, 1_000, 0)).await;
    assert_eq!((oversized.code.as_str(), oversized.expected), ("oversized", 4));

    let flipped = v1::TelemetryBatch { samples_crc32: 1, ..sender.batch(4) };
    assert_eq!(peer.rejected(flipped).await.code, "malformed");
    let samples = vec![0xff; 10];
    let garbage = v1::TelemetryBatch { samples_crc32: crc32(&samples), samples, ..sender.batch(5) };
    assert_eq!(peer.rejected(garbage).await.code, "malformed");
    let schema = v1::TelemetryBatch { schema_id: 9, ..sender.batch(6) };
    assert_eq!(peer.rejected(schema).await.code, "schema");
    let pool = SubjectRef { kind: SubjectKind::Pool, id: "p".into() };
    let gpu = SubjectRef { kind: SubjectKind::Gpu, id: "node-b/gpu-1".into() };
    let foreign = [SubjectRef::node("node-b"), SubjectRef::workload("work-node-b"), pool, gpu];
    for (sequence, subject) in (7..).zip(foreign) {
        let rejected = peer.rejected(sender.batch_of(subject, sequence, 2, 0)).await;
        assert_eq!((rejected.code.as_str(), rejected.expected), ("malformed", sequence + 1));
    }
    let mut ahead = sender.batch_of(SubjectRef::node("node-a"), 11, 1, 0);
    (ahead.samples, ahead.samples_crc32) = {
        let mut ahead = Sender { at: clock::now().0 + 86_400_000, encoder: Encoder::default() };
        let batch = ahead.batch(11);
        (batch.samples, batch.samples_crc32)
    };
    assert!(peer.rejected(ahead).await.reason.contains("clock"));

    let gpu = SubjectRef { kind: SubjectKind::Gpu, id: "node-a/gpu-0".into() };
    for (sequence, own) in (12..).zip([SubjectRef::node("node-a"), SubjectRef::workload("work-node-a"), gpu]) {
        peer.send(Up::Telemetry(sender.batch_of(own, sequence, 2, 0))).await;
    }
    // 15 to 19 are lost, and the spool says so.
    peer.send(Up::Telemetry(sender.batch_of(SubjectRef::node("node-a"), 20, 2, 5))).await;
    let is_ack = |said: &Down| matches!(said, Down::TelemetryAck(_));
    assert!(peer.was_said().await.iter().all(is_ack), "of what was refused or is lost");
    host.recorder.seal(clock::now()).await.unwrap();
    assert_eq!(acknowledged(&mut peer).await, 20);
    let view = host.fabric.node(&NodeId::new("node-a")).unwrap().telemetry;
    assert_eq!((view.batches, view.rejected, view.lost), (6, 9, 5));
    other.nothing_was_said().await;
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[tokio::test]
async fn without_room_a_batch_stays_with_its_sender_who_is_asked_to_send_less() {
    let folder = tempfile::tempdir().unwrap();
    let recording = aether_recorder::Settings {
        seal_bytes: 64 << 10,
        unsealed_bytes_limit: 64 << 10,
        ..aether_recorder::Settings::default()
    };
    let mut host =
        Host::start_with(folder.path(), Settings { full_retry_ms: 50, ..Settings::default() }, recording).await;
    let (mut peer, _) = host.join("node-a").await;
    let mut sender = Sender::new();
    let mut sequence = 0;
    let (full, refused) = loop {
        sequence += 1;
        let batch = sender.batch_of(SubjectRef::node("node-a"), sequence, 1_000, 0);
        peer.send(Up::Telemetry(batch.clone())).await;
        peer.send_frame(None).await;
        match peer.next().await {
            Down::TelemetryRejected(full) => break (full, batch),
            other => assert!(matches!(other, Down::Unsupported(_)), "{other:?}"),
        }
    };
    assert!(sequence > 1);
    assert_eq!((full.code.as_str(), full.expected, full.retry_after_ms), ("full", sequence, 50));
    assert!(matches!(peer.next().await, Down::Pressure(pressure) if pressure.percent == 50));
    assert!(matches!(peer.next().await, Down::Unsupported(_)));
    // One was on its way behind it.
    let next = sender.batch_of(SubjectRef::node("node-a"), sequence + 1, 1_000, 0);
    assert_eq!(peer.rejected(next).await.code, "full");
    // It comes again when it was told to, and there is no room still.
    tokio::time::sleep(Duration::from_millis(60)).await;
    peer.send(Up::Telemetry(refused.clone())).await;
    assert!(matches!(peer.next().await, Down::TelemetryRejected(again) if again.code == "full"));
    assert!(matches!(peer.next().await, Down::Pressure(pressure) if pressure.percent == 100));
    host.recorder.seal(clock::now()).await.unwrap();
    assert_eq!(acknowledged(&mut peer).await, sequence - 1);
    peer.send(Up::Telemetry(refused)).await;
    assert!(matches!(peer.next().await, Down::Pressure(pressure) if pressure.percent == 0));
    host.recorder.seal(clock::now()).await.unwrap();
    assert_eq!(acknowledged(&mut peer).await, sequence);
}

#[tokio::test]
async fn a_backlog_leaves_room_for_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let recording = aether_recorder::Settings {
        seal_bytes: 64 << 10,
        unsealed_bytes_limit: 64 << 10,
        ..aether_recorder::Settings::default()
    };
    let mut host = Host::start_with(folder.path(), Settings::default(), recording).await;
    let (mut peer, _) = host.join("node-a").await;
    let mut sender = Sender::new();
    peer.send(Up::Telemetry(sender.batch(1))).await;
    // Enough to fill half of the room, and not all of it.
    peer.send(Up::Telemetry(sender.batch_of(SubjectRef::node("node-a"), 100, 2_500, 0))).await;
    let later = peer.rejected(sender.batch(2)).await;
    assert_eq!((later.code.as_str(), later.sequence), ("full", 2));
    peer.send(Up::Telemetry(sender.batch(101))).await;
    peer.nothing_was_said().await;
    host.recorder.seal(clock::now()).await.unwrap();
    assert!(matches!(peer.next().await, Down::TelemetryAck(ack) if ack.sequence == 1 && ack.beyond.len() == 1));
    peer.send(Up::Telemetry(sender.batch(2))).await;
    peer.nothing_was_said().await;
}
