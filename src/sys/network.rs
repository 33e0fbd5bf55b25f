//! Whether this host has a network, and when one comes back: told by the kernel over netlink
//! (rtnetlink(7)), which needs no privileges.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// How long changes are gathered before they are told of: a link, its address and its route
/// come one after the other.
const SETTLING: Duration = Duration::from_secs(1);
/// The most of one datagram of the kernel, in octets; what is longer is not looked at.
const MAX_DATAGRAM: usize = 16 << 10;
/// The multicast groups LINK, IPV4_ROUTE and IPV6_ROUTE of `linux/rtnetlink.h`, as bits.
const GROUPS: u32 = 0x1 | 0x40 | 0x400;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;
const RT_TABLE_LOCAL: u8 = 255;
const RTN_UNICAST: u8 = 1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;
/// Octets of a `struct nlmsghdr`.
const HEADER: usize = 16;

/// Whether the error of a connect says that this host has no way to the address. A router
/// elsewhere may say the same of its own; [`has_route`] tells the two apart.
pub fn is_without_route(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, NetworkDown, NetworkUnreachable};
    matches!(error.kind(), NetworkUnreachable | NetworkDown | AddrNotAvailable)
}

/// Whether this host has a way to the world at large, over IPv4 or IPv6.
pub fn has_route() -> bool {
    !source_addresses().is_empty()
}

/// The addresses that this host has on its way to the world at large, at most one of IPv4 and one of
/// IPv6. Nothing is sent: the kernel looks for a route to an address of the documentation
/// (RFC 5737, RFC 3849).
pub fn source_addresses() -> Vec<IpAddr> {
    let far_v4 = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), 9));
    let far_v6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9));
    let here_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let here_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let source = |(here, far): (SocketAddr, SocketAddr)| {
        let socket = UdpSocket::bind(here).ok()?;
        socket.connect(far).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    [(here_v4, far_v4), (here_v6, far_v6)].into_iter().filter_map(source).collect()
}

/// Whether this host has the address.
pub fn is_own(address: IpAddr) -> bool {
    let result = UdpSocket::bind((address, 0));
    !result.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Tells when this host got a route, or a link came up.
#[derive(Debug)]
pub struct NetworkWatch {
    socket: OwnedFd,
}

impl NetworkWatch {
    /// Begins to listen to the kernel.
    ///
    /// # Errors
    /// Where there is no netlink, as in some containers.
    pub fn new() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self { socket })
    }

    /// Waits until something has come that may bring the network back, and about a second
    /// longer for what follows it.
    ///
    /// # Errors
    /// When the kernel tells nothing any more.
    pub fn wait(&mut self) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.socket, Timeout::Recv, None)?;
        while !self.next_is_good()? {}
        let end = Instant::now() + SETTLING;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left < Duration::from_millis(1) {
                return Ok(());
            }
            sockopt::set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
            self.next_is_good()?;
        }
    }

    /// Takes one datagram, if one comes, and says whether it is good news.
    fn next_is_good(&self) -> io::Result<bool> {
        let mut datagram = [0; MAX_DATAGRAM];
        match rustix::net::recv(&self.socket, &mut datagram, RecvFlags::empty()) {
            Ok((length, _)) => Ok(brings_a_way(&datagram[..length])),
            // More has happened than the socket could hold: then anything may have.
            Err(Errno::NOBUFS) => Ok(true),
            Err(Errno::INTR | Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether one of the messages is a new route to other hosts, or a link that carries.
fn brings_a_way(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while let Some((kind, body)) = next_message(&mut rest) {
        let is_good = match kind {
            RTM_NEWROUTE => is_route_elsewhere(body),
            RTM_NEWLINK => is_running_link(body),
            _ => false,
        };
        if is_good {
            return true;
        }
    }
    false
}

/// Splits the next message off: its kind, and what stands behind its header.
fn next_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let length = u32_at(rest, 0)? as usize;
    let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
    let body = rest.get(HEADER..length)?;
    // Messages begin at multiples of four octets.
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body))
}

/// By a `struct rtmsg`: family, two lengths, TOS, table, protocol, scope, type, flags.
fn is_route_elsewhere(body: &[u8]) -> bool {
    matches!(body, [_, _, _, _, table, _, _, kind, ..]
        if *table != RT_TABLE_LOCAL && *kind == RTN_UNICAST)
}

/// By a `struct ifinfomsg`: family and type in four octets, index, flags, what has changed.
fn is_running_link(body: &[u8]) -> bool {
    u32_at(body, 8).is_some_and(|flags| flags & (IFF_RUNNING | IFF_LOOPBACK) == IFF_RUNNING)
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER + body.len()) as u32;
        let mut message = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
        message.extend_from_slice(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn link(flags: u32) -> Vec<u8> {
        message(RTM_NEWLINK, &[&[0; 8][..], &flags.to_ne_bytes(), &[0; 4]].concat())
    }

    fn route(table: u8, kind: u8) -> Vec<u8> {
        message(RTM_NEWROUTE, &[2, 24, 0, 0, table, 2, 0, kind, 0, 0, 0, 0])
    }

    #[test]
    fn only_routes_to_others_and_links_that_carry_are_news() {
        for (datagram, expected) in [
            (route(254, RTN_UNICAST), true),
            (route(100, RTN_UNICAST), true),
            (route(RT_TABLE_LOCAL, RTN_UNICAST), false),
            (route(254, 7), false),
            (link(IFF_RUNNING), true),
            (link(IFF_RUNNING | IFF_LOOPBACK), false),
            (link(1), false),
            (message(25, &[2, 0, 0, 0, 254, 2, 0, 1]), false),
            ([link(1), message(20, b"odd"), route(254, RTN_UNICAST)].concat(), true),
        ] {
            assert_eq!(brings_a_way(&datagram), expected, "{datagram:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_nonsense_is_no_news() {
        let whole = [link(1), route(254, RTN_UNICAST)].concat();
        for length in 0..whole.len() - 4 {
            assert!(!brings_a_way(&whole[..length]), "{length}");
        }
        for octet in 0..=u8::MAX {
            assert!(!brings_a_way(&[octet; 64]));
        }
    }

    #[test]
    fn the_kernel_lets_anybody_listen() {
        assert!(NetworkWatch::new().is_ok());
    }
}
