//! Blocks of addresses (RFC 4632, RFC 4291 section 2.3).

use std::net::IpAddr;

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Reads `10.0.0.0/8`, or an address alone.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base.parse().ok()?, Some(bits.parse().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let longest = match base {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let bits = bits.unwrap_or(longest);
        (bits <= longest).then_some(Self { base, bits })
    }

    /// Whether the address lies in it. IPv4 in IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                shifted(u32::from(base).into(), 32, self.bits) == shifted(u32::from(address).into(), 32, self.bits)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => shifted(base.into(), 128, self.bits) == shifted(address.into(), 128, self.bits),
            _ => false,
        }
    }
}

fn shifted(address: u128, length: u32, bits: u8) -> u128 {
    address.checked_shr(length - u32::from(bits)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_their_addresses() {
        for (block, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
            ("::1", "::1", true),
        ] {
            assert_eq!(Cidr::parse(block).unwrap().contains(address.parse().unwrap()), inside, "{block} {address}");
        }
    }
}
