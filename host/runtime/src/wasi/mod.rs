//! Virtual WASI 0.2: what a language's runtime insists on, without the machine behind it.
//!
//! Everything that a guest can learn here follows from three things: the evaluation's time, the decision's id, and the
//! assets. So none of it is recorded, and a replay gives the same bits. Clocks stand or step by themselves, randomness
//! is a keyed hash, files are the assets, what is printed goes to the log, and there are no sockets at all.
//!
//! `wasmtime-wasi` is deliberately not used: its files show inodes, modification times and the order of the machine's
//! directories, and its clocks and waits are the machine's.
//!
//! What a guest does here is bounded by a count of calls, of handles, and of bytes a call; a component that imports no
//! WASI pays nothing, because the state is made at the first call.

mod bindings;
mod cli;
mod clocks;
mod filesystem;
mod io;
mod output;
mod random;
mod sockets;

use crate::{Assets, host::State, limit::Hit};
use aether_core::time::Time;
use clocks::Monotonic;
use output::Line;
use random::Random;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};

pub(crate) use cli::Exit;

/// Calls of WASI functions in one evaluation.
pub(crate) const CALLS_MAXIMUM: u32 = 100_000;
/// Descriptors, streams and pollables that a guest holds at one time.
pub(crate) const HANDLES_MAXIMUM: usize = 1_024;
/// Bytes that one call reads, writes or draws.
const BYTES_MAXIMUM: usize = 64 << 10;

/// A resource of which none can exist: sockets, terminals, errors of streams.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub enum Never {}

/// The state behind the interfaces, from the first call on.
pub(crate) struct Wasi {
    table: ResourceTable,
    calls: u32,
    at: Time,
    monotonic: Monotonic,
    random: Random,
    assets: Assets,
    stdout: Line,
    stderr: Line,
}

impl Wasi {
    pub(crate) fn new(moment: Moment<'_>, assets: Assets) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAXIMUM);
        Self {
            table,
            calls: 0,
            at: moment.at(),
            monotonic: Monotonic::new(&moment),
            random: Random::new(moment.seed()),
            assets,
            stdout: Line::default(),
            stderr: Line::default(),
        }
    }

    /// From now on the guest lives in `moment`, as if nothing had been before, but for the handles that it holds.
    pub(crate) fn enter(&mut self, moment: Moment<'_>) {
        self.calls = 0;
        (self.stdout, self.stderr) = (Line::default(), Line::default());
        self.at = moment.at();
        self.monotonic = Monotonic::new(&moment);
        self.random = Random::new(moment.seed());
    }

    /// Whether the guest holds handles, which no snapshot of its memory would keep.
    pub(crate) fn holds_handles(&self) -> bool {
        !self.table.is_empty()
    }
}

/// What clocks and randomness follow from.
#[derive(Clone, Copy)]
pub(crate) enum Moment<'a> {
    /// While a component takes its config, which happens once for many evaluations and so must not know of any.
    Activation {
        seed: &'a str,
    },
    Evaluation {
        at: Time,
        seed: &'a str,
    },
}

impl<'a> Moment<'a> {
    fn at(&self) -> Time {
        match self {
            Moment::Activation { .. } => Time(0),
            Moment::Evaluation { at, .. } => *at,
        }
    }

    fn seed(&self) -> &'a str {
        match self {
            Moment::Activation { seed } | Moment::Evaluation { seed, .. } => seed,
        }
    }
}

impl State {
    /// The state behind WASI, for one call, which is counted. Every function comes by here.
    fn wasi(&mut self) -> wasmtime::Result<&mut Wasi> {
        let wasi = self.wasi_or_new();
        wasi.calls += 1;
        if wasi.calls > CALLS_MAXIMUM {
            self.meter.note(Hit::WasiCalls);
            return Err(wasmtime::format_err!("more than {CALLS_MAXIMUM} calls of WASI functions"));
        }
        Ok(self.wasi_or_new())
    }

    /// Hands the guest something new.
    fn hand<T: Send + 'static>(&mut self, made: T) -> wasmtime::Result<Resource<T>> {
        match self.wasi_or_new().table.push(made) {
            Ok(resource) => Ok(resource),
            Err(full) => {
                self.meter.note(Hit::WasiHandles);
                Err(full.into())
            }
        }
    }

    /// Takes back what the guest is done with.
    fn take<T: 'static>(&mut self, resource: Resource<T>) -> wasmtime::Result<()> {
        self.wasi()?.table.delete(resource)?;
        Ok(())
    }
}

/// Gives `linker` every interface of `host/runtime/wit/world.wit`, for any version 0.2.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use bindings::wasi::{cli, clocks, filesystem, io, random, sockets};
    macro_rules! add {
        ($($package:ident :: { $($interface:ident),+ $(,)? }),+ $(,)?) => {
            $($($package::$interface::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;)+)+
        };
    }
    add!(
        io::{error, poll, streams},
        clocks::{monotonic_clock, wall_clock},
        random::{random, insecure, insecure_seed},
        cli::{
            environment, exit, stdin, stdout, stderr, terminal_input, terminal_output, terminal_stdin, terminal_stdout,
            terminal_stderr,
        },
        filesystem::{types, preopens},
        sockets::{instance_network, ip_name_lookup, tcp, tcp_create_socket, udp, udp_create_socket},
    );
    sockets::network::add_to_linker::<_, HasSelf<_>>(linker, &sockets::network::LinkOptions::default(), |state| state)
}

/// The interfaces that [`add_to_linker`] gives, each as `package/interface`.
const INTERFACES: [&str; 27] = [
    "cli/environment",
    "cli/exit",
    "cli/stderr",
    "cli/stdin",
    "cli/stdout",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stderr",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "clocks/monotonic-clock",
    "clocks/wall-clock",
    "filesystem/preopens",
    "filesystem/types",
    "io/error",
    "io/poll",
    "io/streams",
    "random/insecure",
    "random/insecure-seed",
    "random/random",
    "sockets/instance-network",
    "sockets/ip-name-lookup",
    "sockets/network",
    "sockets/tcp",
    "sockets/tcp-create-socket",
    "sockets/udp",
    "sockets/udp-create-socket",
];

/// Whether `import` is one of these interfaces in a stable version 0.2.
pub(crate) fn is_given(import: &str) -> bool {
    let Some((interface, version)) = import.strip_prefix("wasi:").and_then(|rest| rest.split_once('@')) else {
        return false;
    };
    INTERFACES.contains(&interface) && version.strip_prefix("0.2.").is_some_and(|patch| patch.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_stable_patch_of_the_listed_interfaces_is_given() {
        for given in ["wasi:io/poll@0.2.0", "wasi:io/poll@0.2.12", "wasi:sockets/tcp@0.2.6", "wasi:cli/exit@0.2.99"] {
            assert!(is_given(given), "{given}");
        }
        for refused in [
            "wasi:http/types@0.2.0",
            "wasi:clocks/timezone@0.2.12",
            "wasi:io/poll@0.3.0",
            "wasi:io/poll@0.2.0-rc-2023-11-10",
            "wasi:io/poll@0.20",
            "wasi:io/poll",
            "other:io/poll@0.2.0",
        ] {
            assert!(!is_given(refused), "{refused}");
        }
    }
}
