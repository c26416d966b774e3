//! Waking another node: Wake-on-LAN's magic packet, six bytes of ones and then the sleeper's address sixteen times (AMD,
//! "Magic Packet Technology", publication 20213), as a UDP broadcast on the sleeper's own network. No answer comes;
//! whether the node woke is for the host to see.

use crate::act::{check::Task, hands::Failure, run::Run, verbs::Done};
use aether_core::{catalogue::argument, value::Value};
use std::{
    fmt, io,
    net::{Ipv4Addr, UdpSocket},
    str::FromStr,
    time::Duration,
};

/// Packets are lost, and a card that has just gone down may miss one.
const PACKETS: u32 = 5;
const GAP: Duration = Duration::from_millis(100);
const SYNCHRONISATION: [u8; 6] = [0xff; 6];
const REPEATS: usize = 16;
const PACKET_BYTES: usize = 6 + 6 * REPEATS;
const LOOPBACK: Network = Network { base: Ipv4Addr::new(127, 0, 0, 0), prefix: 8 };

/// An IPv4 network, such as `192.0.2.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: Ipv4Addr,
    prefix: u32,
}

impl Network {
    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - self.prefix).unwrap_or(0)
    }

    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() | !self.mask())
    }

    /// Whether there is a broadcast address beside that of the machine itself.
    pub fn has_others(self) -> bool {
        (1..=30).contains(&self.prefix)
    }

    fn contains(self, other: Network) -> bool {
        self.prefix <= other.prefix && other.base.to_bits() & self.mask() == self.base.to_bits()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (base, prefix) = text.split_once('/').ok_or(())?;
        let network = Self { base: base.parse().map_err(drop)?, prefix: prefix.parse().map_err(drop)? };
        let whole = network.has_others() && network.base.to_bits() & !network.mask() == 0;
        whole.then_some(network).ok_or(())
    }
}

/// The networks that this machine is on itself, by the interface. Loopback is one that each machine is on.
pub fn networks() -> Vec<(String, Network)> {
    let routes = procfs::net::route().unwrap_or_default();
    let direct = routes.into_iter().filter(|route| route.gateway.is_unspecified() && !route.mask.is_unspecified());
    let own = direct
        .map(|route| (route.iface, Network { base: route.destination, prefix: route.mask.to_bits().count_ones() }));
    own.chain([("lo".to_string(), LOOPBACK)]).collect()
}

/// A network card's address, if it is one of a single card.
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part =
            parts.next().filter(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let single = parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6];
    single.then_some(bytes)
}

fn packet(mac: [u8; 6]) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    let (ones, addresses) = packet.split_at_mut(SYNCHRONISATION.len());
    ones.copy_from_slice(&SYNCHRONISATION);
    addresses.chunks_exact_mut(mac.len()).for_each(|address| address.copy_from_slice(&mac));
    packet
}

/// Whom to wake and where, once that is a network of this machine.
pub fn ready(task: &Task) -> Result<([u8; 6], Network), Failure> {
    let text = |name: &str| task.arguments.get(name).and_then(Value::as_text).unwrap_or_default();
    let wanted =
        Failure::new("order.arguments", "the plan does not say which network card to wake, and on which network");
    let (Some(card), Ok(network)) = (mac(text(argument::MAC)), text(argument::NETWORK).parse::<Network>()) else {
        return Err(wanted);
    };
    let own = networks();
    if own.iter().any(|(_, own)| own.contains(network)) {
        return Ok((card, network));
    }
    let on: Vec<String> = own.iter().map(|(_, own)| own.to_string()).collect();
    let message = format!("this machine is not on {network} but on {}, so its packets would not arrive", on.join(", "));
    Err(Failure::new("wake.out-of-reach", message))
}

pub fn send(run: &Run, port: u16) -> Done {
    let (card, network) = match ready(run.task()) {
        Ok(found) => found,
        Err(failure) => return Done::failed(failure.code, format!("{}; nothing was sent", failure.message)),
    };
    let to = network.broadcast();
    let sent = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.set_broadcast(true)?;
        Ok(socket)
    });
    let socket = match sent {
        Ok(socket) => socket,
        Err(error) => return Done::failed("wake.unsent", format!("there is no socket to send from: {error}")),
    };
    let packet = packet(card);
    let mut sent = 0;
    let mut last: Option<io::Error> = None;
    for _ in 0..PACKETS {
        match socket.send_to(&packet, (to, port)) {
            Ok(_) => sent += 1,
            Err(error) => last = Some(error),
        }
        if run.wait(async { tokio::time::sleep(GAP).await }).is_err() {
            break;
        }
    }
    let failed = last.map_or_else(String::new, |error| format!("; others were not: {error}"));
    if sent == 0 {
        return Done::failed("wake.unsent", format!("no packet could be sent to {to}:{port}{failed}"));
    }
    Done::ok(format!(
        "{sent} magic packets were sent to {to}:{port}{failed}; whether the node wakes is seen by the host"
    ))
    .evidence("packets", Value::Integer(sent))
    .evidence("to", Value::Text(format!("{to}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_ones_and_the_address_sixteen_times() {
        let packet = packet(mac("02:00:5e:10:0A:ff").unwrap());
        assert_eq!(packet.len(), 102);
        assert_eq!(packet[..6], [0xff; 6]);
        assert_eq!(packet[6..].chunks(6).filter(|chunk| **chunk == [0x02, 0x00, 0x5e, 0x10, 0x0a, 0xff]).count(), 16);
    }

    #[test]
    fn what_is_no_address_of_one_card_is_none() {
        for text in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:01:02", "02:00:5e:10:00:1", "02:00:5e:10:00:0g", "+2:00:5e:10:00:01"]
        {
            assert_eq!(mac(text), None, "{text}");
        }
        for text in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
            assert_eq!(mac(text), None, "{text}: nobody's, or many's");
        }
    }

    #[test]
    fn a_network_is_told_with_its_prefix_and_has_a_broadcast_address() {
        let network = |text: &str| text.parse::<Network>();
        assert_eq!(network("192.0.2.0/24").unwrap().broadcast(), Ipv4Addr::new(192, 0, 2, 255));
        assert_eq!(network("198.51.100.16/28").unwrap().broadcast(), Ipv4Addr::new(198, 51, 100, 31));
        assert_eq!(network("192.0.2.0/24").unwrap().to_string(), "192.0.2.0/24");
        for text in ["", "192.0.2.0", "192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/31", "0.0.0.0/0", "example/24"] {
            assert_eq!(network(text), Err(()), "{text}");
        }
        let within = |outer: &str, inner: &str| network(outer).unwrap().contains(network(inner).unwrap());
        assert!(within("192.0.2.0/24", "192.0.2.0/24") && within("192.0.2.0/24", "192.0.2.128/25"));
        assert!(!within("192.0.2.128/25", "192.0.2.0/24") && !within("192.0.2.0/24", "198.51.100.0/24"));
        assert!(networks().contains(&("lo".to_string(), LOOPBACK)));
    }
}
