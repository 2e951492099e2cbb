//! Where the gateway never connects to: link-local addresses and the metadata services of clouds. Judged by the address
//! that is dialled, at each dial.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Unreachable};

/// Metadata services that are not link-local: EC2 over IPv6, Alibaba Cloud, Azure's wire server.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// Refuses forbidden addresses.
///
/// # Errors
/// [`Unreachable::Forbidden`].
pub fn judge(address: IpAddr) -> Result<(), Error> {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if link_local {
        return Err(Error::Unreachable(Unreachable::Forbidden("the address is link-local".into())));
    }
    if METADATA.contains(&address) {
        return Err(Error::Unreachable(Unreachable::Forbidden("the address is a cloud's metadata service".into())));
    }
    if address.is_unspecified() || address.is_multicast() {
        return Err(Error::Unreachable(Unreachable::Forbidden("the address is no host's".into())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_link_local_are_never_dialled() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
            "0.0.0.0",
            "::",
            "224.0.0.1",
        ] {
            assert!(judge(address.parse().unwrap()).is_err(), "{address}");
        }
    }

    #[test]
    fn private_and_public_addresses_are() {
        for address in ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "fd00::1", "93.184.216.34", "100.100.100.201"] {
            assert!(judge(address.parse().unwrap()).is_ok(), "{address}");
        }
    }
}
