//! Processes that the kernel killed because memory ran out, of the machine or of their cgroup.

use super::{
    Counters, Happening, Missing, Places, Program, Record, Roots, Sink, Source, cost::Board, drain, program::Object,
    record,
};
use aether_core::metric;
use aya::include_bytes_aligned;

static OBJECT: Object = Object {
    source: "oom_kill",
    bytes: include_bytes_aligned!(concat!(env!("OUT_DIR"), "/oom.bpf.o")),
    programs: &["mark_victim"],
    may_rest: &[],
    ring: Some("records"),
    fallback: "`process` tells that a workload runs no more, and not why; `/proc/vmstat` counts `oom_kill`",
};

/// Of `agent/bpf/oom.bpf.c`.
const KILLS: usize = 1;

pub(super) struct Oom {
    program: Program,
    places: Places,
    roots: Roots,
    counters: Counters,
}

impl Oom {
    pub(super) fn of(places: Places, roots: Roots, board: Board) -> Self {
        let program = Program::of(&OBJECT, vec![("hierarchy", places.hierarchy())], board);
        Self { program, places, roots, counters: Counters::default() }
    }
}

impl Source for Oom {
    fn name(&self) -> &'static str {
        OBJECT.source
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let Self { program, places, roots, counters } = self;
        let attached = program.ready(into.at)?;
        roots.refresh();
        let (records, unreadable) = drain(attached);
        counters.read(attached)?;
        counters.left_out += unreadable;
        let victims = records.into_iter().filter_map(|record| match record {
            Record::Oom(victim) => Some(victim),
            Record::Exit(_) => None,
        });
        let victims: Vec<record::Oom> = victims.collect();
        places.refresh(into.at, victims.iter().map(|victim| victim.cgroup));
        for victim in &victims {
            let record::Oom { head, cgroup, started_ns, total_vm_pages, uid, score_adj, ref comm } = *victim;
            let bytes = total_vm_pages.saturating_mul(procfs::page_size());
            let attributes =
                [("process.oom_score_adj", score_adj.to_string()), ("process.memory.virtual", bytes.to_string())];
            let happening = Happening { name: metric::PROCESS_OOM_KILL, head, started_ns, cgroup, comm, uid };
            happening.tell(&attributes, places, roots, into);
        }
        into.node(metric::OOM_KILLS, "{process}", &[], counters.all[KILLS] as f64);
        roots.forget();
        counters.tell_lost(OBJECT.source, into);
        Ok(())
    }

    fn rest(&mut self) {
        self.program.detach();
        self.counters.begin_anew();
    }
}
