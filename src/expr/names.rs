//! The inputs of expressions by name: which there are, which of them a place offers, and which an expression uses.

use std::fmt;

/// One input of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Name {
    /// `vars`: the variables of the top level, the resource and the connection, merged.
    Vars,
    /// `secrets`: the resource's named secrets.
    Secrets,
    /// `captured`: what steps and `capture` found.
    Captured,
    /// `token.access`.
    TokenAccess,
    /// `token.refresh`.
    TokenRefresh,
    /// `token.id`.
    TokenId,
    /// `token.expires_at`.
    TokenExpiresAt,
    /// `token.claims`.
    TokenClaims,
    /// `token` as bare text, under `place.value` only (ruling F47).
    PlacedToken,
    /// `signature`, under `place.value` only (ruling F47).
    Signature,
    /// `client.name`.
    ClientName,
    /// `client.kind`.
    ClientKind,
    /// `client.groups`.
    ClientGroups,
    /// `client.claims`.
    ClientClaims,
    /// `client.ip`.
    ClientIp,
    /// `claims`: those of a client's JWT, before there is a client.
    Claims,
    /// `request.method`.
    RequestMethod,
    /// `request.host`.
    RequestHost,
    /// `request.path`: with the base path, exactly as sent (ruling B33).
    RequestPath,
    /// `request.raw_path`: the same.
    RequestRawPath,
    /// `request.target`: path and query, exactly as sent.
    RequestTarget,
    /// `request.query`: decoded; a name that occurs twice is a list.
    RequestQuery,
    /// `request.raw_query`: exactly as sent, empty where there is none.
    RequestRawQuery,
    /// `request.headers`; a name that occurs twice is a list.
    RequestHeaders,
    /// `request.body`: "" where there is none (ruling B33).
    RequestBody,
    /// `request.body_sha256`: its digest, as bytes.
    RequestBodySha256,
    /// `base`: the base URL without a trailing slash.
    Base,
    /// `now`: one moment per attempt.
    Now,
    /// `uuid`: version 4, one per attempt.
    Uuid,
    /// `uuid7`: version 7, one per attempt.
    Uuid7,
    /// `status` of an answer.
    Status,
    /// `headers` of an answer.
    Headers,
    /// `body` of an answer.
    Body,
}

/// All of them with their spelling: the root, and what stands behind the dot.
const SPELLED: [(Name, &str, &str); 33] = [
    (Name::Vars, "vars", ""),
    (Name::Secrets, "secrets", ""),
    (Name::Captured, "captured", ""),
    (Name::TokenAccess, "token", "access"),
    (Name::TokenRefresh, "token", "refresh"),
    (Name::TokenId, "token", "id"),
    (Name::TokenExpiresAt, "token", "expires_at"),
    (Name::TokenClaims, "token", "claims"),
    (Name::PlacedToken, "token", ""),
    (Name::Signature, "signature", ""),
    (Name::ClientName, "client", "name"),
    (Name::ClientKind, "client", "kind"),
    (Name::ClientGroups, "client", "groups"),
    (Name::ClientClaims, "client", "claims"),
    (Name::ClientIp, "client", "ip"),
    (Name::Claims, "claims", ""),
    (Name::RequestMethod, "request", "method"),
    (Name::RequestHost, "request", "host"),
    (Name::RequestPath, "request", "path"),
    (Name::RequestRawPath, "request", "raw_path"),
    (Name::RequestTarget, "request", "target"),
    (Name::RequestQuery, "request", "query"),
    (Name::RequestRawQuery, "request", "raw_query"),
    (Name::RequestHeaders, "request", "headers"),
    (Name::RequestBody, "request", "body"),
    (Name::RequestBodySha256, "request", "body_sha256"),
    (Name::Base, "base", ""),
    (Name::Now, "now", ""),
    (Name::Uuid, "uuid", ""),
    (Name::Uuid7, "uuid7", ""),
    (Name::Status, "status", ""),
    (Name::Headers, "headers", ""),
    (Name::Body, "body", ""),
];

/// Every input of the language.
pub(super) const ALL: [Name; SPELLED.len()] = {
    let mut all = [Name::Vars; SPELLED.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = SPELLED[at].0;
        at += 1;
    }
    all
};

impl Name {
    /// The word that it begins with, and the part behind the dot; the part is empty where there is none.
    pub fn spelled(self) -> (&'static str, &'static str) {
        SPELLED.iter().find(|(name, ..)| *name == self).map_or(("", ""), |(_, root, part)| (root, part))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.spelled() {
            (root, "") => f.write_str(root),
            (root, part) => write!(f, "{root}.{part}"),
        }
    }
}

