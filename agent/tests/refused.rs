//! Real processes that hold on to what CRIU cannot move, refused before they are stopped, in words; and those that
//! look alike and do move.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod common;

use aether_agent::process::poll;
use aether_core::order::OutcomeStatus;
use aether_proto::v1::WorkloadState::{Running, Stopped};
use common::{Agent, Host, migration};
use std::{
    io::Write,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Ended with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let root = aether_agent::process::ProcessRef::find(self.0.id());
        if let Some(root) = root {
            let _ = aether_agent::process::end_tree(&root, Duration::from_secs(5));
        }
        let _ = self.0.wait();
    }
}

/// A workload, its process, and the code and words with which it is refused.
type Case = (&'static str, Started, Option<(&'static str, &'static str)>);

/// In a session of its own, with streams on files, running `script`.
fn shell(script: &str) -> Command {
    let mut command = Command::new("setsid");
    command.args(["bash", "-c", script]).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn start(mut command: Command) -> Started {
    Started(command.spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_move_is_refused_in_words_and_goes_on() {
    let Some(criu) = common::criu("what_cannot_move_is_refused_in_words_and_goes_on") else { return };
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();

    // It has both ends on its standard streams, and this test one of them: its copy would wait for what nobody sends.
    let (reading, writing) = std::io::pipe().unwrap();
    let mut piped = shell("while read -r line; do :; done");
    piped.stdin(reading).stdout(writing.try_clone().unwrap());
    let connected = shell(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}; while :; do sleep 1; done"));
    let started: Vec<Case> = vec![
        ("piped", start(piped), Some(("workload.pipe", "its copy would hang"))),
        ("connected", start(connected), Some(("workload.tcp", "TCP connection"))),
        // A pipe between its own processes, and children: these move.
        ("own-pipe", start(shell("while :; do sleep 0.1; done | while read -r line; do :; done")), None),
    ];
    let _peer = listener.accept().unwrap();
    // `script` makes a terminal; what is moved is the process on it.
    let mut typed = Command::new("script");
    typed.args(["-q", "-c", "exec sleep 600", "/dev/null"]).stdin(Stdio::piped());
    typed.stdout(Stdio::null()).stderr(Stdio::null());
    let typed = start(typed);
    let on_terminal = poll(Duration::from_secs(10), || {
        let script = aether_agent::process::ProcessRef::find(typed.0.id())?;
        let sleep =
            |process: &aether_agent::process::ProcessRef| process.stat().is_some_and(|stat| stat.comm == "sleep");
        script.descendants().into_iter().find(sleep).map(|process| process.pid)
    });
    let on_terminal = on_terminal.expect("a process on a terminal");

    let mut config = String::new();
    let ids = started.iter().map(|(name, process, _)| (*name, process.0.id()));
    for (name, pid) in ids.chain([("typed", on_terminal)]) {
        // `setsid` forks only where it leads a group; here it becomes the shell.
        config.push_str(&format!("[[workloads]]\nid = \"{name}\"\nadopt_pid = {pid}\n"));
    }
    let path = folder.path().join("agent.toml");
    std::fs::write(&path, config).unwrap();
    let arguments = ["--criu", criu.to_str().unwrap(), "--config", path.to_str().unwrap()];
    let agent = Agent::new(folder.path(), "node-a", &host.address, &arguments);
    host.connected("node-a").await;

    let cases = started.iter().map(|(name, _, refused)| (*name, *refused));
    let cases: Vec<_> = cases.chain([("typed", Some(("workload.terminal", "holds the terminal")))]).collect();
    for (name, refused) in cases {
        host.workload("node-a", name, Running).await;
        let plan = migration(name, 1, "node-a", "node-b");
        let outcome = host.carry_out("node-a", &plan, 0, &[]).await;
        match refused {
            Some((code, words)) => {
                assert_eq!((outcome.status, outcome.code.as_str()), (OutcomeStatus::Failed, code), "{outcome:?}");
                assert!(outcome.message.contains(words), "{outcome:?}");
                assert!(outcome.message.contains("The source is running"), "{outcome:?}");
                host.workload("node-a", name, Running).await;
            }
            None => {
                assert_eq!(outcome.status, OutcomeStatus::Succeeded, "{name}: {outcome:?}");
                host.workload("node-a", name, Stopped).await;
            }
        }
    }
    // The one with the pipe still reads it.
    writeln!(&writing, "still there").unwrap();
    drop((agent, started));
}
