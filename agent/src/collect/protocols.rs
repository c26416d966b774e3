//! IP, ICMP, TCP and UDP: what was sent and received, what was lost and why, and how TCP made up for it. From
//! `/proc/net/snmp` and `/proc/net/netstat`, which count for connections that are gone as well; what sockets hold, from
//! `/proc/net/sockstat`; and what the kernel could not take from interfaces in time, from `/proc/net/softnet_stat`. All of
//! the agent's own network namespace but the last.

use super::{
    Missing, Sink, Source,
    file::{Kept, counters},
};
use aether_core::metric;

pub(super) struct Protocols {
    snmp: Kept,
    netstat: Kept,
    sockstat: Kept,
    softnet: Kept,
}

impl Default for Protocols {
    fn default() -> Self {
        let kept = |name: &str| Kept::at(format!("/proc/net/{name}"));
        Self { snmp: kept("snmp"), netstat: kept("netstat"), sockstat: kept("sockstat"), softnet: kept("softnet_stat") }
    }
}

const RECEIVE: (&str, &str) = ("network.io.direction", "receive");
const TRANSMIT: (&str, &str) = ("network.io.direction", "transmit");

/// How a counter is told: our name, the unit, and an attribute.
type Told = (&'static str, &'static str, Option<(&'static str, &'static str)>);

fn snmp(group: &str, name: &str) -> Option<Told> {
    Some(match (group, name) {
        ("Ip", "InReceives") => (metric::IP_PACKETS, "{packet}", Some(RECEIVE)),
        ("Ip", "OutRequests") => (metric::IP_PACKETS, "{packet}", Some(TRANSMIT)),
        ("Ip", "InHdrErrors") => (metric::IP_DISCARDED, "{packet}", Some(("reason", "malformed"))),
        ("Ip", "InAddrErrors") => (metric::IP_DISCARDED, "{packet}", Some(("reason", "address"))),
        ("Ip", "InDiscards") => (metric::IP_DISCARDED, "{packet}", Some(("reason", "receive"))),
        ("Ip", "OutDiscards") => (metric::IP_DISCARDED, "{packet}", Some(("reason", "transmit"))),
        ("Ip", "OutNoRoutes") => (metric::IP_DISCARDED, "{packet}", Some(("reason", "no-route"))),
        ("Ip", "ReasmFails") => (metric::IP_DISCARDED, "{packet}", Some(("reason", "reassembly"))),
        ("Ip", "FragFails") => (metric::IP_DISCARDED, "{packet}", Some(("reason", "fragmentation"))),
        ("Icmp", "InMsgs") => (metric::ICMP_MESSAGES, "{message}", Some(RECEIVE)),
        ("Icmp", "OutMsgs") => (metric::ICMP_MESSAGES, "{message}", Some(TRANSMIT)),
        ("Icmp", "InDestUnreachs") => (metric::ICMP_UNREACHABLE, "{message}", Some(RECEIVE)),
        ("Icmp", "OutDestUnreachs") => (metric::ICMP_UNREACHABLE, "{message}", Some(TRANSMIT)),
        ("Tcp", "InSegs") => (metric::TCP_RECEIVED, "{segment}", None),
        ("Tcp", "OutSegs") => (metric::TCP_SENT, "{segment}", None),
        ("Tcp", "RetransSegs") => (metric::TCP_RETRANSMITTED, "{segment}", None),
        ("Tcp", "InErrs") => (metric::TCP_DROPPED, "{segment}", Some(("reason", "malformed"))),
        ("Tcp", "OutRsts") => (metric::TCP_RESETS_SENT, "{segment}", None),
        ("Tcp", "EstabResets") => (metric::TCP_RESETS, "{connection}", None),
        ("Tcp", "AttemptFails") => (metric::TCP_FAILED, "{connection}", None),
        ("Tcp", "PassiveOpens") => (metric::TCP_OPENED, "{connection}", Some(RECEIVE)),
        ("Tcp", "ActiveOpens") => (metric::TCP_OPENED, "{connection}", Some(TRANSMIT)),
        ("Udp", "InDatagrams") => (metric::UDP_DATAGRAMS, "{datagram}", Some(RECEIVE)),
        ("Udp", "OutDatagrams") => (metric::UDP_DATAGRAMS, "{datagram}", Some(TRANSMIT)),
        ("Udp", "NoPorts") => (metric::UDP_LOST, "{datagram}", Some(("reason", "no-port"))),
        ("Udp", "RcvbufErrors") => (metric::UDP_LOST, "{datagram}", Some(("reason", "receive-buffer"))),
        ("Udp", "SndbufErrors") => (metric::UDP_LOST, "{datagram}", Some(("reason", "send-buffer"))),
        ("Udp", "InCsumErrors") => (metric::UDP_LOST, "{datagram}", Some(("reason", "malformed"))),
        ("Udp", "MemErrors") => (metric::UDP_LOST, "{datagram}", Some(("reason", "memory"))),
        _ => return None,
    })
}

