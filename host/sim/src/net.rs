//! The network between agents and hosts: streams of real frames, each with a way of its own through it.
//!
//! A stream keeps its order, as TCP does, unless a fault says otherwise; both ends count their frames, so that a lost,
//! doubled or swapped one ends the stream. Beside the streams, a signed order can come to its agent once more and late.

use crate::{
    QUANTUM_MS,
    dice::{Rng, dice, happens},
    faults::Fault,
    host::Base,
    mutations,
    shared::Shared,
};
use aether_agent::uplink::{Dial, Inbound, Incoming};
use aether_core::order::Order;
use aether_proto::v1::{self, client_frame, dispatch_state::State, server_frame};
use futures::StreamExt as _;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::Status;

type Down = Result<v1::ServerFrame, Status>;
type Up = Result<v1::ClientFrame, Status>;

/// One replica, from its start to its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostId(pub u64);

/// What is on its way.
pub(crate) enum Packet {
    Open { stream: u64 },
    Up { stream: u64, frame: Option<Box<v1::ClientFrame>> },
    Down { stream: u64, frame: Option<Box<Down>> },
    Order { node: usize, dispatch: Box<v1::Dispatch> },
}

struct Stream {
    node: usize,
    host: HostId,
    to_agent: Option<UnboundedSender<Down>>,
    to_host: Option<UnboundedSender<Up>>,
    /// When the last frame of each direction arrives: the next comes no earlier.
    up_at: u64,
    down_at: u64,
    /// Whatever is sent vanishes.
    silent: bool,
}

