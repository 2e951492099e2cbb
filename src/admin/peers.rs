//! How many connections each address has at a listener that may be open to all: one address does not take every place.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most connections of one address at a time; a proxy in front is one.
pub const OF_PEER_MAX: usize = 32;

/// Those that are there now. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection that is there until this is dropped.
#[derive(Debug)]
pub struct Guest {
    peers: Peers,
    ip: IpAddr,
}

impl Peers {
    /// Counts a connection; `None` where its address has as many as it may.
    pub fn enter(&self, ip: IpAddr) -> Option<Guest> {
        let ip = network(ip);
        let mut peers = self.lock();
        let count = peers.entry(ip).or_default();
        if *count >= OF_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(Guest { peers: self.clone(), ip })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut peers = self.peers.lock();
        if let Some(count) = peers.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.ip);
            }
        }
    }
}

/// What one owner has: of IPv6 the first 64 bits (RFC 6177).
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_others_have_theirs() {
        let peers = Peers::default();
        let one = |text: &str| peers.enter(text.parse().unwrap());
        let mut there: Vec<Guest> = (0..OF_PEER_MAX).map(|n| one(&format!("2001:db8::{n:x}")).unwrap()).collect();
        assert!(one("2001:db8::ffff").is_none());
        assert!(one("2001:db8:0:1::1").is_some() && one("192.0.2.1").is_some() && one("::ffff:192.0.2.2").is_some());
        there.pop();
        assert!(one("2001:db8::ffff").is_some());
        there.clear();
        assert!(peers.lock().is_empty());
    }
}
