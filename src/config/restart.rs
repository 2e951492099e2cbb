//! What a running gateway cannot change (ruling C25): its sockets, and what is built once around them. A configuration
//! that changes any of it is refused whole, so that nothing is half applied and nothing ignored.

use super::listen::{self, Server};
use super::plan::Plan;
use crate::audit;
use crate::auth::grant::Tokens;
use crate::net::Identity;
use crate::store;
use crate::tree::{Node, Place, Problems};

/// What holds from start to end.
#[derive(Debug)]
pub struct Fixed {
    listening: listen::Root,
    audit: audit::Config,
    store: store::Config,
    tokens: Tokens,
}

impl Fixed {
    /// What this plan fixes.
    pub fn of(plan: &Plan) -> Self {
        Self { listening: plan.listening.clone(), audit: plan.audit.clone(), store: plan.store.clone(), tokens: plan.tokens.clone() }
    }

    /// The grants, which live on.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Hands what `plan` has read of certificates and keys to the listeners, for the handshakes to come. Returns how many of
    /// them have something new. The plan must have passed [`Fixed::judge`].
    pub fn renew(&self, plan: &Plan) -> usize {
        let pairs = self.listening.server.listen.iter().zip(&plan.listening.server.listen);
        pairs.filter(|(old, new)| old.tls.as_ref().zip(new.tls.as_ref()).is_some_and(|(old, new)| old.renew(new))).count()
    }

    /// Reports everything that `plan` would change and cannot. `tree` is what it was built from.
    pub fn judge(&self, plan: &Plan, tree: &Node, problems: &Problems) {
        let (old, new) = (&self.listening, &plan.listening);
        let mut keys = server(&old.server, &new.server);
        for (same, key) in [
            (old.admin == new.admin, "admin.listen"),
            (old.health == new.health, "health"),
            (old.connect == new.connect, "connect"),
            (old.mock == new.mock, "mock"),
            (old.log == new.log, "telemetry.log"),
            (self.audit == plan.audit, "audit"),
            (self.store.backend == plan.store.backend, "store"),
            (self.store.keys == plan.store.keys, "master_key"),
        ] {
            keys.extend((!same).then_some(key));
        }
        for key in keys {
            let message = format!("`{key}` has changed, which needs a restart");
            problems.error(place(key, tree), message, "restart the gateway, or undo this change: nothing of the rest is applied either");
        }
    }
}

fn server(old: &Server, new: &Server) -> Vec<&'static str> {
    // Certificates and keys move, see `renew`; everything else about a listener is fixed.
    let listeners = |server: &Server| -> Vec<_> {
        server.listen.iter().map(|l| (l.address.clone(), l.tls.as_ref().map(Identity::client_auth))).collect()
    };
    // These belong to each request and follow the configuration.
    let limits =
        |server: &Server| listen::Limits { body: None, min_body_rate: 0, min_body_rate_grace: std::time::Duration::ZERO, ..server.limits };
    let checks = [
        (listeners(old) == listeners(new), "server.listen"),
        (old.workers == new.workers, "server.workers"),
        (old.accept == new.accept, "server.accept"),
        (limits(old) == limits(new), "server.limits"),
        (old.timeouts == new.timeouts, "server.timeouts"),
    ];
    checks.into_iter().filter(|(same, _)| !same).map(|(_, key)| key).collect()
}

/// Where a key stands, or the nearest key above it; the head of the main file where none of it is written.
fn place(key: &str, tree: &Node) -> Place {
    let mut place = Place { line: 1, column: 1, ..Place::default() };
    let mut node = tree;
    for word in key.split('.') {
        let Some(entry) = node.entries().iter().find(|e| &*e.key == word) else { break };
        place = entry.place;
        node = &entry.node;
    }
    place
}