pub(crate) struct Net {
    dice: Rng,
    queue: BTreeMap<(u64, u64), Packet>,
    packets: u64,
    streams: BTreeMap<u64, Stream>,
    opened: u64,
    /// Where the hosts are known to be; the last is the one to go to.
    hosts: Vec<HostId>,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dice: dice(seed, "net"),
            queue: BTreeMap::new(),
            packets: 0,
            streams: BTreeMap::new(),
            opened: 0,
            hosts: vec![],
        }
    }

    pub(crate) fn host_is_up(&mut self, host: HostId) {
        self.hosts.push(host);
    }

    fn push(&mut self, at: u64, packet: Packet) {
        self.packets += 1;
        self.queue.insert((at, self.packets), packet);
    }

    fn latency(&mut self) -> u64 {
        QUANTUM_MS * self.dice.u64(1..=2)
    }

    /// What has arrived by `now`.
    pub(crate) fn due(&mut self, now: u64) -> Vec<Packet> {
        let later = self.queue.split_off(&(now + 1, 0));
        std::mem::replace(&mut self.queue, later).into_values().collect()
    }

    pub(crate) fn host_of(&self, stream: u64) -> Option<HostId> {
        self.streams.get(&stream).map(|stream| stream.host)
    }

    pub(crate) fn node_of(&self, stream: u64) -> Option<usize> {
        self.streams.get(&stream).map(|stream| stream.node)
    }

    /// The host takes a stream in: its frames go here from now on.
    pub(crate) fn taken_in(&mut self, stream: u64) -> Option<UnboundedReceiverStream<Up>> {
        let stream = self.streams.get_mut(&stream)?;
        let (sender, receiver) = mpsc::unbounded_channel();
        stream.to_host = Some(sender);
        Some(UnboundedReceiverStream::new(receiver))
    }

    pub(crate) fn deliver_up(&mut self, stream: u64, frame: Option<Box<v1::ClientFrame>>) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        match frame {
            Some(frame) => {
                if let Some(sender) = &known.to_host {
                    drop(sender.send(Ok(*frame)));
                }
            }
            None => known.to_host = None,
        }
    }

    pub(crate) fn deliver_down(&mut self, stream: u64, frame: Option<Box<Down>>) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        match frame {
            Some(frame) => {
                if let Some(sender) = &known.to_agent {
                    drop(sender.send(*frame));
                }
            }
            None => known.to_agent = None,
        }
    }

    /// Nobody is there: the agent learns that it cannot connect.
    pub(crate) fn refuse(&mut self, now: u64, stream: u64) {
        let at = now + self.latency();
        self.push(at, Packet::Down { stream, frame: Some(Box::new(Err(Status::unavailable("nobody listens")))) });
        self.push(at, Packet::Down { stream, frame: None });
    }

    fn open(&mut self, now: u64, node: usize) -> (u64, UnboundedReceiverStream<Down>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.opened += 1;
        let newest = self.hosts.last().copied().unwrap_or(HostId(0));
        let any = self.dice.choice(&self.hosts).copied().unwrap_or(newest);
        let host = if happens(&mut self.dice, 0.25) { any } else { newest };
        let latency = self.latency();
        let stream = Stream {
            node,
            host,
            to_agent: Some(sender),
            to_host: None,
            up_at: now + latency,
            down_at: now,
            silent: false,
        };
        self.streams.insert(self.opened, stream);
        self.push(now + latency, Packet::Open { stream: self.opened });
        (self.opened, UnboundedReceiverStream::new(receiver))
    }

    /// The ends of a process are closed, unless its death was so sudden that nobody is told.
    pub(crate) fn agent_gone(&mut self, now: u64, node: usize, told: bool) {
        let streams: Vec<u64> =
            self.streams.iter().filter(|(_, stream)| stream.node == node).map(|(id, _)| *id).collect();
        for id in streams {
            if let Some(stream) = self.streams.get_mut(&id) {
                (stream.to_agent, stream.silent) = (None, !told);
                let at = (now + QUANTUM_MS).max(stream.up_at);
                if told {
                    self.push(at, Packet::Up { stream: id, frame: None });
                }
            }
        }
    }

    /// The agent on `node` has heard that the host of `stream` is in charge.
    pub(crate) fn agent_knows(&self, stream: u64, frame: &Down) -> Option<(usize, u64)> {
        let known = self.streams.get(&stream).filter(|known| known.to_agent.is_some())?;
        match frame.as_ref().ok()?.payload.as_ref()? {
            server_frame::Payload::Welcome(welcome) => Some((known.node, welcome.lease)),
            _ => None,
        }
    }

    pub(crate) fn host_gone(&mut self, now: u64, host: HostId, told: bool) {
        self.hosts.retain(|known| *known != host);
        let streams: Vec<u64> =
            self.streams.iter().filter(|(_, stream)| stream.host == host).map(|(id, _)| *id).collect();
        for id in streams {
            if let Some(stream) = self.streams.get_mut(&id) {
                (stream.to_host, stream.silent) = (None, !told);
                let at = (now + QUANTUM_MS).max(stream.down_at);
                if told {
                    self.push(at, Packet::Down { stream: id, frame: None });
                }
            }
        }
    }

    /// Frames are on their way, or a stream between the living is not seen to be over.
    pub(crate) fn forget_closed(&mut self) {
        self.streams.retain(|_, stream| stream.to_agent.is_some() || stream.to_host.is_some());
    }

    /// When a frame that is sent now arrives, unless something happens to it: then none, or twice.
    fn ways(&mut self, shared: &Shared, id: u64, up: bool, what: &str) -> Vec<u64> {
        let now = shared.now();
        let mut at = now + self.latency();
        let Some(stream) = self.streams.get(&id) else { return vec![] };
        if stream.silent {
            return vec![];
        }
        let before = if up { stream.up_at } else { stream.down_at };
        let mut ways = vec![];
        let label = || format!("stream {id} {} {what}", if up { "up" } else { "down" });
        let mut roll = |fault: Fault| !shared.is_quiet() && happens(&mut self.dice, shared.odds.get(fault));
        if roll(Fault::MessageDropped) {
            shared.fault(Fault::MessageDropped, label());
            return ways;
        }
        if roll(Fault::StreamCut) {
            shared.fault(Fault::StreamCut, label());
            self.cut(now, id);
            return ways;
        }
        if roll(Fault::StreamSilent) {
            shared.fault(Fault::StreamSilent, label());
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.silent = true;
            }
            return ways;
        }
        let delayed = roll(Fault::MessageDelayed);
        let reordered = roll(Fault::MessageReordered);
        let duplicated = roll(Fault::MessageDuplicated);
        if delayed {
            at += QUANTUM_MS * self.dice.u64(2..80);
            shared.fault(Fault::MessageDelayed, label());
        }
        if reordered {
            // It lets the next ones go by.
            shared.fault(Fault::MessageReordered, label());
            ways.push(at.max(before) + QUANTUM_MS * self.dice.u64(1..30));
            return ways;
        }
        let at = at.max(before);
        ways.push(at);
        if duplicated {
            shared.fault(Fault::MessageDuplicated, label());
            ways.push(at + QUANTUM_MS * self.dice.u64(0..10));
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            let last = if up { &mut stream.up_at } else { &mut stream.down_at };
            *last = at;
        }
        ways
    }

    fn cut(&mut self, now: u64, id: u64) {
        self.push(now + QUANTUM_MS, Packet::Up { stream: id, frame: None });
        self.push(now + QUANTUM_MS, Packet::Down { stream: id, frame: None });
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.silent = true;
        }
    }

    pub(crate) fn send_up(&mut self, shared: &Shared, id: u64, mut frame: v1::ClientFrame) {
        mutations::on_the_way_up(shared, &mut frame);
        let what = client_kind(&frame);
        for at in self.ways(shared, id, true, &what) {
            self.push(at, Packet::Up { stream: id, frame: Some(Box::new(frame.clone())) });
        }
    }

    pub(crate) fn send_down(&mut self, shared: &Shared, id: u64, frame: Down) {
        let what = server_kind(&frame);
        if let Some(dispatch) = dispatched(&frame) {
            sent_in_charge(shared, dispatch);
            if let Some((node, ahead)) = mutations::sent_ahead(shared, dispatch) {
                self.push(shared.now() + QUANTUM_MS, Packet::Order { node, dispatch: Box::new(ahead) });
            }
        }
        if let Ok(v1::ServerFrame { payload: Some(server_frame::Payload::Dispatch(dispatch)), .. }) = &frame
            && !shared.is_quiet()
            && happens(&mut self.dice, shared.odds.get(Fault::OrderRepeated))
            && let Some(node) = self.node_of(id)
        {
            let at = shared.now() + QUANTUM_MS * self.dice.u64(1..400);
            shared.fault(Fault::OrderRepeated, format!("{what} comes again at {at}"));
            self.push(at, Packet::Order { node, dispatch: Box::new(dispatch.clone()) });
        }
        for at in self.ways(shared, id, false, &what) {
            self.push(at, Packet::Down { stream: id, frame: Some(Box::new(frame.clone())) });
        }
    }

    /// One end has closed the stream in good order: what was sent before still arrives.
    fn close(&mut self, id: u64, up: bool) {
        let latency = self.latency();
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.silent) else { return };
        if up {
            stream.to_agent = None;
            let at = stream.up_at + latency;
            self.push(at, Packet::Up { stream: id, frame: None });
        } else {
            stream.to_host = None;
            let at = stream.down_at + latency;
            self.push(at, Packet::Down { stream: id, frame: None });
        }
    }
}

