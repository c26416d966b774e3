//! An address that moves with its workload, and the TCP connections on it.
//!
//! CRIU takes a connection's state along, in both directions and with every byte that is on its way. What makes a
//! connection survive is that nothing at either end says a word for it while it is between the two:
//!
//! | when | here |
//! |---|---|
//! | dumped | CRIU locks the connections (a table of nftables that drops their packets) and puts their sockets into repair mode, and leaves both so: the source is stopped, not gone |
//! | source stopped | the address is taken off this machine |
//! | source goes on | address back, sockets out of repair mode, lock away, told to the neighbours |
//! | source retired | killed in repair mode, in which closing says nothing; lock away |
//! | before a restore | a **shield** (a table of ours that drops what comes to the address and goes from it), then the address |
//! | copy is registered | shield away, told to the neighbours |
//! | copy discarded | shield, sockets into repair mode, killed, address off, shield away |
//!
//! Each of these may be done again. While a shield is there the address is this agent's doing and no copy is registered, so
//! whoever finds one after a crash knows what to undo.
//!
//! What this cannot do: once a copy was reachable its peers may have heard from it, and then the source's connections are
//! of the past. Undoing brings the source back, and its peers will reset what they do not recognise.

use super::{
    criu::{Missing, on_path},
    hands::Failure,
};
use crate::{process::ProcessRef, workloads::Moving};
use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpRepair};
use procfs::process::FDTarget;
use rustix::process::Signal;
use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tracing::warn;

/// How CRIU's tables are called; the rest is a part of the id of its run.
const LOCK: &str = "CRIU-";
/// `TCP_REPAIR_ON` and `TCP_REPAIR_OFF` of `linux/tcp.h`. Off sends a probe of the window, so that a peer which waits
/// hears of it.
const REPAIR: u32 = 1;
const NO_REPAIR: u32 = 0;

/// The tools for it, all of them there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    ip: PathBuf,
    nft: PathBuf,
    arping: PathBuf,
}

impl Network {
    pub fn find() -> Result<Self, Missing> {
        let missing = |reason: String, advice: &str| Missing { code: "tcp.tools", reason, advice: advice.into() };
        let tool = |name: &str, package: &str| {
            on_path(name).ok_or_else(|| {
                missing(format!("`{name}` is not on the PATH"), &format!("install the package {package}"))
            })
        };
        let found = Self {
            ip: tool("ip", "iproute2")?,
            nft: tool("nft", "nftables")?,
            arping: tool("arping", "iputils-arping")?,
        };
        let tried = run(&found.nft, &["list", "tables"]);
        tried.map_err(|error| {
            missing(
                format!("nftables cannot be used: {error}"),
                "run the agent as root, with CAP_NET_ADMIN, on a kernel with nf_tables",
            )
        })?;
        Ok(found)
    }

    /// Whether the address can be taken off this machine with the workload under `root`, and nothing else with it.
    pub fn examine(&self, moving: &Moving, root: &ProcessRef) -> Result<(), Failure> {
        let refuse = |message: String| Err(Failure::new("tcp.address", message));
        if namespace(root.pid) != namespace(std::process::id()) {
            return refuse("the workload is in another network namespace than the agent".into());
        }
        let there = self.shown(&["addr", "show", "dev", &moving.interface])?;
        let lines: Vec<&str> = there.lines().collect();
        let Some(ours) = lines.iter().find(|line| names(line, &moving.to_string())) else {
            return refuse(format!(
                "{moving}, which is to move with the workload, is not on the interface {} of this machine",
                moving.interface
            ));
        };
        // The kernel takes the secondary addresses of a subnet away with its primary one.
        let other = lines.iter().any(|line| *line != *ours && line.contains(" secondary "));
        if !ours.contains(" secondary ") && moving.prefix < 32 && other {
            return refuse(format!(
                "other addresses of {} would go with {moving}: give it with the prefix /32, or after the others",
                moving.interface
            ));
        }
        Ok(())
    }

    /// Once the source stands still: the address is this machine's no more.
    pub fn take_off(&self, moving: &Moving) -> Result<(), Failure> {
        if !self.is_here(moving)? {
            return Ok(());
        }
        self.ip(&["addr", "del", &moving.to_string(), "dev", &moving.interface])
    }

