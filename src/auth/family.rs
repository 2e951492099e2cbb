//! The grants of a scheme whose acquisition reads the caller: one for each value that is read (ruling G4). There are so many
//! and no more: the one that nobody has used for longest ends, and is begun anew when it is asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::auth::fingerprint::Fingerprint;
use crate::auth::grant::{Grant, Material};
use crate::auth::whose::{Reads, Whose};
use crate::key::sha256;

/// Most living grants of one scheme.
pub const GRANTS_MAX: usize = 10_000;

/// One of them.
#[derive(Debug)]
pub struct Member {
    /// The grant.
    pub grant: Arc<Grant>,
    /// What its acquisition reads.
    pub whose: Arc<Whose>,
}

/// All of them.
#[derive(Debug)]
pub struct Family {
    /// What is read of the caller.
    pub reads: Reads,
    /// What names the scheme.
    material: Material,
    fingerprint: Fingerprint,
    members: Mutex<Members>,
    most: usize,
}

#[derive(Debug, Default)]
struct Members {
    /// By the hash of what is read, and when each was used last.
    known: HashMap<Arc<[u8]>, (Arc<Member>, u64)>,
    /// The hashes by that time, which is a count of uses.
    order: BTreeMap<u64, Arc<[u8]>>,
    uses: u64,
}

impl Family {
    /// The family of a scheme that this material names. Nobody has asked for a token yet.
    pub fn new(reads: Reads, material: Material, fingerprint: Fingerprint) -> Self {
        Self { reads, material, fingerprint, members: Mutex::default(), most: GRANTS_MAX }
    }

    /// What names the grant of these values, and the fingerprint of that.
    pub fn name(&self, whose: &Whose) -> (Material, Arc<str>) {
        let material = Material::of([self.material.bytes(), whose.material().bytes()]);
        let identity = self.fingerprint.of([material.bytes()]);
        (material, identity)
    }

    /// The grant of these values; `begin` makes it where there is none.
    pub fn member(&self, whose: Whose, begin: impl FnOnce(Material, Arc<str>) -> Arc<Grant>) -> Arc<Member> {
        let key: Arc<[u8]> = sha256(whose.material().bytes()).into();
        let mut members = self.lock();
        members.uses += 1;
        let now = members.uses;
        if let Some((member, used)) = members.known.get_mut(&*key) {
            let (member, before) = (member.clone(), std::mem::replace(used, now));
            members.order.remove(&before);
            members.order.insert(now, key);
            return member;
        }
        if members.known.len() >= self.most
            && let Some((_, idle)) = members.order.pop_first()
        {
            // Whoever waits for its token still gets it: the grant lives as long as anybody has it in hand, and under the
            // same name it would be found again.
            members.known.remove(&*idle);
        }
        let (material, identity) = self.name(&whose);
        let member = Arc::new(Member { grant: begin(material, identity), whose: Arc::new(whose) });
        members.known.insert(key.clone(), (member.clone(), now));
        members.order.insert(now, key);
        member
    }

    /// All living ones.
    pub fn all(&self) -> Vec<Arc<Member>> {
        self.lock().known.values().map(|(member, _)| member.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
