//! TCP: connections by state, how full the accept queues are, and how many are sending again, from the kernel's socket
//! diagnostics (`sock_diag`, CONFIG_INET_DIAG). Of the agent's own network namespace. What is sent again and what overflowed
//! is told by `protocols`, from counters that count for connections that are gone as well.

use super::{
    netlink::{Socket, u32_at},
    source::{Missing, Sink, Source},
};
use aether_core::{metric, time::Time};
use rustix::net::netlink::SOCK_DIAG;
use std::{fs, io, path::PathBuf, time::Duration};

const EVERY: Duration = Duration::from_secs(5);
/// Listeners are in a small table of their own. That of all connections has hundreds of thousands of places on a large
/// machine, and is walked whole however few there are: a millisecond or two.
const CONNECTIONS_EVERY_MS: u64 = 30_000;
/// TCP of every family. Its successor, `SOCK_DIAG_BY_FAMILY`, walks the kernel's table of connections once for IPv4 and
/// once for IPv6.
const TCPDIAG_GETSOCK: u16 = 18;
/// The kernel's timer of a socket that sends again.
const TIMER_RETRANSMIT: u8 = 1;

/// The kernel's numbers, and OpenTelemetry's names.
const STATES: [(usize, &str); 12] = [
    (1, "established"),
    (2, "syn_sent"),
    (3, "syn_received"),
    (4, "fin_wait_1"),
    (5, "fin_wait_2"),
    (6, "time_wait"),
    (7, "closed"),
    (8, "close_wait"),
    (9, "last_ack"),
    (LISTEN, "listen"),
    (11, "closing"),
    // A request that the listener has not taken yet.
    (12, "syn_received"),
];
const LISTEN: usize = 10;

pub(super) struct Sockets {
    proc: PathBuf,
    socket: Option<Socket>,
    /// When all connections were last counted.
    counted: Option<Time>,
}

/// What a dump of all sockets comes to.
#[derive(Debug, Default, PartialEq)]
struct Count {
    states: [u64; 13],
    retransmitting: u64,
    /// How full the fullest accept queue is.
    backlog: f64,
}

impl Default for Sockets {
    fn default() -> Self {
        Self { proc: "/proc".into(), socket: None, counted: None }
    }
}

impl Sockets {
    /// Of sockets in these states, as bits by the kernel's numbers.
    fn count(&mut self, states: u32) -> io::Result<Count> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(Socket::open(Some(SOCK_DIAG))?),
        };
        let mut count = Count::default();
        // `struct inet_diag_req`: no family, no extension, no address, states.
        let mut request = [0u8; 60];
        request[52..56].copy_from_slice(&states.to_ne_bytes());
        socket.dump(TCPDIAG_GETSOCK, &request, |message| count.take(message))?;
        Ok(count)
    }
}

impl Count {
    /// `struct inet_diag_msg`: family, state, timer, retransmits; then 48 bytes of addresses, expires, receive queue, write
    /// queue. Of a listener the queues are what waits to be accepted, and how much may.
    fn take(&mut self, message: &[u8]) {
        let (Some([_, state, timer, retransmits]), Some(waits), Some(may)) =
            (message.get(..4), u32_at(message, 56), u32_at(message, 60))
        else {
            return;
        };
        let state = usize::from(*state);
        if let Some(count) = self.states.get_mut(state) {
            *count += 1;
        }
        if *timer == TIMER_RETRANSMIT && *retransmits > 0 {
            self.retransmitting += 1;
        }
        if state == LISTEN && may > 0 {
            self.backlog = self.backlog.max(f64::from(waits) / f64::from(may));
        }
    }
}

impl Source for Sockets {
    fn name(&self) -> &str {
        "sockets"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let at = into.at;
        let due = |counted: Time| at < counted || at.since_ms(counted) >= CONNECTIONS_EVERY_MS;
        let all = self.counted.is_none_or(due);
        let mut state = |name: &str, count: f64| {
            let attributes = [("network.connection.state", name), ("network.transport", "tcp")];
            into.node(metric::NETWORK_CONNECTIONS, "{connection}", &attributes, count);
        };
        match self.count(if all { u32::MAX } else { 1 << LISTEN }) {
            Ok(count) if !all => {
                state("listen", count.states[LISTEN] as f64);
                into.node(metric::TCP_LISTEN_BACKLOG, "1", &[], count.backlog);
                Ok(())
            }
            Ok(count) => {
                self.counted = Some(at);
                let of = |name: &str| {
                    STATES
                        .iter()
                        .filter(|(_, other)| *other == name)
                        .map(|(number, _)| count.states[*number])
                        .sum::<u64>()
                };
                for (number, name) in STATES.iter().filter(|(number, _)| *number < 12) {
                    // Those that are mostly empty are told while they are not.
                    let always = [1, 6, 8, LISTEN].contains(number);
                    if always || of(name) > 0 {
                        state(name, of(name) as f64);
                    }
                }
                into.node(metric::TCP_RETRANSMITTING, "{connection}", &[], count.retransmitting as f64);
                into.node(metric::TCP_LISTEN_BACKLOG, "1", &[], count.backlog);
                Ok(())
            }
            Err(error) => {
                // A new socket for the next try: what came half is of no use.
                (self.socket, self.counted) = (None, None);
                let read = |path: &str| {
                    let missing = |error: io::Error| Missing::new(format!("/proc/{path}: {error}"));
                    fs::read_to_string(self.proc.join(path)).map_err(missing)
                };
                let (snmp, sockstat) = (read("net/snmp")?, read("net/sockstat")?);
                let established = counter(&snmp, "Tcp:", "CurrEstab");
                let time_wait = word_after(&sockstat, "TCP:", "tw");
                for (name, count) in [("established", established), ("time_wait", time_wait)] {
                    if let Some(count) = count {
                        state(name, count);
                    }
                }
                let reason = format!(
                    "the kernel does not answer sock_diag: {error}; it needs CONFIG_INET_DIAG and CONFIG_INET_TCP_DIAG"
                );
                Err(Missing::new(reason).instead(
                    "/proc/net/snmp and /proc/net/sockstat: only how many are established or in time-wait, no accept queues",
                ))
            }
        }
    }
}

