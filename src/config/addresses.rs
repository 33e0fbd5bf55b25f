//! Networks, hosts, listening addresses and mailboxes in values.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::mistake::shown;
use super::paths;
use super::settings::{HostPort, ListenAddress, LocalDomains};
use super::values::list;
use crate::mail::address::{Domain, DomainName, LocalPart, Mailbox};

/// The port of SMTP (RFC 5321 §4.5.4.2).
const SMTP_PORT: u16 = 25;
/// The longest name of a socket of systemd, in octets.
const MAX_SOCKET_NAME: usize = 255;
/// The port of the DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// A list of networks, perhaps empty. A plain address is a network of its own.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    list(text, network)
}

fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet = text.parse().map_err(|_| {
        let text = shown(text);
        format!("{text} is no network; give an address, 192.168.1.0/24 or fd00::/8")
    })?;
    if network.trunc() != network {
        let right = network.trunc();
        return Err(format!("{} has bits behind the mask; write {right}", shown(text)));
    }
    Ok(network)
}

/// A domain name.
pub(super) fn domain_name(text: &str) -> Result<DomainName, String> {
    text.parse().map_err(|_| {
        let text = shown(text);
        format!("{text} is no domain name; give letters, digits, hyphens and dots")
    })
}

/// The local domains. With `*` alone, addresses without a domain are completed by `hostname`.
pub(super) fn local_domains(text: &str, hostname: &DomainName) -> Result<LocalDomains, String> {
    let mut domains =
        LocalDomains { names: Vec::new(), own: Vec::new(), all: false, others: Vec::new() };
    for name in list(text, |item| if item == "*" { Ok(None) } else { domain_name(item).map(Some) })?
    {
        match name {
            None => domains.all = true,
            Some(name) if domains.names.contains(&name) => {}
            Some(name) => domains.names.push(name),
        }
    }
    if domains.names.is_empty() {
        if !domains.all {
            return Err("it names no domain; give one or remove the line".to_owned());
        }
        domains.names.push(hostname.clone());
    }
    Ok(domains)
}

/// `host`, `host:port`, an address, or `[v6]:port`, for each of the list; at least one.
pub(super) fn hosts(text: &str) -> Result<Vec<HostPort>, String> {
    let hosts = list(text, host_port)?;
    if hosts.is_empty() {
        return Err(
            "it names no host; give HOST or HOST:PORT, such as smtp.example.com:587".to_owned()
        );
    }
    Ok(hosts)
}

fn host_port(text: &str) -> Result<HostPort, String> {
    let (host, port) = host_and_port(text)?;
    Ok(HostPort { host, port: port.unwrap_or(SMTP_PORT) })
}

/// A host, and its port where one is given: `host`, `host:port`, an address, or `[v6]:port`.
///
/// # Errors
/// A clause that says what is wrong.
pub fn host_and_port(text: &str) -> Result<(Domain, Option<u16>), String> {
    let bad = || {
        let text = shown(text);
        format!(
            "{text} is no host; give HOST, HOST:PORT or [IPV6]:PORT, such as smtp.example.com:587"
        )
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((Domain::Literal(address), None));
    }
    let (host, port) = split_port(text).ok_or_else(bad)?;
    if port == Some(0) {
        return Err(format!("{} has port 0; give 1 to 65535", shown(text)));
    }
    let host = match host.parse::<IpAddr>() {
        Ok(address) => Domain::Literal(address),
        Err(_) => Domain::Name(host.parse().map_err(|_| bad())?),
    };
    // Four numbers that are no address were meant as one; no top-level domain is a number.
    match host.name() {
        Some(name) if is_numeric(name.as_str()) => Err(bad()),
        _ => Ok((host, port)),
    }
}

fn is_numeric(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()))
}

/// The host without brackets, and the port if there is one.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            if rest.is_empty() { (host, None) } else { (host, Some(rest.strip_prefix(':')?)) }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    match port {
        None => Some((host, None)),
        Some(port) => {
            let is_number = port.bytes().all(|b| b.is_ascii_digit());
            port.parse().ok().filter(|_| is_number).map(|port| (host, Some(port)))
        }
    }
}

/// The resolvers: addresses, with a port unless it is 53.
pub(super) fn dns_servers(text: &str) -> Result<Vec<SocketAddr>, String> {
    list(text, |item| {
        if let Ok(address) = item.parse::<IpAddr>() {
            return Ok(SocketAddr::new(address, DNS_PORT));
        }
        item.parse().ok().filter(|server: &SocketAddr| server.port() != 0).ok_or_else(|| {
            let item = shown(item);
            format!(
                "{item} is no address; give one such as 192.168.1.1, 192.168.1.1:53 or [fd00::1]:53"
            )
        })
    })
}

