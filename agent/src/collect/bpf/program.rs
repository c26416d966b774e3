//! An object of `agent/bpf`, loaded into the kernel and attached; or why that cannot be.
//!
//! Only BTF tracepoints are used. They are the cheapest to pass, they are on kernels without kprobes, and they need no
//! tracefs.

use super::{
    Missing,
    cost::{Board, Ran},
};
use aether_core::time::Time;
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, ProgramError, tp_btf::BtfTracePointLinkId},
};
use procfs::process::Process;
use std::{collections::BTreeMap, error::Error, fs, path::Path};

/// What the kernel tells of its own types; every access of a program is relocated by it.
const BTF: &str = "/sys/kernel/btf/vmlinux";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// Bits of a capability set.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
/// Of a refusal by the verifier, so that a reason stays one that a person reads.
const VERDICT_BYTES: usize = 200;

/// The map with the number of the spell (`agent/bpf/aether.h`).
const SPELL: &str = "spell";

/// What every object's counters begin with: what found no room in a map.
pub(super) const LOST: usize = 0;
/// And what they end with: slots of histograms that were taken.
pub(super) const TAKEN: usize = 7;
/// The counters of each object.
pub(super) const COUNTERS: usize = 8;

/// One object, as it was built.
pub(super) struct Object {
    /// The source that it is of.
    pub(super) source: &'static str,
    pub(super) bytes: &'static [u8],
    /// Its programs, named as the tracepoints that they are attached to.
    pub(super) programs: &'static [&'static str],
    /// Those of them that may be off for some intervals: what they see is told as percentiles, and each look counts for
    /// itself.
    pub(super) may_rest: &'static [&'static str],
    /// The ring that it writes records to, if any.
    pub(super) ring: Option<&'static str>,
    /// What tells something of it where this cannot run.
    pub(super) fallback: &'static str,
}

/// One that is loaded and attached. Dropped, nothing of it is left in the kernel.
pub(super) struct Attached {
    ebpf: Ebpf,
    links: BTreeMap<&'static str, BtfTracePointLinkId>,
    /// How often those that may rest were put on.
    spell: u32,
    pub(super) ring: Option<RingBuf<MapData>>,
}

/// An object and how it stands: not loaded yet, attached, or refused for good.
pub(super) struct Program {
    object: &'static Object,
    globals: Vec<(&'static str, u32)>,
    board: Board,
    attached: Option<Attached>,
    refused: Option<String>,
}

impl Program {
    pub(super) fn of(object: &'static Object, globals: Vec<(&'static str, u32)>, board: Board) -> Self {
        Self { object, globals, board, attached: None, refused: None }
    }

    /// It, attached; loads it where that was not done yet, and has what may rest do so until the next sample where that is
    /// due. What was refused once is not tried again: nothing of what a kernel or a privilege lacks comes while the agent
    /// runs.
    pub(super) fn ready(&mut self, at: Time) -> Result<&mut Attached, Missing> {
        let Object { source, fallback, .. } = *self.object;
        let missing = |reason: &str| Missing::new(reason).instead(fallback);
        if let Some(reason) = self.board.switched_off(source, at) {
            self.attached = None;
            return Err(missing(&reason));
        }
        if let Some(reason) = &self.refused {
            return Err(missing(reason));
        }
        if self.attached.is_none() {
            match load(self.object, &self.globals) {
                Ok(attached) => self.attached = Some(attached),
                Err(reason) => return Err(missing(self.refused.insert(reason))),
            }
        }
        let Some(attached) = &mut self.attached else { return Err(missing("it is not attached")) };
        // The kernel is asked only when somebody wants to know.
        if self.board.is_asking() {
            self.board.tell(source, attached.ran(), !self.object.may_rest.is_empty());
        }
        attached.rest(self.object, self.board.rests()).map_err(|reason| missing(&reason))?;
        Ok(attached)
    }

    /// What is said of a source that tells all but looks now and then only.
    pub(super) fn told(&self) -> Result<(), Missing> {
        if self.object.may_rest.is_empty() || !self.board.spares() {
            return Ok(());
        }
        let why = "always on, eBPF programs would take more of the time that processors are busy than \
                   `collect.bpf_budget_permille` allows";
        Err(Missing::new(why)
            .instead("it looks now and then, `aether.agent.bpf.duty` tells how much; its counts are of that"))
    }

    /// Takes it out of the kernel; the next sample loads it again.
    pub(super) fn detach(&mut self) {
        self.attached = None;
    }
}

impl Attached {
    pub(super) fn array<const N: usize>(&self, name: &str) -> Result<PerCpuArray<&MapData, [u64; N]>, Missing> {
        let map = self.ebpf.map(name).ok_or_else(|| Missing::new(format!("the object has no map `{name}`")))?;
        PerCpuArray::try_from(map).map_err(|error| Missing::new(tell(&error)))
    }

    /// The object's counters, over all processors.
    pub(super) fn counters(&self) -> Result<[u64; COUNTERS], Missing> {
        let map = self.array::<COUNTERS>("counters")?;
        let mut counters = [0; COUNTERS];
        let each = map.get(&0, 0).map_err(|error| Missing::new(tell(&error)))?;
        for of_one in each.iter() {
            for (counter, count) in counters.iter_mut().zip(of_one) {
                *counter += count;
            }
        }
        Ok(counters)
    }