    /// For a source that is to go on: it can speak again when this returns. One that was not stopped never lost its address.
    pub fn put_back(&self, moving: &Moving, root: &ProcessRef, was_stopped: bool) -> Result<(), Failure> {
        if was_stopped && !self.is_here(moving)? {
            self.ip(&["addr", "add", &moving.to_string(), "dev", &moving.interface])?;
        }
        repair(root, NO_REPAIR);
        self.unlock(moving)?;
        // Of a retirement that was cut short.
        self.unshield(moving)
    }

    /// Removes CRIU's locks of connections of the address.
    pub fn unlock(&self, moving: &Moving) -> Result<(), Failure> {
        for table in self.tables(LOCK)? {
            let listed = self.listed(&table)?;
            // It lists each connection as four parts with dots between, both ways.
            if listed.contains(&format!("{} . ", moving.address)) {
                self.nft(&["delete", "table", "inet", &table])?;
            }
        }
        Ok(())
    }

    /// Removes the lock that a dump without connections left, which names no address: by the id of its run, which is in
    /// its images.
    pub fn unlock_run(&self, images: &Path) -> Result<(), Failure> {
        let inventory = std::fs::read(images.join("inventory.img")).unwrap_or_default();
        for table in self.tables(LOCK)? {
            let run = table.trim_start_matches(LOCK).as_bytes();
            if run.len() >= 16 && inventory.windows(run.len()).any(|part| part == run) {
                self.nft(&["delete", "table", "inet", &table])?;
            }
        }
        Ok(())
    }

    /// Before a restore: the address is here and nobody notices.
    pub fn hold(&self, moving: &Moving) -> Result<(), Failure> {
        if self.is_here(moving)? {
            let message = format!("{}, which moves with the workload, is on this machine already", moving.address);
            return Err(Failure::new("tcp.address", message));
        }
        self.shield(moving)?;
        let added = self.ip(&["addr", "add", &moving.to_string(), "dev", &moving.interface]);
        if added.is_err() {
            self.release(moving)?;
        }
        added
    }

    /// Once a copy is registered: it is reachable.
    pub fn reach(&self, moving: &Moving) -> Result<(), Failure> {
        self.unshield(moving)?;
        self.announce(moving);
        Ok(())
    }

    /// Undoes [`Self::hold`], if it was done and not followed by [`Self::reach`].
    pub fn release(&self, moving: &Moving) -> Result<(), Failure> {
        if !self.is_held(moving)? {
            return Ok(());
        }
        self.take_off(moving)?;
        self.unshield(moving)
    }

    /// Before a workload is killed: its peers will hear nothing of it. [`Self::release`] is to follow.
    pub fn silence(&self, moving: &Moving, root: Option<&ProcessRef>) -> Result<(), Failure> {
        self.shield(moving)?;
        if let Some(root) = root {
            hush(root);
        }
        Ok(())
    }

    /// Whether the address is held for a copy that is not registered.
    pub fn is_held(&self, moving: &Moving) -> Result<bool, Failure> {
        Ok(self.tables(SHIELD)?.contains(&shield(moving)))
    }