/// `address:port`, `[v6]:port`, `unix:/path` or `systemd:NAME`. Port 0 lets the system choose.
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return paths::socket(path).map(ListenAddress::Unix);
    }
    if let Some(name) = text.strip_prefix("systemd:") {
        return socket_name(name).map(ListenAddress::Systemd);
    }
    if let Ok(address) = text.parse() {
        return Ok(ListenAddress::Tcp(address));
    }
    let text_shown = shown(text);
    Err(match (text.parse::<IpAddr>(), text.strip_prefix("*:")) {
        (Ok(address), _) => {
            let right = SocketAddr::new(address, SMTP_PORT);
            format!("{text_shown} has no port; write {right}")
        }
        (_, Some(port)) => format!(
            "{text_shown} has no address; write {}:{} for every IPv4 address, [::]:{} for every IPv6 one",
            Ipv4Addr::UNSPECIFIED,
            port_or_default(port),
            port_or_default(port),
        ),
        _ => format!(
            "{text_shown} is no listening address; give ADDRESS:PORT, [IPV6]:PORT, unix:/path or \
             systemd:NAME, such as 0.0.0.0:25; a name will not do"
        ),
    })
}

/// A name that a socket unit can give (systemd.socket(5), FileDescriptorName=).
fn socket_name(name: &str) -> Result<String, String> {
    let is_name = name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if name.is_empty() || name.len() > MAX_SOCKET_NAME || !is_name {
        let name = shown(name);
        return Err(format!(
            "{name} is no name of a socket; give systemd:NAME, NAME being the FileDescriptorName= \
             of its unit"
        ));
    }
    Ok(name.to_owned())
}

fn port_or_default(text: &str) -> u16 {
    text.parse().unwrap_or(SMTP_PORT)
}

/// An address, or a name that `origin` completes; nothing when empty.
pub(super) fn catch_all(text: &str, origin: &DomainName) -> Result<Option<Mailbox>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let mailbox = if text.contains('@') {
        text.parse()
    } else {
        text.parse::<LocalPart>().map(|user| Mailbox::new(user, Domain::Name(origin.clone())))
    };
    mailbox.map(Some).map_err(|error| {
        let text = shown(text);
        format!("{text} is no address: {error}; give one such as ann@home.example")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_have_port_25_unless_they_say_otherwise() {
        for (text, printed) in [
            ("smtp.example.com", "smtp.example.com:25"),
            ("smtp.example.com:587", "smtp.example.com:587"),
            ("localhost:1025", "localhost:1025"),
            ("192.0.2.1", "[192.0.2.1]:25"),
            ("192.0.2.1:26", "[192.0.2.1]:26"),
            ("[::1]:26", "[IPv6:::1]:26"),
            ("[::1]", "[IPv6:::1]:25"),
            ("::1", "[IPv6:::1]:25"),
            ("2001:db8::1", "[IPv6:2001:db8::1]:25"),
        ] {
            assert_eq!(host_port(text).map(|host| host.to_string()), Ok(printed.to_owned()));
        }
        for text in [
            "",
            ":25",
            "a:",
            "a:b",
            "a:+25",
            "a:65536",
            "a b",
            "[192.0.2.1]:25",
            "[::1",
            "[::1]25",
            "[x]:25",
            "a:25:26",
            "192.0.2.256",
            "192.0.2:25",
            "smtp://a",
            "a/b",
            "unix:/x",
            "ex_a:1",
        ] {
            assert!(host_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_have_no_bits_behind_the_mask() {
        for (text, printed) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("::1", "::1/128"),
            ("fd00::/8", "fd00::/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).map(|network| network.to_string()), Ok(printed.to_owned()));
        }
        for text in ["10.0.0.1/8", "10.0.0.0/33", "fd00::1/8", "10.0.0", "localhost", "10.0.0.0/"] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in any::<String>(), near in "[\\[\\]:.*0-9a-f/@]{0,20}") {
            for text in [&text, &near] {
                let _ = (networks(text), hosts(text), dns_servers(text), listen_address(text));
                let _ = catch_all(text, &"x.test".parse().unwrap());
                let _ = local_domains(text, &"x.test".parse().unwrap());
            }
        }

        #[test]
        fn what_is_printed_reads_back(address in any::<[u8; 16]>(), port in 1u16.., mask in 0u8..=128) {
            let address = IpAddr::from(address);
            let socket = SocketAddr::new(address, port);
            prop_assert_eq!(listen_address(&socket.to_string()), Ok(ListenAddress::Tcp(socket)));
            prop_assert_eq!(dns_servers(&socket.to_string()), Ok(vec![socket]));
            let host = HostPort { host: Domain::Literal(address), port };
            prop_assert_eq!(hosts(&socket.to_string()), Ok(vec![host]));
            let network = IpNet::new(address, mask).unwrap().trunc();
            prop_assert_eq!(networks(&network.to_string()), Ok(vec![network]));
        }
    }
}