    /// Takes those that may rest off what they are attached to, or puts them on again.
    fn rest(&mut self, object: &Object, rest: bool) -> Result<(), String> {
        if !rest && object.may_rest.iter().any(|name| !self.links.contains_key(name)) {
            self.begin_spell()?;
        }
        for name in object.may_rest {
            let program = program(&mut self.ebpf, name)?;
            if rest && let Some(link) = self.links.remove(name) {
                program.detach(link).map_err(|error| format!("`{name}` cannot be taken off: {}", tell(&error)))?;
            } else if !rest && !self.links.contains_key(name) {
                self.links.insert(*name, attach(program, name)?);
            }
        }
        Ok(())
    }

    /// What programs noted before they rested is not taken for the beginning of something that ended after.
    fn begin_spell(&mut self) -> Result<(), String> {
        self.spell = self.spell.wrapping_add(1);
        // An object whose programs keep nothing has none.
        let Some(map) = self.ebpf.map_mut(SPELL) else { return Ok(()) };
        let mut spell = Array::<_, u32>::try_from(map).map_err(|error| tell(&error))?;
        spell.set(0, self.spell, 0).map_err(|error| tell(&error))
    }

    /// How long its programs ran while the kernel measured that, and how often.
    fn ran(&self) -> Ran {
        let each = self.ebpf.programs().filter_map(|(_, program)| program.info().ok());
        each.fold(Ran::default(), |ran, info| Ran {
            time: ran.time + info.run_time(),
            runs: ran.runs + info.run_count(),
        })
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut BtfTracePoint, String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no program `{name}`"))?;
    program.try_into().map_err(|error: ProgramError| tell(&error))
}

fn attach(program: &mut BtfTracePoint, name: &str) -> Result<BtfTracePointLinkId, String> {
    program.attach().map_err(|error| format!("`{name}` cannot be attached: {}", tell(&error)))
}

fn load(object: &Object, globals: &[(&'static str, u32)]) -> Result<Attached, String> {
    permitted(object)?;
    let btf = Btf::from_sys_fs().map_err(|error| format!("{BTF} cannot be read: {}", tell(&error)))?;
    let mut loader = EbpfLoader::new();
    for (name, value) in globals {
        loader.override_global(name, value, true);
    }
    let mut ebpf = loader
        .btf(Some(&btf))
        .load(object.bytes)
        .map_err(|error| format!("the kernel does not take the maps of its eBPF object: {}", tell(&error)))?;
    let mut links = BTreeMap::new();
    for name in object.programs {
        let program = program(&mut ebpf, name)?;
        program.load(name, &btf).map_err(|error| format!("the kernel does not take `{name}`: {}", verdict(&error)))?;
        links.insert(*name, attach(program, name)?);
    }
    let ring = match object.ring {
        None => None,
        Some(name) => {
            let map = ebpf.take_map(name).ok_or_else(|| format!("the object has no ring `{name}`"))?;
            Some(RingBuf::try_from(map).map_err(|error| format!("its ring cannot be mapped: {}", tell(&error)))?)
        }
    };
    Ok(Attached { ebpf, links, spell: 0, ring })
}

/// What is lacking, by name, before the kernel says no more than EPERM.
fn permitted(object: &Object) -> Result<(), String> {
    if object.bytes.is_empty() {
        return Err(
            "this agent was built with AETHER_BPF=off, and so without eBPF programs; build it with `clang` and \
                    `libbpf-dev` installed"
                .into(),
        );
    }
    if !Path::new(BTF).exists() {
        return Err(format!(
            "the kernel tells nothing of its types: {BTF} is missing, which needs CONFIG_DEBUG_INFO_BTF"
        ));
    }
    let held = Process::myself().and_then(|me| me.status()).map(|status| status.capeff);
    lacking(held.map_err(|error| format!("the agent's capabilities cannot be read: {error}"))?)?;
    match fs::read_to_string(LOCKDOWN) {
        Ok(text) if text.contains("[confidentiality]") => {
            Err(format!("the kernel is locked down for confidentiality ({LOCKDOWN}), which forbids reading its memory"))
        }
        _ => Ok(()),
    }
}

fn lacking(held: u64) -> Result<(), String> {
    let has = |capability: u32| held >> capability & 1 == 1;
    let wanted = [("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON)];
    let lacks: Vec<&str> = wanted.iter().filter(|(_, bit)| !has(*bit)).map(|(name, _)| *name).collect();
    if lacks.is_empty() || has(CAP_SYS_ADMIN) {
        return Ok(());
    }
    Err(format!("the agent lacks {}: run it as root, or give it these capabilities", lacks.join(" and ")))
}

/// An error with its causes, on one line.
fn tell(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Why a program was refused: of the verifier's log, which is long, what it complains of.
fn verdict(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return tell(error) };
    let log = verifier_log.to_string();
    let complaint = log.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("processed "));
    let complaint: String = complaint.unwrap_or("the verifier says nothing").chars().take(VERDICT_BYTES).collect();
    format!("{io_error} ({complaint})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named() {
        let all = u64::MAX;
        assert_eq!(lacking(all), Ok(()));
        assert_eq!(lacking(1 << CAP_SYS_ADMIN), Ok(()), "before Linux 5.8 this one was all of them");
        assert_eq!(lacking(1 << CAP_BPF | 1 << CAP_PERFMON), Ok(()));
        let lacks = lacking(1 << CAP_BPF).unwrap_err();
        assert!(lacks.contains("CAP_PERFMON") && !lacks.contains("CAP_BPF"), "{lacks}");
        assert!(lacking(0).unwrap_err().contains("CAP_BPF and CAP_PERFMON"));
    }

    #[test]
    fn an_agent_that_was_built_without_programs_says_so() {
        let object = Object { source: "x", bytes: &[], programs: &[], may_rest: &[], ring: None, fallback: "nothing" };
        assert!(permitted(&object).unwrap_err().contains("AETHER_BPF=off"));
    }
}
