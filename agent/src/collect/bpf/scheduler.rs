//! How long tasks wait for a processor once they could run, and how long threads that blocked are off it.
//!
//! Waits are those that the kernel itself adds up in `/proc/<pid>/schedstat`, of every thread; times off the processor
//! are of each eighth thread, by its id, from leaving to running again.

use super::{
    Attached, Counters, Histograms, Missing, Names, Places, Program, Renewal, Sink, Source, cost::Board,
    program::Object, tell_by_cgroup,
};
use aether_core::metric;
use aya::include_bytes_aligned;

static OBJECT: Object = Object {
    source: "scheduler",
    bytes: include_bytes_aligned!(concat!(env!("OUT_DIR"), "/scheduler.bpf.o")),
    programs: &["sched_switch"],
    may_rest: &["sched_switch"],
    ring: None,
    fallback: "`pressure` tells in which share of the time some task waited for a processor, and `process` what workloads \
               want of it (/proc/<pid>/schedstat)",
};

const WAITS: Names = Names {
    p50: metric::RUN_QUEUE_P50,
    p99: metric::RUN_QUEUE_P99,
    count: metric::RUN_QUEUE_WAITS,
    count_unit: "{wait}",
    time: metric::RUN_QUEUE_TIME,
};
const ABSENCES: Names = Names {
    p50: metric::OFF_CPU_P50,
    p99: metric::OFF_CPU_P99,
    count: metric::OFF_CPU_COUNT,
    count_unit: "{absence}",
    time: metric::OFF_CPU_TIME,
};

pub(super) struct Scheduler {
    program: Program,
    places: Places,
    waits: Histograms,
    absences: Histograms,
    counters: Counters,
    renewal: Renewal,
}

impl Scheduler {
    pub(super) fn of(places: Places, board: Board) -> Self {
        let program = Program::of(&OBJECT, vec![("hierarchy", places.hierarchy())], board);
        let (waits, absences) = (Histograms::of("waits"), Histograms::of("absences"));
        Self { program, places, waits, absences, counters: Counters::default(), renewal: Renewal::default() }
    }

    fn begin_anew(&mut self) {
        self.program.detach();
        self.waits.begin_anew();
        self.absences.begin_anew();
        self.counters.begin_anew();
    }
}

impl Source for Scheduler {
    fn name(&self) -> &'static str {
        OBJECT.source
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let Self { program, places, waits, absences, counters, renewal } = self;
        let attached: &Attached = program.ready(into.at)?;
        counters.read(attached)?;
        let readings = waits.read(attached, counters.taken())?;
        places.refresh(into.at, readings.keys().copied());
        tell_by_cgroup(&WAITS, readings, places, into);
        let gone = readings.keys().filter(|number| places.is_gone(**number)).count();
        let of = readings.len();
        tell_by_cgroup(&ABSENCES, absences.read(attached, counters.taken())?, places, into);
        counters.tell_lost(OBJECT.source, into);
        if renewal.is_due(into.at, waits, of, gone) {
            self.begin_anew();
        }
        self.program.told()
    }

    fn rest(&mut self) {
        self.begin_anew();
    }
}
