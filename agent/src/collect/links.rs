//! Network interfaces: whether they have a link and how fast it is, errors, drops, and how often the link came and went.
//!
//! From rtnetlink, in one question; the speed, which only drivers know, from `/sys/class/net`. Interfaces of this machine
//! come before those that were made up (bridges, pairs for containers), of which there may be hundreds.

use super::{
    netlink::{Socket, attributes, text, u32_at, u64_at},
    source::{Missing, Sink, Source},
};
use aether_core::{metric, time::Time};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The kernel tells of all interfaces: where there are more than these, it is asked less often.
const INTERFACES_MANY: usize = 32;
const MANY_EVERY_MS: u64 = 5_000;
/// Asking a driver for its speed may take a while.
const SPEED_EVERY_MS: u64 = 60_000;
/// Interfaces that are told.
const INTERFACES_MAXIMUM: usize = 4;

const RTM_GETLINK: u16 = 18;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFLA_IFNAME: u16 = 3;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_STATS64: u16 = 23;
const IFLA_CARRIER_CHANGES: u16 = 35;
const OPER_UP: u8 = 6;
/// Of an interface whose driver does not tell; its flags do.
const OPER_UNKNOWN: u8 = 0;

/// What goes wrong in one way: places in `struct rtnl_link_stats64`.
const ERRORS: [(usize, &str); 9] = [
    (9, "collision"),
    (10, "length"),
    (11, "overrun"),
    (12, "crc"),
    (13, "frame"),
    // What the interface, or its driver, had no room for.
    (14, "receive-fifo"),
    (15, "missed"),
    (17, "carrier"),
    (18, "transmit-fifo"),
];

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Link {
    name: String,
    /// What made it up: `bridge`, `veth`. Empty: nobody did.
    kind: String,
    up: bool,
    loopback: bool,
    enabled: bool,
    /// Received and sent.
    packets: (u64, u64),
    bytes: (u64, u64),
    errors: (u64, u64),
    dropped: (u64, u64),
    /// As [`ERRORS`] has them.
    kinds: [u64; ERRORS.len()],
    carrier_changes: Option<u32>,
}

pub(super) struct Links {
    sys: PathBuf,
    socket: Option<Socket>,
    /// When the kernel was asked, and how many interfaces it told of.
    asked: Option<(Time, usize)>,
    /// Bits a second, and when they were asked for.
    speeds: BTreeMap<String, (Time, Option<f64>)>,
}

impl Default for Links {
    fn default() -> Self {
        Self { sys: "/sys/class/net".into(), socket: None, asked: None, speeds: BTreeMap::new() }
    }
}

impl Links {
    fn dump(&mut self) -> io::Result<Vec<Link>> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(Socket::open(None)?),
        };
        let mut links = Vec::new();
        // `struct ifinfomsg`, of any family.
        socket.dump(RTM_GETLINK, &[0; 16], |message| links.extend(parse(message)))?;
        Ok(links)
    }

    fn speed(&mut self, name: &str, at: Time) -> Option<f64> {
        if let Some((asked, speed)) = self.speeds.get(name)
            && at >= *asked
            && at.since_ms(*asked) < SPEED_EVERY_MS
        {
            return *speed;
        }
        let speed = speed(&self.sys.join(name));
        self.speeds.insert(name.into(), (at, speed));
        speed
    }
}

fn speed(folder: &Path) -> Option<f64> {
    // Megabits; negative, or an error, where there is no link or no such thing.
    let megabits: i64 = fs::read_to_string(folder.join("speed")).ok()?.trim().parse().ok()?;
    (megabits > 0).then_some(megabits as f64 * 1e6)
}

