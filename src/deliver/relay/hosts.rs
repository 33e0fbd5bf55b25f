//! Which hosts a next hop has, and where they are.

use std::net::IpAddr;

use super::Relay;
use crate::config::settings::HostPort;
use crate::deliver::outcome::{Failure, Fault};
use crate::mail::address::{Domain, DomainName};
use crate::mail::status::Status;
use crate::route::mx::{MxError, mail_hosts};
use crate::route::next_hop::NextHop;
use crate::sys::dns::DnsError;

impl Relay {
    pub(super) fn hosts(&self, next_hop: &NextHop) -> Result<Vec<HostPort>, Failure> {
        match next_hop {
            NextHop::Local | NextHop::Command => {
                Err(Failure::new(Status::new(4, 3, 5), "local mail came to the relay"))
            }
            NextHop::Smarthost(smarthost) => Ok(smarthost.hosts.clone()),
            NextHop::Mx(domain @ Domain::Literal(_)) => {
                Ok(vec![HostPort { host: domain.clone(), port: self.mx_port }])
            }
            NextHop::Mx(Domain::Name(domain)) => self.exchangers(domain),
        }
    }

    fn exchangers(&self, domain: &DomainName) -> Result<Vec<HostPort>, Failure> {
        let records = self.resolver.mx(domain);
        let hosts = mail_hosts(domain, records, &self.hostname, random).map_err(|error| {
            let fault = fault_of_look_up(matches!(error, MxError::NoNetwork(_)));
            Failure::new(error.status(), format!("{domain} {error}")).with_fault(fault)
        })?;
        let port = self.mx_port;
        Ok(hosts.into_iter().map(|host| HostPort { host: Domain::Name(host), port }).collect())
    }

    pub(super) fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, DnsError> {
        match host {
            Domain::Literal(address) => Ok(vec![*address]),
            Domain::Name(name) => self.resolver.addresses(name),
        }
    }
}

/// A host without an address.
pub(super) fn no_address(next_hop: &NextHop, host: &HostPort, error: &DnsError) -> Failure {
    let status = match (error, next_hop) {
        (DnsError::Temporary(_) | DnsError::NoNetwork(_), _) => Status::new(4, 4, 3),
        // A mistake in our own configuration, or a name that comes with the network, must
        // not bounce everything. RFC 3463 §3.5: 4.4.4 is for a directory that does not know it.
        (_, NextHop::Smarthost(_) | NextHop::Local | NextHop::Command) => Status::new(4, 4, 4),
        // RFC 5321 §5.1: neither an MX record nor an address.
        (_, NextHop::Mx(domain)) if *domain == host.host => Status::new(5, 1, 2),
        (_, NextHop::Mx(_)) => Status::new(5, 4, 4),
    };
    Failure::new(status, format!("no address of the host {}: {error}", host.host))
        .with_fault(fault_of_look_up(matches!(error, DnsError::NoNetwork(_))))
}

const fn fault_of_look_up(has_no_network: bool) -> Fault {
    if has_no_network { Fault::Network } else { Fault::Destination }
}

/// A random number; zero where the kernel has none, and then equal hosts keep their order.
fn random() -> u64 {
    let mut octets = [0; 8];
    match rustix::rand::getrandom(&mut octets[..], rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_ne_bytes(octets),
        _ => 0,
    }
}
