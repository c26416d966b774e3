//! How long TCP connections of this machine to others take to be made, how many were not, and how many segments were sent
//! again.

use super::{
    Counters, Histograms, Missing, Names, Places, Program, Renewal, Sink, Source, cost::Board, program::Object,
    tell_by_cgroup,
};
use aether_core::metric;
use aya::include_bytes_aligned;

static OBJECT: Object = Object {
    source: "tcp_connect",
    bytes: include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tcp.bpf.o")),
    programs: &["inet_sock_set_state", "tcp_retransmit_skb"],
    may_rest: &["inet_sock_set_state"],
    ring: None,
    fallback: "`network` tells how much goes in and out, and not how it fares",
};

const NAMES: Names = Names {
    p50: metric::TCP_CONNECT_P50,
    p99: metric::TCP_CONNECT_P99,
    count: metric::TCP_CONNECTS,
    count_unit: "{connection}",
    time: metric::TCP_CONNECT_TIME,
};

/// Of `agent/bpf/tcp.bpf.c`.
const RETRANSMITS: usize = 1;
const FAILED: usize = 2;

pub(super) struct Tcp {
    program: Program,
    places: Places,
    connects: Histograms,
    counters: Counters,
    renewal: Renewal,
}

impl Tcp {
    pub(super) fn of(places: Places, board: Board) -> Self {
        let program = Program::of(&OBJECT, vec![("hierarchy", places.hierarchy())], board);
        let connects = Histograms::of("connects");
        Self { program, places, connects, counters: Counters::default(), renewal: Renewal::default() }
    }

    fn begin_anew(&mut self) {
        self.program.detach();
        self.connects.begin_anew();
        self.counters.begin_anew();
    }
}

impl Source for Tcp {
    fn name(&self) -> &'static str {
        OBJECT.source
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let Self { program, places, connects, counters, renewal } = self;
        let attached = program.ready(into.at)?;
        counters.read(attached)?;
        let readings = connects.read(attached, counters.taken())?;
        places.refresh(into.at, readings.keys().copied());
        tell_by_cgroup(&NAMES, readings, places, into);
        into.node(metric::TCP_RETRANSMITS, "{segment}", &[], counters.all[RETRANSMITS] as f64);
        into.node(metric::TCP_CONNECT_FAILURES, "{connection}", &[], counters.all[FAILED] as f64);
        counters.tell_lost(OBJECT.source, into);
        let gone = readings.keys().filter(|number| places.is_gone(**number)).count();
        let of = readings.len();
        if renewal.is_due(into.at, connects, of, gone) {
            self.begin_anew();
        }
        self.program.told()
    }

    fn rest(&mut self) {
        self.begin_anew();
    }
}
