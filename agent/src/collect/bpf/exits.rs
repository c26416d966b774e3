//! Processes that ended: how many, and of those that failed or were killed, and of workloads' first processes, each with
//! its code.

use super::{
    Counters, Happening, Missing, Places, Program, Record, Roots, Sink, Source,
    cost::Board,
    drain,
    program::Object,
    record::{Exit, Status},
};
use aether_core::metric;
use aya::include_bytes_aligned;

static OBJECT: Object = Object {
    source: "process_exit",
    bytes: include_bytes_aligned!(concat!(env!("OUT_DIR"), "/exits.bpf.o")),
    programs: &["sched_process_exit"],
    may_rest: &[],
    ring: Some("records"),
    fallback: "`process` tells whether each workload still runs (/proc), and not with what it ended",
};

/// Of `agent/bpf/exits.bpf.c`.
const OUTCOMES: [(usize, &str); 3] = [(1, "ok"), (2, "failed"), (3, "killed")];
/// Processes whose end is told with one sample, beside those of workloads. A machine on which scripts fail all the time
/// tells no news.
const EVENTS_MAXIMUM: usize = 16;

pub(super) struct Exits {
    program: Program,
    places: Places,
    roots: Roots,
    counters: Counters,
}

impl Exits {
    pub(super) fn of(places: Places, roots: Roots, board: Board) -> Self {
        let program = Program::of(&OBJECT, vec![("hierarchy", places.hierarchy())], board);
        Self { program, places, roots, counters: Counters::default() }
    }
}

impl Source for Exits {
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
        let exits = records.into_iter().filter_map(|record| match record {
            Record::Exit(exit) => Some(exit),
            Record::Oom(_) => None,
        });
        let exits: Vec<Exit> = exits.collect();
        places.refresh(into.at, exits.iter().map(|exit| exit.cgroup));
        let mut strangers = 0;
        for exit in &exits {
            if roots.workload(exit.head.pid, exit.started_ns).is_none() {
                if exit.status == Status::Code(0) {
                    continue;
                }
                strangers += 1;
                if strangers > EVENTS_MAXIMUM {
                    counters.left_out += 1;
                    continue;
                }
            }
            let mut attributes = vec![("process.parent_pid", exit.parent.to_string())];
            match exit.status {
                Status::Code(code) => attributes.push(("process.exit.code", code.to_string())),
                Status::Signal { signal, core } => {
                    attributes.push(("process.exit.signal", signal.to_string()));
                    attributes.extend(core.then(|| ("process.exit.core_dumped", "true".to_string())));
                }
            }
            let Exit { head, cgroup, started_ns, uid, ref comm, .. } = *exit;
            let happening = Happening { name: metric::PROCESS_EXIT, head, started_ns, cgroup, comm, uid };
            happening.tell(&attributes, places, roots, into);
        }
        for (counter, outcome) in OUTCOMES {
            let count = counters.all[counter] as f64;
            into.node(metric::PROCESS_EXITS, "{process}", &[("outcome", outcome)], count);
        }
        roots.forget();
        counters.tell_lost(OBJECT.source, into);
        Ok(())
    }

    fn rest(&mut self) {
        self.program.detach();
        self.counters.begin_anew();
    }
}
