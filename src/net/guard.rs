//! Where the gateway connects: never to link-local addresses and the metadata services of clouds, and to what a template
//! or an answer has named only if it is public. Judged by the address that is dialled, at each dial, so that a name which
//! changes its mind is caught.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Cidr;
use crate::error::{Error, Unreachable};

/// How the host of an upstream came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// An operator wrote it out: internal APIs and services of a cluster are meant.
    #[default]
    Written,
    /// A template, a capture or a connection made it.
    Made {
        /// Whether it may be private or loopback all the same (`allow_private`).
        private: bool,
    },
    /// The service by which the machine itself gives identities: there alone a link-local address is what is meant.
    Machine,
}

/// Metadata services that are not link-local: Alibaba Cloud, Azure's wire server, Oracle Cloud, and over IPv6 Google's.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// What is not the public internet (RFC 6890 and its registries). Loopback is asked for apart.
const SPECIAL: [&str; 25] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fec0::/10",
    "::1",
    "2002::/16",
    "64:ff9b::/96",
];

/// The addresses of `found` that may be dialled. One forbidden address among several is passed over; if there is no other,
/// its reason is the answer.
///
/// # Errors
/// [`Unreachable::Forbidden`].
pub fn allowed(found: impl IntoIterator<Item = SocketAddr>, reach: Reach) -> Result<Vec<SocketAddr>, Error> {
    let (mut allowed, mut refused) = (Vec::new(), None);
    for address in found {
        match judge(address.ip(), reach) {
            Ok(()) => allowed.push(address),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if allowed.is_empty() => Err(error),
        _ => Ok(allowed),
    }
}

/// Refuses forbidden addresses.
///
/// # Errors
/// [`Unreachable::Forbidden`].
pub fn judge(address: IpAddr, reach: Reach) -> Result<(), Error> {
    let address = address.to_canonical();
    if reach == Reach::Machine {
        return nobody(address);
    }
    never(address)?;
    if let Some(inner) = embedded(address) {
        never(inner)?;
    }
    match reach {
        Reach::Made { private: false } if is_special(address) => forbidden("the address is not public, and allow_private is not set"),
        _ => Ok(()),
    }
}

fn forbidden<T>(why: &str) -> Result<T, Error> {
    Err(Error::Unreachable(Unreachable::Forbidden(why.into())))
}

fn never(address: IpAddr) -> Result<(), Error> {
    let (link_local, amazon) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), false),
        // fd00:ec2::/32 is Amazon's: metadata, time, credentials of pods.
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[..2] == [0xfd00, 0x0ec2]),
    };
    if link_local {
        return forbidden("the address is link-local");
    }
    if amazon || METADATA.contains(&address) {
        return forbidden("the address is a cloud's metadata service");
    }
    nobody(address)
}

/// Refuses what is no host's address.
fn nobody(address: IpAddr) -> Result<(), Error> {
    if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return forbidden("the address is no host's");
    }
    Ok(())
}

/// The IPv4 address that a translator makes of an IPv6 one: NAT64 (RFC 6052), 6to4 (RFC 3056), and the old `::a.b.c.d`.
fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let bytes = v6.octets();
    let at = match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => 12,
        [0x2002, ..] => 2,
        [0, 0, 0, 0, 0, 0, a, b] if (a, b) != (0, 0) && (a, b) != (0, 1) => 12,
        _ => return None,
    };
    Some(IpAddr::V4(Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])))
}

fn is_special(address: IpAddr) -> bool {
    address.is_loopback() || SPECIAL.iter().any(|block| Cidr::parse(block).is_none_or(|block| block.contains(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: Reach = Reach::Made { private: false };

    #[test]
    fn a_machines_own_service_may_be_link_local_and_is_still_somebodys_address() {
        let judged = |address: &str| judge(address.parse().unwrap(), Reach::Machine);
        for address in ["169.254.169.254", "127.0.0.1", "10.0.0.1", "fd20:ce::254"] {
            assert!(judged(address).is_ok(), "{address}");
        }
        for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::"] {
            assert!(judged(address).is_err(), "{address}");
        }
    }

    #[test]
    fn metadata_and_link_local_are_never_dialled() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "169.254.170.2",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            for reach in [Reach::Written, MADE, Reach::Made { private: true }] {
                assert!(judge(address.parse().unwrap(), reach).is_err(), "{address}");
            }
        }
    }

    #[test]
    fn what_an_operator_wrote_may_be_private_and_what_was_made_may_not() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "fd00::1",
            "fc00::1",
            "fec0::1",
            "198.18.0.1",
            "192.0.2.1",
            "240.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:0a00:0001::1",
            "::10.0.0.1",
            "2001:db8::1",
            "0.1.2.3",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(judge(address, Reach::Written).is_ok(), "{address}");
            assert!(judge(address, Reach::Made { private: true }).is_ok(), "{address}");
            assert!(judge(address, MADE).is_err(), "{address}");
        }
        for address in ["93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1", "2a00:1450::1"] {
            assert!(judge(address.parse().unwrap(), MADE).is_ok(), "{address}");
        }
    }

    #[test]
    fn a_name_is_judged_by_what_it_resolves_to_each_time() {
        let addresses = |list: &[&str]| list.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 443)).collect::<Vec<_>>();
        // First it is public, and at the next dial it is this machine: DNS rebinding.
        assert!(allowed(addresses(&["93.184.216.34"]), MADE).is_ok());
        assert!(allowed(addresses(&["127.0.0.1"]), MADE).is_err());
        assert!(allowed(addresses(&["169.254.169.254"]), Reach::Written).is_err());
        // A private address among public ones is never dialled.
        assert_eq!(allowed(addresses(&["10.0.0.1", "93.184.216.34", "::1"]), MADE).unwrap(), addresses(&["93.184.216.34"]));
        assert_eq!(allowed(addresses(&["10.0.0.1", "169.254.169.254"]), Reach::Written).unwrap(), addresses(&["10.0.0.1"]));
    }

    #[test]
    fn every_special_block_is_one() {
        for block in SPECIAL {
            assert!(Cidr::parse(block).is_some(), "{block}");
        }
    }
}
