//! How long requests to block devices took, from being made to being done, by disk and direction: what `/proc/diskstats`
//! adds up, with how it is spread.

use super::{
    Counters, Histograms, Missing, Names, Program, Sink, Source, cost::Board, histogram::total, program::Object,
};
use aether_core::{metric, subject::SubjectRef};
use aya::include_bytes_aligned;
use std::{collections::BTreeMap, fs};

static OBJECT: Object = Object {
    source: "block_latency",
    bytes: include_bytes_aligned!(concat!(env!("OUT_DIR"), "/block.bpf.o")),
    programs: &["block_rq_complete"],
    may_rest: &["block_rq_complete"],
    ring: None,
    fallback: "`disk` tells for how long each disk was busy (/proc/diskstats)",
};

const NAMES: Names = Names {
    p50: metric::BLOCK_P50,
    p99: metric::BLOCK_P99,
    count: metric::BLOCK_REQUESTS,
    count_unit: "{operation}",
    time: metric::BLOCK_TIME,
};

/// Of `agent/bpf/block.bpf.c`: the counter of requests that do not know when they were made.
const UNTIMED: usize = 1;

pub(super) struct Block {
    program: Program,
    requests: Histograms,
    counters: Counters,
    /// Names of devices, by their number.
    names: BTreeMap<u64, Option<String>>,
}

impl Block {
    pub(super) fn of(board: Board) -> Self {
        let program = Program::of(&OBJECT, vec![], board);
        Self { program, requests: Histograms::of("requests"), counters: Counters::default(), names: BTreeMap::new() }
    }
}

/// The name of a device, by its number as the program tells it: major, minor.
fn device(number: u64) -> Option<String> {
    let (major, minor) = (number >> 24, number & 0xff_ffff);
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

fn direction(key: u64) -> &'static str {
    match key & 0xff {
        0 => "read",
        1 => "write",
        2 => "flush",
        3 => "discard",
        _ => "other",
    }
}

impl Source for Block {
    fn name(&self) -> &'static str {
        OBJECT.source
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let Self { program, requests, counters, names } = self;
        let attached = program.ready(into.at)?;
        counters.read(attached)?;
        let readings = requests.read(attached, counters.taken())?;
        let node = SubjectRef::node(into.node.as_str());
        NAMES.tell(into, &node, &[], &total(readings.values()));
        names.retain(|number, _| readings.keys().any(|key| key >> 8 == *number));
        for (key, reading) in readings {
            // One without a name is no disk that can be pointed at, or is gone.
            if let Some(name) = names.entry(key >> 8).or_insert_with(|| device(key >> 8)) {
                NAMES.tell(
                    into,
                    &node,
                    &[("system.device", name.as_str()), ("disk.io.direction", direction(*key))],
                    reading,
                );
            }
        }
        counters.left_out = counters.all[UNTIMED];
        counters.tell_lost(OBJECT.source, into);
        self.program.told()
    }

    fn rest(&mut self) {
        self.program.detach();
        self.requests.begin_anew();
        self.counters.begin_anew();
    }
}
