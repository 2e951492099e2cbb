//! What `http` of a resource says: which versions, how many connections, and for how long.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::tree::{Fields, Node, Problems, Value};

/// What is spoken with an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// HTTP/1.1.
    One,
    /// HTTP/2, over TLS by ALPN, else by prior knowledge.
    Two,
    /// What the TLS handshake comes to; HTTP/2 if the upstream speaks it.
    Both,
}

impl Versions {
    /// What both versions mean for an upstream with and without TLS.
    fn of(https: bool) -> Self {
        if https { Self::Both } else { Self::One }
    }

    /// The same at another origin: without TLS there is nothing to choose by.
    pub(super) fn at(self, https: bool) -> Self {
        if self == Self::Both { Self::of(https) } else { self }
    }

    /// What the TLS handshake offers (RFC 7301), the one that is liked best first.
    pub fn alpn(self) -> Vec<Vec<u8>> {
        let (one, two) = (b"http/1.1".to_vec(), b"h2".to_vec());
        match self {
            Self::One => vec![one],
            Self::Two => vec![two],
            Self::Both => vec![two, one],
        }
    }
}

/// What `http` of a resource says.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What is spoken with the upstream.
    pub versions: Versions,
    /// Most connections over all cores.
    pub max_connections: usize,
    /// Most idle connections on one core.
    pub max_idle: usize,
    /// Longest time that a connection idles.
    pub idle: Duration,
    /// Longest life of a connection.
    pub max_age: Duration,
}

impl Config {
    /// Reads `http` of a resource; without it the defaults hold. `https` says how the upstream is reached.
    pub fn read(node: Option<&Node>, https: bool, problems: &Problems) -> Option<Self> {
        let default = Self {
            versions: Versions::of(https),
            max_connections: 128,
            max_idle: 64,
            idle: Duration::from_secs(60),
            max_age: Duration::from_secs(600),
        };
        let Some(node) = node else { return Some(default) };
        let fields = Fields::of(node, "a map of HTTP settings", problems)?;
        let versions = fields.node("versions").and_then(|node| versions(node, https, problems)).unwrap_or(default.versions);
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let config = Self {
            versions,
            max_connections: count(fields.count("max_connections", 128, 1)),
            max_idle: count(fields.count("max_idle", 64, 0)),
            idle: fields.duration("idle", default.idle),
            max_age: fields.duration("max_age", default.max_age),
        };
        fields.finish();
        Some(config)
    }
}

/// Reads `versions`. Without TLS nobody can be asked, so HTTP/2 is spoken only where it stands alone (ruling C20).
fn versions(node: &Node, https: bool, problems: &Problems) -> Option<Versions> {
    let words: Vec<&str> = node.items().iter().filter_map(Node::word).collect();
    let known = !words.is_empty() && words.len() == node.items().len() && words.iter().all(|w| ["1.1", "2"].contains(w));
    if !known || matches!(node.value, Value::Map(_)) {
        problems.error(node.place, "`versions` is a list of 1.1 and 2", "versions: [1.1, 2]");
        return None;
    }
    Some(match (words.contains(&"1.1"), words.contains(&"2")) {
        (true, true) => Versions::of(https),
        (false, _) => Versions::Two,
        _ => Versions::One,
    })
}