    /// Tells the neighbours on the link where the address is now, beside what else is done: it takes a second, because a
    /// neighbour that has just heard of the address takes nothing new for one. Who does not hear it finds out a little later.
    pub fn announce(&self, moving: &Moving) {
        let (arping, interface, address) = (self.arping.clone(), moving.interface.clone(), moving.address.to_string());
        let tell = move || {
            if let Err(error) = run(&arping, &["-U", "-c", "2", "-w", "2", "-I", &interface, &address]) {
                warn!(%error, address, "the neighbours could not be told of an address that moved; they will ask");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("announce".into()).spawn(tell) {
            warn!(%error, "the neighbours could not be told of an address that moved; they will ask");
        }
    }

    fn is_here(&self, moving: &Moving) -> Result<bool, Failure> {
        let shown = self.shown(&["addr", "show"])?;
        Ok(shown.lines().any(|line| names(line, &format!("{}/", moving.address))))
    }

    fn shield(&self, moving: &Moving) -> Result<(), Failure> {
        let (name, address) = (shield(moving), moving.address.to_string());
        // Made in one transaction, and anew if it is there.
        let script = format!(
            "add table inet {name}; delete table inet {name}; table inet {name} {{ \
             chain input {{ type filter hook input priority -10; policy accept; ip daddr {address} drop; }}; \
             chain output {{ type filter hook output priority -10; policy accept; ip saddr {address} drop; }}; }}"
        );
        self.nft(&[&script])
    }

    fn unshield(&self, moving: &Moving) -> Result<(), Failure> {
        if !self.is_held(moving)? {
            return Ok(());
        }
        self.nft(&["delete", "table", "inet", &shield(moving)])
    }

    /// The tables of the family `inet` whose names begin so.
    fn tables(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let listed = run(&self.nft, &["list", "tables"]).map_err(|error| failed("nft", &error))?;
        let names = listed.lines().filter_map(|line| line.strip_prefix("table inet ")).map(str::trim);
        Ok(names.filter(|name| name.starts_with(prefix)).map(String::from).collect())
    }

    fn listed(&self, table: &str) -> Result<String, Failure> {
        run(&self.nft, &["list", "table", "inet", table]).map_err(|error| failed("nft", &error))
    }

    /// One line for each address.
    fn shown(&self, what: &[&str]) -> Result<String, Failure> {
        run(&self.ip, &[&["-4", "-o"], what].concat()).map_err(|error| failed("ip", &error))
    }

    fn ip(&self, arguments: &[&str]) -> Result<(), Failure> {
        run(&self.ip, arguments).map(|_| ()).map_err(|error| failed("ip", &error))
    }

    fn nft(&self, arguments: &[&str]) -> Result<(), Failure> {
        run(&self.nft, arguments).map(|_| ()).map_err(|error| failed("nft", &error))
    }
}

/// How our tables are called; the rest is the address.
const SHIELD: &str = "aether-";

fn shield(moving: &Moving) -> String {
    format!("{SHIELD}{}", moving.address.to_string().replace('.', "-"))
}

/// Whether a line of `ip -o addr` is of an address that begins so.
fn names(line: &str, address: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| *word != "inet").skip(1);
    words.next().is_some_and(|word| if address.ends_with('/') { word.starts_with(address) } else { word == address })
}

fn failed(tool: &str, error: &io::Error) -> Failure {
    Failure::new("tcp.refused", format!("`{tool}` failed: {error}"))
}

fn run(program: &Path, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").trim();
    Err(io::Error::other(said.to_owned()))
}

fn namespace(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

fn tree(root: &ProcessRef) -> Vec<ProcessRef> {
    let mut tree = root.descendants();
    tree.push(*root);
    tree
}

/// Stops what runs of a tree, so that it does nothing of its own when whoever traces it is gone.
pub fn stop(root: &ProcessRef) {
    for process in tree(root) {
        if let Err(error) = process.signal(Signal::STOP) {
            warn!(%error, pid = process.pid, "a process could not be stopped");
        }
    }
}

/// Stops a tree and has its connections say nothing when they are closed, nor stay behind.
pub fn hush(root: &ProcessRef) {
    stop(root);
    repair(root, REPAIR);
}

/// Puts every TCP socket of the tree into repair mode or out of it. In it a connection is silent: it neither sends nor
/// says that it is closed. A listening socket has none, and so what the kernel refuses is not told.
fn repair(root: &ProcessRef, wanted: u32) {
    for process in tree(root) {
        for socket in process.descriptors(|target| matches!(target, FDTarget::Socket(_))) {
            if getsockopt(&socket, TcpRepair).is_ok_and(|is| is != wanted) {
                let _ = setsockopt(&socket, TcpRepair, &wanted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_whole() {
        let line = "5: eth0    inet 10.77.0.5/24 brd 10.77.0.255 scope global secondary eth0\\       valid_lft forever";
        assert!(names(line, "10.77.0.5/24") && names(line, "10.77.0.5/"));
        assert!(!names(line, "10.77.0.5/32") && !names(line, "10.77.0.50/") && !names(line, "10.77.0/"));
        assert!(!names("1: lo    scope host lo", "10.77.0.5/"));
        let moving = Moving { address: [10, 77, 0, 5].into(), prefix: 24, interface: "eth0".into() };
        assert_eq!((shield(&moving).as_str(), moving.to_string().as_str()), ("aether-10-77-0-5", "10.77.0.5/24"));
    }

    #[test]
    fn what_a_tool_complains_of_is_told() {
        let error = run(Path::new("/bin/sh"), &["-c", "echo; echo no such thing >&2; exit 2"]).unwrap_err();
        assert_eq!(error.to_string(), "no such thing");
        assert!(run(Path::new("/nowhere/ip"), &[]).is_err());
    }
}
