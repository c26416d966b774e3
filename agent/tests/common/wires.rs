//! Network namespaces on a bridge, for agents on several machines with addresses of their own.

use super::{FabricServer, Host, Service, TcpListenerStream};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// An address that moves; it begins at the first.
pub const MOVES: &str = "10.77.0.5";

pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Three namespaces on a bridge of this machine; gone with the test.
pub struct Wires {
    pub name: String,
}

impl Wires {
    pub fn new() -> Self {
        // Names of interfaces are short.
        let wires = Self { name: format!("ae{}", std::process::id()) };
        let name = &wires.name;
        sh(&format!("ip link add {name}br type bridge && ip link set {name}br up"));
        for (node, address) in [("a", "10.77.0.1/24"), ("b", "10.77.0.2/24"), ("c", "10.77.0.9/24")] {
            sh(&format!(
                "ip netns add {name}{node} && ip link add {name}{node} type veth peer name eth0 netns {name}{node} && \
                 ip link set {name}{node} master {name}br up && ip -n {name}{node} link set lo up && \
                 ip -n {name}{node} link set eth0 up && ip -n {name}{node} addr add {address} dev eth0"
            ));
        }
        sh(&format!("ip -n {name}a addr add {MOVES}/24 dev eth0"));
        wires
    }

    pub fn namespace(&self, node: &str) -> PathBuf {
        Path::new("/run/netns").join(format!("{}{node}", self.name))
    }

    /// Whether a node has the address that moves.
    pub fn has(&self, node: &str) -> bool {
        sh(&format!("ip -n {}{node} -4 -o addr show", self.name)).contains(MOVES)
    }

    /// Tables that a node was left with.
    pub fn tables(&self, node: &str) -> String {
        sh(&format!("ip netns exec {}{node} nft list tables", self.name))
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        let name = &self.name;
        for node in ["a", "b", "c"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{name}{node}")]).status();
            // A connection that nobody closed well keeps its namespace for a while, and this end of its wire.
            let wire = Command::new("ip").args(["link", "del", &format!("{name}{node}")]).output();
            drop(wire);
        }
        let _ = Command::new("ip").args(["link", "del", &format!("{name}br")]).status();
    }
}

/// A program in a network namespace, or here.
pub fn command(program: &str, namespace: Option<&Path>) -> Command {
    let Some(namespace) = namespace else { return Command::new(program) };
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.display())).arg(program);
    command
}

/// What `work` gives when it is done in a network namespace.
pub fn within<T: Send + 'static>(namespace: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(namespace).unwrap();
    let inside = std::thread::spawn(move || {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        use std::os::fd::AsFd;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    });
    inside.join().unwrap()
}

impl Host {
    /// Listens in another network namespace too, at the same address.
    pub async fn also_in(&self, namespace: &Path) {
        let at = self.address.trim_start_matches("http://").to_string();
        let listener = within(namespace, move || {
            let listener = std::net::TcpListener::bind(at).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let service = Service { key: self.key.clone(), world: self.world.clone(), tasks: self.tasks.clone() };
        let service = FabricServer::new(service).max_decoding_message_size(aether_proto::FRAME_BYTES_MAXIMUM);
        let server = tonic::transport::Server::builder().add_service(service);
        self.tasks.spawn(async move {
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
    }
}
