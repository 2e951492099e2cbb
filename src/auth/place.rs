//! Puts a value that is ready into the query, the cookies or the path of a call (rulings B38, D6 and H16). Values of
//! the same name that are still there go.

use http::HeaderMap;
use http::HeaderValue;
use http::header::COOKIE;

use crate::auth::field::Field;
use crate::auth::form;
use crate::error::Error;
use crate::path::Target;
use crate::secret::Secret;

/// Replaces the parameter `name`; `encoded` is the name as the wire wants it, `value` too.
pub fn query(target: &mut Target, name: &str, encoded: &str, value: &Secret) {
    let ours = |piece: &&str| form::is_named(piece.as_bytes(), name);
    if let Some(query) = target.query().filter(|q| q.split('&').any(|p| ours(&p))) {
        let others: Vec<&str> = query.split('&').filter(|p| !ours(p)).collect();
        *target = Target::new(target.path(), (!others.is_empty()).then(|| others.join("&")).as_deref());
    }
    target.append(encoded, value.expose());
}

/// Replaces the cookie `name` by `pair`, in one `Cookie` field with all others.
///
/// # Errors
/// [`Error::Internal`] where the fields so far are not legal together, which no legal field causes.
pub fn cookie(headers: &mut HeaderMap, name: &str, pair: &Field) -> Result<(), Error> {
    if !headers.contains_key(COOKIE) {
        headers.insert(COOKIE, pair.value());
        return Ok(());
    }
    let mut line: Vec<u8> = Vec::new();
    for piece in headers.get_all(COOKIE).iter().flat_map(|v| v.as_bytes().split(|b| *b == b';')) {
        let piece = piece.trim_ascii();
        let end = memchr::memchr(b'=', piece).unwrap_or(piece.len());
        if !piece.is_empty() && piece[..end].trim_ascii_end() != name.as_bytes() {
            line.extend_from_slice(piece);
            line.extend_from_slice(b"; ");
        }
    }
    line.extend_from_slice(pair.as_bytes());
    let mut value = HeaderValue::from_maybe_shared(bytes::Bytes::from(line))
        .map_err(|_| Error::Internal("cookies cannot be joined into one field".into()))?;
    value.set_sensitive(true);
    headers.insert(COOKIE, value);
    Ok(())
}

/// A secret in the path, encoded as a segment, and where it goes.
#[derive(Debug)]
pub struct Segment {
    value: Secret,
    spot: Spot,
}

#[derive(Debug)]
enum Spot {
    /// In place of this text, which `base_url` holds. `lead` is what `base_url` has before its first placeholder.
    Base { placeholder: String, lead: String },
    /// Behind the base path: in place of one of these, where the client wrote one, else in front of its path.
    Rest { base: String, placeholders: Vec<String> },
}

impl Segment {
    /// Finds out where it goes: to the placeholder `{name}` of the base path, else behind the base path. Only one of
    /// both is ever looked at: were a client's `{name}` read beside the operator's, the client could choose where the
    /// secret goes.
    ///
    /// # Errors
    /// What is wrong with the base path.
    pub fn new(base: &str, name: Option<&str>, value: Secret) -> Result<Self, String> {
        let placeholders = name.map(spellings).unwrap_or_default();
        let mut written = placeholders.iter().flat_map(|p| base.match_indices(p.as_str()));
        let spot = match (written.next(), written.next()) {
            (Some((at, placeholder)), None) => {
                let lead = base[..at].split(['{', '%']).next().unwrap_or_default();
                Spot::Base { placeholder: placeholder.to_owned(), lead: lead.to_owned() }
            }
            (Some((_, placeholder)), Some(_)) => return Err(format!("`base_url` holds `{placeholder}` twice")),
            _ => Spot::Rest { base: base.strip_suffix('/').unwrap_or(base).to_owned(), placeholders },
        };
        Ok(Self { value, spot })
    }

    /// What it claims of the path: the placeholder of the base path, or nothing for the place behind it.
    pub fn claim(&self) -> &str {
        match &self.spot {
            Spot::Base { placeholder, .. } => placeholder,
            Spot::Rest { .. } => "",
        }
    }

    /// Puts it into the path; the query is never looked at.
    ///
    /// # Errors
    /// [`Error::Internal`] where the target does not begin with the base path.
    pub fn put(&self, target: &mut Target) -> Result<(), Error> {
        let (from, until, slash) = self.range(target.path()).ok_or_else(|| Error::Internal("the target lost its base path".into()))?;
        let path = target.path();
        let path = [&path[..from], slash, self.value.expose(), &path[until..]].concat();
        *target = Target::new(&path, target.query());
        Ok(())
    }

    /// The bytes of the path that it replaces, and what goes in front of it.
    fn range(&self, path: &str) -> Option<(usize, usize, &'static str)> {
        match &self.spot {
            // The base path stands in front, so the first placeholder is the operator's.
            Spot::Base { placeholder, lead } => {
                let at = path.find(placeholder.as_str()).filter(|_| path.starts_with(lead.as_str()))?;
                Some((at, at + placeholder.len(), ""))
            }
            Spot::Rest { base, placeholders } => {
                let rest = path.strip_prefix(base.as_str()).filter(|r| r.is_empty() || r.starts_with('/'))?;
                let first = placeholders.iter().filter_map(|p| Some((rest.find(p.as_str())?, p.len()))).min();
                Some(first.map_or((base.len(), base.len(), "/"), |(at, length)| (base.len() + at, base.len() + at + length, "")))
            }
        }
    }
}

/// A placeholder as people write it, and as HTTP libraries encode that.
fn spellings(name: &str) -> Vec<String> {
    vec![format!("{{{name}}}"), format!("%7B{name}%7D"), format!("%7b{name}%7d")]
}