fn netstat(group: &str, name: &str) -> Option<Told> {
    if group == "IpExt" {
        return (name == "InCEPkts").then_some((metric::IP_CONGESTION, "{packet}", None));
    }
    if group != "TcpExt" {
        return None;
    }
    let dropped = |reason| (metric::TCP_DROPPED, "{segment}", Some(("reason", reason)));
    let recovery = |event| (metric::TCP_RECOVERY, "{event}", Some(("event", event)));
    let aborted = |reason| (metric::TCP_ABORTED, "{connection}", Some(("reason", reason)));
    Some(match name {
        "ListenOverflows" => (metric::TCP_LISTEN_OVERFLOWS, "{connection}", None),
        "ListenDrops" => (metric::TCP_LISTEN_DROPS, "{connection}", None),
        "SyncookiesSent" => (metric::TCP_SYN_COOKIES, "{connection}", None),
        "RcvPruned" => dropped("pruned"),
        "TCPBacklogDrop" => dropped("backlog"),
        "TCPRcvQDrop" => dropped("receive-queue"),
        "TCPZeroWindowDrop" => dropped("zero-window"),
        "TCPReqQFullDrop" => dropped("request-queue"),
        "TCPOFODrop" => dropped("out-of-order-queue"),
        "TCPTimeouts" => recovery("timeout"),
        "TCPFastRetrans" => recovery("fast-retransmit"),
        "TCPSynRetrans" => recovery("syn-retransmit"),
        "TCPLostRetransmit" => recovery("retransmit-lost"),
        "TCPSpuriousRTOs" => recovery("spurious-timeout"),
        "TCPLossProbes" => recovery("loss-probe"),
        "TCPSACKReorder" => recovery("reordering"),
        "TCPOFOQueue" => (metric::TCP_OUT_OF_ORDER, "{segment}", None),
        "TCPAbortOnMemory" => aborted("memory"),
        "TCPAbortOnTimeout" => aborted("timeout"),
        "TCPAbortOnData" => aborted("data"),
        "TCPAbortOnClose" => aborted("close"),
        "TCPMemoryPressures" => (metric::TCP_MEMORY_PRESSURES, "{event}", None),
        "TCPToZeroWindowAdv" => (metric::TCP_WINDOWS_CLOSED, "{event}", None),
        _ => return None,
    })
}

fn tell(text: &str, how: fn(&str, &str) -> Option<Told>, into: &mut Sink<'_>) {
    for (group, name, value) in counters(text) {
        if let Some((metric, unit, attribute)) = how(group, name) {
            into.node(metric, unit, attribute.as_slice(), value);
        }
    }
}

/// Lines of a group, and of names and numbers by turns.
fn tell_sockets(text: &str, into: &mut Sink<'_>) {
    let page = procfs::page_size() as f64;
    for line in text.lines() {
        let Some((group, rest)) = line.split_once(':') else { continue };
        let mut words = rest.split_ascii_whitespace();
        while let (Some(name), Some(count)) = (words.next(), words.next().and_then(|word| word.parse::<f64>().ok())) {
            let kind = match (group, name) {
                ("sockets", "used") => "all",
                ("TCP", "inuse") => "tcp",
                ("TCP", "orphan") => "tcp-orphan",
                ("TCP", "tw") => "tcp-time-wait",
                ("UDP", "inuse") => "udp",
                ("TCP" | "UDP", "mem") => {
                    let transport = if group == "TCP" { "tcp" } else { "udp" };
                    into.node(metric::SOCKETS_MEMORY, "By", &[("network.transport", transport)], count * page);
                    continue;
                }
                _ => continue,
            };
            into.node(metric::SOCKETS, "{socket}", &[("kind", kind)], count);
        }
    }
}