/// A set of inputs: those that a place offers, or those that an expression uses.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Names(u64);

impl Names {
    /// None.
    pub const NONE: Self = Self(0);
    /// All there are.
    pub const ALL: Self = Self::of(&ALL);
    /// Every part of `request`.
    pub const REQUEST: Self = Self::of(&[
        Name::RequestMethod,
        Name::RequestHost,
        Name::RequestPath,
        Name::RequestRawPath,
        Name::RequestTarget,
        Name::RequestQuery,
        Name::RequestRawQuery,
        Name::RequestHeaders,
        Name::RequestBody,
        Name::RequestBodySha256,
    ]);
    /// Every part of `client`.
    pub const CLIENT: Self = Self::of(&[Name::ClientName, Name::ClientKind, Name::ClientGroups, Name::ClientClaims, Name::ClientIp]);
    /// Every part of `token`.
    pub const TOKEN: Self = Self::of(&[Name::TokenAccess, Name::TokenRefresh, Name::TokenId, Name::TokenExpiresAt, Name::TokenClaims]);
    /// What comes with a token, which is as secret as the token.
    pub const GRANTED: Self = Self::TOKEN.with(Self::of(&[Name::Captured]));
    /// An answer: `status`, `headers`, `body`.
    pub const ANSWER: Self = Self::of(&[Name::Status, Name::Headers, Name::Body]);
    /// What the configuration itself says: `vars`, `secrets`, `base`.
    pub const FIXED: Self = Self::of(&[Name::Vars, Name::Secrets, Name::Base]);
    /// What one attempt is given: `now`, `uuid`, `uuid7`.
    pub const ATTEMPT: Self = Self::of(&[Name::Now, Name::Uuid, Name::Uuid7]);
    /// What is filled per attempt, by signing (ruling H5).
    pub const VOLATILE: Self = Self::ATTEMPT.with(Self::GRANTED).with(Self::of(&[Name::PlacedToken, Name::Signature]));

    /// These.
    pub const fn of(names: &[Name]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < names.len() {
            bits |= 1 << names[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Both together.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether this one is among them.
    pub const fn has(self, name: Name) -> bool {
        self.0 & (1 << name as u8) != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether any of those is among these.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether evaluation has to wait for the attempt (ruling H5).
    pub const fn is_volatile(self) -> bool {
        self.meets(Self::VOLATILE)
    }

    /// Whether the request's body must be at hand (ruling B34).
    pub const fn reads_body(self) -> bool {
        self.has(Name::RequestBody) || self.has(Name::RequestBodySha256)
    }

    /// Each of them, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Name> {
        SPELLED.iter().map(|(name, ..)| *name).filter(move |name| self.has(*name))
    }

    /// The one that begins with `root` and has this part, among these.
    pub(super) fn find(self, root: &str, part: &str) -> Option<Name> {
        self.iter().find(|name| name.spelled() == (root, part))
    }

    /// The words that expressions at this place may begin with, each once.
    pub(super) fn roots(self) -> Vec<&'static str> {
        let mut roots: Vec<&str> = self.iter().map(|name| name.spelled().0).collect();
        roots.dedup();
        roots
    }

    /// What may stand behind the dot of `root`; nothing where it is one input, whatever is in it.
    pub(super) fn parts(self, root: &str) -> Vec<&'static str> {
        self.iter().map(Name::spelled).filter(|(r, part)| *r == root && !part.is_empty()).map(|(_, part)| part).collect()
    }
}

impl FromIterator<Name> for Names {
    fn from_iter<I: IntoIterator<Item = Name>>(names: I) -> Self {
        names.into_iter().fold(Self::NONE, |all, name| all.with(Self::of(&[name])))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|name| name.to_string())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_spelled_once() {
        let mut spelled: Vec<_> = SPELLED.iter().map(|(_, root, part)| (root, part)).collect();
        spelled.sort_unstable();
        spelled.dedup();
        assert_eq!(spelled.len(), SPELLED.len());
        assert!(SPELLED.iter().enumerate().all(|(index, (name, ..))| *name as usize == index));
    }

    #[test]
    fn what_an_attempt_is_given_is_volatile_and_the_rest_is_not() {
        for name in [Name::Now, Name::Uuid, Name::Uuid7, Name::Captured, Name::TokenAccess, Name::TokenClaims] {
            assert!(Names::of(&[name]).is_volatile(), "{name}");
        }
        for name in [Name::Vars, Name::Secrets, Name::Base, Name::ClientName, Name::RequestBody] {
            assert!(!Names::of(&[name]).is_volatile(), "{name}");
        }
    }
}
