//! `mtls`: the gateway's own certificate in TLS handshakes, with the resource's upstream and with the issuers of the
//! schemes beside it (ruling C22). It sets nothing in a request, so it goes with any other scheme.

use std::sync::Arc;

use crate::auth::read::fields;
use crate::auth::{Owned, Reading, Scheme, Signing};
use crate::call::Call;
use crate::net::{Certificate, Origin};
use crate::tree::{Folders, Node, Problems};

/// The scheme's name.
const NAME: &str = "mtls";

/// Schemes that call issuers, or whatever else hands out tokens: by how their names begin.
const CALLERS: [&str; 5] = ["oauth2_", "auth0", "google_", "flow", "session"];

/// What stands under `auth` shows this certificate; `Some(None)` where it shows none, `None` after an error was reported.
/// It is read before the schemes, as it concerns the connections of all of them. `origin` is the upstream's.
pub fn certificate(auth: &Node, origin: &Origin, folders: &Folders, problems: &Problems) -> Option<Option<Certificate>> {
    let mut all = auth.items().iter().filter_map(|member| member.get(NAME));
    let Some(node) = all.next() else { return Some(None) };
    if let Some(second) = all.next() {
        problems.error(second.place, "two members of this list are a client certificate", "one handshake has room for one of them");
        return None;
    }
    let calls = |member: &Node| member.entries().iter().any(|e| CALLERS.iter().any(|caller| e.key.starts_with(caller)));
    if !origin.is_https() && !auth.items().iter().any(calls) {
        let (why, hint) =
            ("a client certificate is shown over TLS only, and `base_url` is plain http", "use https in base_url, or remove `mtls`");
        if !origin.is_loopback() {
            problems.error(node.place, why, hint);
            return None;
        }
        // An environment for trying things out may well lead to a plain port of this machine.
        problems.warn(node.place, why, hint);
    }
    let fields = fields(node, "a map with `cert` and `key`", problems)?;
    let (cert, key) = (fields.need("cert"), fields.need("key"));
    fields.finish();
    Certificate::read(cert?, key?, folders, problems).map(Some)
}

/// Reads `{ cert, key }`.
pub(super) fn read(_: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    // What is wrong with it was said when it was read for the connections.
    let certificate = reading.context.certificate?;
    Some(Box::new(Mtls { identity: reading.fingerprint.of([NAME.as_bytes(), certificate.fingerprint()]) }))
}

#[derive(Debug)]
struct Mtls {
    identity: Arc<str>,
}

impl Scheme for Mtls {
    fn owns(&self) -> Owned {
        Owned::default()
    }

    fn identity(&self, _: &Call) -> Option<Arc<str>> {
        Some(self.identity.clone())
    }

    // The key never leaves, and without TLS nothing is shown at all.
    fn secret(&self) -> bool {
        false
    }

    fn fresh(&self) -> bool {
        false
    }

    fn sign<'a>(&'a self, _: &'a mut Call) -> Signing<'a> {
        Signing::Done(Ok(()))
    }
}