fn parse(message: &[u8]) -> Option<Link> {
    let flags = u32_at(message, 8)?;
    let mut link = Link { enabled: flags & IFF_UP != 0, loopback: flags & IFF_LOOPBACK != 0, ..Link::default() };
    for (kind, payload) in attributes(message.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(payload).into(),
            IFLA_OPERSTATE => {
                let state = payload.first().copied().unwrap_or_default();
                link.up = state == OPER_UP || (state == OPER_UNKNOWN && link.enabled);
            }
            IFLA_LINKINFO => {
                let made = attributes(payload).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = made.map_or_else(String::new, |(_, payload)| text(payload).into());
            }
            // `struct rtnl_link_stats64`: packets, bytes, errors and drops, each received and sent.
            IFLA_STATS64 => {
                let at = |index: usize| u64_at(payload, index * 8).unwrap_or_default();
                (link.packets, link.bytes) = ((at(0), at(1)), (at(2), at(3)));
                (link.errors, link.dropped) = ((at(4), at(5)), (at(6), at(7)));
                link.kinds = ERRORS.map(|(place, _)| at(place));
            }
            IFLA_CARRIER_CHANGES => link.carrier_changes = u32_at(payload, 0),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// Those that are told: in use, and those of this machine first.
fn chosen(mut links: Vec<Link>) -> Vec<Link> {
    links.retain(|link| link.enabled && !link.loopback);
    let rank = |link: &Link| match link.kind.as_str() {
        "" => 0,
        "bond" | "team" => 1,
        "vlan" | "bridge" => 2,
        _ => 3,
    };
    links.sort_by(|a, b| (rank(a), &a.name).cmp(&(rank(b), &b.name)));
    // One made up stands for the machine only where there is no other, as in a container.
    let made_up = links.first().is_some_and(|first| rank(first) == 3);
    links.retain(|link| made_up || rank(link) < 3);
    links.truncate(INTERFACES_MAXIMUM);
    links
}

/// What rtnetlink would say, as far as `/proc` and `/sys` do.
fn from_files(sys: &Path) -> Result<Vec<Link>, Missing> {
    let devices = procfs::net::dev_status()?;
    let read = |name: &str, file: &str| fs::read_to_string(sys.join(name).join(file)).unwrap_or_default();
    let links = devices.into_values().map(|device| {
        let flags = read(&device.name, "flags");
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or(IFF_UP);
        Link {
            // One that no driver stands behind was made up.
            kind: if sys.join(&device.name).join("device").exists() { String::new() } else { "virtual".into() },
            up: read(&device.name, "operstate").trim() == "up",
            loopback: device.name == "lo",
            enabled: flags & IFF_UP != 0,
            packets: (device.recv_packets, device.sent_packets),
            bytes: (device.recv_bytes, device.sent_bytes),
            errors: (device.recv_errs, device.sent_errs),
            dropped: (device.recv_drop, device.sent_drop),
            kinds: [0; ERRORS.len()],
            carrier_changes: read(&device.name, "carrier_changes").trim().parse().ok(),
            name: device.name,
        }
    });
    Ok(links.collect())
}

impl Source for Links {
    fn name(&self) -> &str {
        "links"
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let at = into.at;
        let lately = |asked: Time| at >= asked && at.since_ms(asked) < MANY_EVERY_MS;
        if self.asked.is_some_and(|(asked, count)| count > INTERFACES_MANY && lately(asked)) {
            return Ok(());
        }
        let (links, lacking) = match self.dump() {
            Ok(links) => (links, None),
            Err(error) => {
                self.socket = None;
                let missing = Missing::new(format!("the kernel does not answer rtnetlink: {error}"));
                (from_files(&self.sys)?, Some(missing.instead("/proc/net/dev and /sys/class/net")))
            }
        };
        self.asked = Some((at, links.len()));
        let links = chosen(links);
        self.speeds.retain(|name, _| links.iter().any(|link| link.name == *name));
        for link in links {
            let speed = self.speed(&link.name, into.at);
            let name = ("network.interface.name", link.name.as_str());
            into.node(metric::LINK_UP, "1", &[name], if link.up { 1.0 } else { 0.0 });
            if let Some(speed) = speed {
                into.node(metric::LINK_SPEED, "bit/s", &[name], speed);
            }
            if let Some(changes) = link.carrier_changes {
                into.node(metric::LINK_CHANGES, "{change}", &[name], f64::from(changes));
            }
            for (metric, unit, (received, sent)) in [
                (metric::LINK_IO, "By", link.bytes),
                (metric::NETWORK_PACKETS, "{packet}", link.packets),
                (metric::NETWORK_ERRORS, "{error}", link.errors),
                (metric::NETWORK_DROPPED, "{packet}", link.dropped),
            ] {
                into.node(metric, unit, &[name, ("network.io.direction", "receive")], received as f64);
                into.node(metric, unit, &[name, ("network.io.direction", "transmit")], sent as f64);
            }
            // Most never happen.
            for ((_, kind), count) in ERRORS.iter().zip(link.kinds).filter(|(_, count)| *count > 0) {
                into.node(metric::LINK_ERRORS, "{error}", &[name, ("kind", kind)], count as f64);
            }
        }
        lacking.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::netlink::put;

    #[test]
    fn rtnetlink_and_the_files_say_the_same_of_this_machine() {
        let mut links = Links::default();
        let mut dumped = links.dump().unwrap();
        let mut read = from_files(&links.sys).unwrap();
        let names = |links: &mut Vec<Link>| {
            links.sort_by(|a, b| a.name.cmp(&b.name));
            links.iter().map(|link| (link.name.clone(), link.loopback, link.enabled)).collect::<Vec<_>>()
        };
        assert_eq!(names(&mut dumped), names(&mut read));
        assert!(dumped.iter().any(|link| link.name == "lo" && link.loopback));
    }

    #[test]
    fn a_link_is_read_from_its_message() {
        let mut message = vec![0u8; 16];
        message[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        put(&mut message, IFLA_IFNAME, b"br0\0");
        put(&mut message, IFLA_OPERSTATE, &[OPER_UP]);
        let mut info = Vec::new();
        put(&mut info, IFLA_INFO_KIND, b"bridge\0");
        put(&mut message, IFLA_LINKINFO, &info);
        let stats: Vec<u8> = (0..24u64).flat_map(u64::to_ne_bytes).collect();
        put(&mut message, IFLA_STATS64, &stats);
        put(&mut message, IFLA_CARRIER_CHANGES, &3u32.to_ne_bytes());
        let link = parse(&message).unwrap();
        let wanted = Link {
            name: "br0".into(),
            kind: "bridge".into(),
            up: true,
            loopback: false,
            enabled: true,
            packets: (0, 1),
            bytes: (2, 3),
            errors: (4, 5),
            dropped: (6, 7),
            kinds: [9, 10, 11, 12, 13, 14, 15, 17, 18],
            carrier_changes: Some(3),
        };
        assert_eq!(link, wanted);
        assert_eq!(parse(&message[..12]), None);
    }

    #[test]
    fn those_of_the_machine_come_first_and_pairs_for_containers_not_at_all() {
        let link =
            |name: &str, kind: &str| Link { name: name.into(), kind: kind.into(), enabled: true, ..Link::default() };
        let names = |links: Vec<Link>| chosen(links).into_iter().map(|link| link.name).collect::<Vec<_>>();
        let mut all: Vec<Link> = (0..50).map(|index| link(&format!("veth{index}"), "veth")).collect();
        all.extend([link("docker0", "bridge"), link("eth1", ""), link("bond0", "bond"), link("eth0", "")]);
        all.push(Link { enabled: false, ..link("eth2", "") });
        assert_eq!(names(all), ["eth0", "eth1", "bond0", "docker0"]);
        // In a container the pair is all there is.
        assert_eq!(names(vec![link("eth0", "veth"), Link { loopback: true, ..link("lo", "") }]), ["eth0"]);
    }

    #[test]
    fn a_speed_that_is_not_known_is_not_told() {
        let sys = tempfile::tempdir().unwrap();
        for (text, wanted) in [("25000\n", Some(25e9)), ("-1\n", None), ("", None)] {
            fs::write(sys.path().join("speed"), text).unwrap();
            assert_eq!(speed(sys.path()), wanted);
        }
    }
}