/// A line for each processor, of hexadecimal numbers: packets, those dropped, and how often there was too little time.
fn tell_softnet(text: &str, into: &mut Sink<'_>) {
    let mut sums = [0u64; 3];
    for line in text.lines() {
        for (sum, word) in sums.iter_mut().zip(line.split_ascii_whitespace()) {
            *sum += u64::from_str_radix(word, 16).unwrap_or_default();
        }
    }
    for (outcome, sum) in ["processed", "dropped", "squeezed"].into_iter().zip(sums) {
        into.node(metric::SOFTNET, "{packet}", &[("outcome", outcome)], sum as f64);
    }
}

impl Source for Protocols {
    fn name(&self) -> &'static str {
        "protocols"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        tell(self.snmp.text()?, snmp, into);
        tell(self.netstat.text()?, netstat, into);
        tell_sockets(self.sockstat.text()?, into);
        tell_softnet(self.softnet.text()?, into);
        Ok(())
    }

    fn rest(&mut self) {
        [&mut self.snmp, &mut self.netstat, &mut self.sockstat, &mut self.softnet].into_iter().for_each(Kept::close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::{id::NodeId, time::Time};
    use std::collections::BTreeMap;

    fn told(with: impl FnOnce(&mut Sink<'_>)) -> BTreeMap<String, f64> {
        let (mut readings, node) = (Readings::default(), NodeId::new("node-a"));
        with(&mut Sink { node: &node, at: Time(1), readings: &mut readings });
        let named = readings.sorted().into_iter().map(|(key, samples)| {
            assert_eq!(samples.len(), 1);
            let attribute = key.attributes.into_values().next().unwrap_or_default();
            (format!("{}/{attribute}", key.metric), samples[0].value)
        });
        named.collect()
    }

    #[test]
    fn this_machine_tells_of_each_protocol() {
        let told = told(|sink| Protocols::default().sample(sink).unwrap());
        for name in [
            "aether.ip.packets/receive",
            "aether.icmp.messages/transmit",
            "aether.tcp.segments.sent/",
            "aether.tcp.segments.retransmitted/",
            "aether.tcp.listen.overflows/",
            "aether.tcp.recovery/timeout",
            "aether.tcp.connections.opened/receive",
            "aether.udp.datagrams.lost/receive-buffer",
            "aether.sockets/all",
            "aether.network.softnet/dropped",
        ] {
            assert!(told.contains_key(name), "{name}: {told:?}");
        }
    }

    #[test]
    fn counters_are_by_group_and_those_of_no_use_are_left_out() {
        let text = "Udp: InDatagrams NoPorts\nUdp: 5 6\nUdpLite: InDatagrams NoPorts\nUdpLite: 7 8\n";
        let of = told(|sink| tell(text, snmp, sink));
        assert_eq!(
            of,
            BTreeMap::from([
                ("aether.udp.datagrams/receive".into(), 5.0),
                ("aether.udp.datagrams.lost/no-port".into(), 6.0),
            ])
        );
        let text = "TcpExt: TCPTimeouts TCPHPHits\nTcpExt: 3 9\nMPTcpExt: TCPTimeouts\nMPTcpExt: 4\n";
        assert_eq!(
            told(|sink| tell(text, netstat, sink)),
            BTreeMap::from([("aether.tcp.recovery/timeout".into(), 3.0)])
        );
    }

    #[test]
    fn packets_are_added_up_over_processors_and_sockets_tell_what_they_hold() {
        let softnet = "0000000a 00000001 00000002 0\n00000010 00000000 0000000f 0\n";
        let of = told(|sink| tell_softnet(softnet, sink));
        assert_eq!(of.into_values().collect::<Vec<_>>(), [1.0, 26.0, 17.0], "dropped, processed, squeezed");
        let sockstat = "sockets: used 9\nTCP: inuse 4 orphan 1 tw 3 alloc 5 mem 2\nUDP: inuse 7 mem\nRAW: inuse 1\n";
        let of = told(|sink| tell_sockets(sockstat, sink));
        assert_eq!(of["aether.sockets/tcp-orphan"], 1.0);
        assert_eq!(of["aether.sockets.memory/tcp"], 2.0 * procfs::page_size() as f64);
        assert_eq!((of["aether.sockets/udp"], of.len()), (7.0, 6));
    }
}