/// A counter of a file that has, for each group, a line of names and a line of values.
fn counter(text: &str, group: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|word| word == name)?;
    // Negative ones are of another meaning.
    values.split_whitespace().nth(at)?.parse::<u64>().ok().map(|value| value as f64)
}

/// The number behind a word, in the line that begins so.
fn word_after(text: &str, line: &str, word: &str) -> Option<f64> {
    let line = text.lines().find(|other| other.starts_with(line))?;
    let mut words = line.split_whitespace().skip_while(|other| *other != word);
    words.nth(1)?.parse::<u64>().ok().map(|value| value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::id::NodeId;
    use std::{
        collections::BTreeMap,
        net::{TcpListener, TcpStream},
    };

    fn sample(sockets: &mut Sockets, at: Time) -> (BTreeMap<String, f64>, Result<(), Missing>) {
        let mut readings = Readings::default();
        let node = NodeId::new("node-a");
        let result = sockets.sample(&mut Sink { node: &node, at, readings: &mut readings });
        let named = readings.sorted().into_iter().map(|(key, samples)| {
            let state = key.attributes.get("network.connection.state").map(|state| format!("/{state}"));
            (format!("{}{}", key.metric, state.unwrap_or_default()), samples[0].value)
        });
        (named.collect(), result)
    }

    #[test]
    fn a_queue_that_nobody_accepts_from_is_seen_and_so_are_its_connections() {
        // A machine may be without IPv6.
        let listeners: Vec<_> = ["127.0.0.1:0", "[::1]:0"].iter().filter_map(|at| TcpListener::bind(at).ok()).collect();
        let addresses = listeners.iter().flat_map(|listener| [listener.local_addr().unwrap(); 8]);
        let clients: Vec<_> = addresses.map(|address| TcpStream::connect(address).unwrap()).collect();
        let (mut sockets, begun) = (Sockets::default(), Time(1));
        let (seen, result) = sample(&mut sockets, begun);
        assert_eq!(result, Ok(()), "this kernel has sock_diag");
        assert!(seen[metric::TCP_LISTEN_BACKLOG] > 0.0, "{seen:?}");
        // Both ends of each, of both families.
        let ends = 2.0 * clients.len() as f64;
        assert!(seen[&format!("{}/established", metric::NETWORK_CONNECTIONS)] >= ends, "{seen:?}");
        assert!(seen[&format!("{}/listen", metric::NETWORK_CONNECTIONS)] >= 1.0, "{seen:?}");
        // Soon after, the listeners alone.
        let (established, listen) =
            (format!("{}/established", metric::NETWORK_CONNECTIONS), format!("{}/listen", metric::NETWORK_CONNECTIONS));
        for (after, all) in [(5_000, false), (CONNECTIONS_EVERY_MS, true), (CONNECTIONS_EVERY_MS + 5_000, false)] {
            let (seen, result) = sample(&mut sockets, begun.plus_ms(after));
            assert_eq!(result, Ok(()));
            assert_eq!(seen.contains_key(&established), all, "after {after} ms: {seen:?}");
            assert!(seen[metric::TCP_LISTEN_BACKLOG] > 0.0 && seen[&listen] >= 1.0, "{seen:?}");
        }
    }

    #[test]
    fn a_message_says_state_queue_and_what_is_sent_again() {
        let message = |state: u8, timer: u8, retransmits: u8, waits: u32, may: u32| {
            let mut message = vec![0u8; 72];
            message[..4].copy_from_slice(&[2, state, timer, retransmits]);
            message[56..60].copy_from_slice(&waits.to_ne_bytes());
            message[60..64].copy_from_slice(&may.to_ne_bytes());
            message
        };
        let mut count = Count::default();
        count.take(&message(10, 0, 0, 64, 128));
        count.take(&message(10, 0, 0, 1, 0));
        count.take(&message(1, 1, 3, 9, 9));
        count.take(&message(1, 1, 0, 0, 0));
        count.take(&message(200, 0, 0, 0, 0));
        count.take(&message(1, 1, 3, 9, 9)[..40]);
        assert_eq!((count.states[10], count.states[1], count.retransmitting, count.backlog), (2, 2, 1, 0.5));
    }

    #[test]
    fn without_socket_diagnostics_the_counters_take_over() {
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: MaxConn CurrEstab OutSegs RetransSegs\nTcp: -1 5 100 7\n";
        assert_eq!(counter(snmp, "Tcp:", "RetransSegs"), Some(7.0));
        assert_eq!(counter(snmp, "Tcp:", "MaxConn"), None);
        assert_eq!(counter(snmp, "Udp:", "X"), None);
        let sockstat = "sockets: used 9\nTCP: inuse 4 orphan 0 tw 3 alloc 5 mem 1\n";
        assert_eq!(word_after(sockstat, "TCP:", "tw"), Some(3.0));
        assert_eq!(word_after("TCP: tw", "TCP:", "tw"), None);
    }
}