pub(crate) fn dispatched(frame: &Down) -> Option<&v1::Dispatch> {
    match frame.as_ref().ok()?.payload.as_ref()? {
        server_frame::Payload::Dispatch(dispatch) => Some(dispatch),
        _ => None,
    }
}

/// A host without the lease sends no orders.
fn sent_in_charge(shared: &Shared, dispatch: &v1::Dispatch) {
    let Ok(order) = serde_json::from_slice::<Order>(&dispatch.order) else { return };
    let mut world = shared.world();
    if order.lease != world.lease {
        let newest = world.lease;
        world.broken.push(format!("an order was sent under the lease {}, and {newest} is the newest", order.lease));
    }
}

/// How an agent dials in this network.
pub(crate) struct Wire {
    pub node: usize,
    pub shared: Arc<Shared>,
    pub tasks: TaskTracker,
}

#[tonic::async_trait]
impl Dial for Wire {
    async fn connect(&self, mut outgoing: mpsc::Receiver<v1::ClientFrame>) -> Result<Incoming, Status> {
        let (id, incoming) = self.shared.net().open(self.shared.now(), self.node);
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            while let Some(frame) = outgoing.recv().await {
                shared.net().send_up(&shared, id, frame);
            }
            shared.net().close(id, true);
        });
        Ok(Box::pin(incoming))
    }
}

/// Carries what a host says down a stream.
pub(crate) async fn pump(shared: Arc<Shared>, id: u64, base: Arc<Base>, mut frames: aether_host::fabric::Frames) {
    while let Some(frame) = frames.next().await {
        if dispatched(&frame).is_some() {
            base.before_dispatch().await;
        }
        shared.net().send_down(&shared, id, frame);
    }
    shared.net().close(id, false);
}

/// An order that comes beside the stream.
pub(crate) fn order(dispatch: v1::Dispatch) -> Inbound {
    Inbound::Dispatch(Box::new(dispatch))
}

fn short(key: &str) -> &str {
    key.get(..8).unwrap_or(key)
}

pub(crate) fn client_kind(frame: &v1::ClientFrame) -> String {
    match &frame.payload {
        Some(client_frame::Payload::Hello(_)) => "hello".into(),
        Some(client_frame::Payload::Heartbeat(_)) => "heartbeat".into(),
        Some(client_frame::Payload::Workloads(_)) => "workloads".into(),
        Some(client_frame::Payload::DispatchState(state)) => {
            let kind = match &state.state {
                Some(State::Refused(refused)) => format!("refused ({})", refused.code),
                Some(State::Accepted(_)) => "accepted".into(),
                Some(State::Progress(_)) => "progress".into(),
                Some(State::Outcome(_)) => "outcome".into(),
                Some(State::Sleeping(_)) => "sleeping".into(),
                None => "nothing".into(),
            };
            format!("{kind} {}", short(&state.key))
        }
        Some(_) => "other".into(),
        None => "unknown".into(),
    }
}

pub(crate) fn server_kind(frame: &Down) -> String {
    match frame.as_ref().map(|frame| frame.payload.as_ref()) {
        Ok(Some(server_frame::Payload::Welcome(_))) => "welcome".into(),
        Ok(Some(server_frame::Payload::Refused(refused))) => format!("not let in ({})", refused.code),
        Ok(Some(server_frame::Payload::Heartbeat(_))) => "heartbeat".into(),
        Ok(Some(server_frame::Payload::Dispatch(dispatch))) => {
            format!("order {}", short(&aether_agent::act::check::claimed_key(dispatch)))
        }
        Ok(Some(server_frame::Payload::DispatchStateAck(ack))) => format!("acknowledged {}", short(&ack.key)),
        Ok(Some(_)) => "other".into(),
        Ok(None) => "unknown".into(),
        Err(status) => format!("end ({})", status.message()),
    }
}
