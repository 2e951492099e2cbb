//! Values that only a request or an attempt can give: headers, parameters and cookies whose templates read it. They are
//! put in by whoever has the call in hand: by shaping what is the same for every attempt, by signing the rest (ruling H5).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{COOKIE, EXPECT, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::body::{self, Body};
use crate::call::{Call, STAND_IN};
use crate::error::{Error, Trouble};
use crate::expr::{Failure, Inputs, Map, Moment, Name, Names, Rendered, Settings, Template, Unset, Value, place};
use crate::key::sha256;

/// What names the limit on the body in errors.
const LIMIT: &str = "limits.buffer";

/// What depends on the base URL.
const BASED: Names =
    Names::of(&[Name::Base, Name::RequestHost, Name::RequestPath, Name::RequestRawPath, Name::RequestTarget, Name::RequestHeaders]);

/// Where a value goes.
#[derive(Clone, Debug)]
pub enum Spot {
    /// Into a field.
    Header(HeaderName),
    /// Into the query, under this decoded name.
    Param(String),
    /// Into the `Cookie` field.
    Cookie(String),
}

/// One value.
#[derive(Clone, Debug)]
pub struct Fill {
    /// Where it goes.
    pub spot: Spot,
    /// What makes it; several only for a parameter.
    pub templates: Vec<Arc<Template>>,
    /// What becomes of it where it is unset.
    pub unset: Unset,
}

impl Fill {
    /// What its templates read.
    pub fn names(&self) -> Names {
        self.templates.iter().fold(Names::NONE, |names, template| names.with(template.names()))
    }
}

/// All values of one resource that are put in at the same moment.
#[derive(Clone, Debug)]
pub struct Fills {
    fills: Vec<Fill>,
    names: Names,
    settings: Arc<Settings>,
    /// Largest body that is held whole where a template reads it (ruling B34).
    buffer: u64,
}

impl Fills {
    /// Those that shaping puts in, and those that signing does, where there are any. Where the body is `merged` while
    /// signing, what reads it waits for that; what reads the base URL waits where only signing knows that (`late`).
    pub fn split(fills: Vec<Fill>, settings: &Arc<Settings>, buffer: u64, merged: bool, late: bool) -> (Option<Self>, Option<Self>) {
        let (volatile, steady): (Vec<Fill>, Vec<Fill>) = fills.into_iter().partition(|fill| {
            let names = fill.names();
            names.is_volatile() || (merged && names.reads_body()) || (late && names.meets(BASED))
        });
        let of = |fills: Vec<Fill>| (!fills.is_empty()).then(|| Self::all(fills, settings, buffer));
        (of(steady), of(volatile))
    }

    /// All of them at once, for whoever has the attempt in hand.
    pub fn all(mut fills: Vec<Fill>, settings: &Arc<Settings>, buffer: u64) -> Self {
        // A header may sign the target, so it comes last.
        fills.sort_by_key(|fill| matches!(fill.spot, Spot::Header(_)));
        let names = fills.iter().fold(Names::NONE, |names, fill| names.with(fill.names()));
        Self { fills, names, settings: settings.clone(), buffer }
    }

    /// Whether any of them reads a token, or what came with one.
    pub fn reads_granted(&self) -> bool {
        self.names.meets(Names::GRANTED)
    }

    /// Whether any of them reads the body.
    pub fn reads_body(&self) -> bool {
        self.names.reads_body()
    }

    /// Where what came with a token is put in.
    pub fn granted(&self) -> impl Iterator<Item = &Spot> {
        self.fills.iter().filter(|fill| fill.names().meets(Names::GRANTED)).map(|fill| &fill.spot)
    }

    /// Whether this field is among them.
    pub fn sets(&self, name: &HeaderName) -> bool {
        self.fills.iter().any(|fill| matches!(&fill.spot, Spot::Header(header) if header == name))
    }

    /// Puts all of them in. What the call has already stays: it is the client's, and what no client may set is gone.
    ///
    /// # Errors
    /// Where a value cannot be computed from this request, or has no place where it goes.
    pub async fn put(&self, call: &mut Call) -> Result<(), Error> {
        let body = if self.names.reads_body() { Some(held(call, self.buffer).await?) } else { None };
        for fill in &self.fills {
            self.one(fill, call, body.as_ref())?;
        }
        Ok(())
    }

    fn one(&self, fill: &Fill, call: &mut Call, body: Option<&Bytes>) -> Result<(), Error> {
        match &fill.spot {
            Spot::Header(name) if !call.headers.contains_key(name) => {
                let Some(rendered) = self.text(fill, call, body)? else { return Ok(()) };
                let value = header(name, &rendered, fill.names())?;
                call.headers.insert(name, value);
            }
            Spot::Param(name) if !call.target.has_param(name) => {
                let values = self.texts(fill, call, body)?;
                let name = place::query(name);
                values.iter().for_each(|value| call.target.append(&name, text(value)));
            }
            Spot::Cookie(name) => {
                let Some(rendered) = self.text(fill, call, body)? else { return Ok(()) };
                let good = text(&rendered).bytes().all(cookie_octet);
                let pair = field(&rendered).filter(|_| good || stands_in(call, fill.names()));
                let pair = pair.ok_or_else(|| illegal(&format!("the cookie `{name}`"), fill.names()))?;
                cookie(&mut call.headers, name, &pair)?;
            }
            Spot::Header(_) | Spot::Param(_) => {}
        }
        Ok(())
    }

    /// The one text of a header or a cookie; `None` where it is left out.
    fn text(&self, fill: &Fill, call: &Call, body: Option<&Bytes>) -> Result<Option<Rendered>, Error> {
        let inputs = Facts { settings: &self.settings, call, body };
        let Some(template) = fill.templates.first() else { return Ok(None) };
        if stands_in(call, template.names()) {
            return Ok(Some(stand_in()));
        }
        template.text_set(&inputs, fill.unset, |text| text.into()).map_err(|failure| refused(&failure, template.names()))
    }

    /// The values of a parameter, encoded.
    fn texts(&self, fill: &Fill, call: &Call, body: Option<&Bytes>) -> Result<Vec<Rendered>, Error> {
        let inputs = Facts { settings: &self.settings, call, body };
        let mut all = Vec::new();
        for template in &fill.templates {
            if stands_in(call, template.names()) {
                all.push(Rendered { value: Value::text(place::query(STAND_IN)), secret: true });
                continue;
            }
            let texts = template.texts(&inputs, fill.unset, place::query).map_err(|failure| refused(&failure, template.names()))?;
            all.extend(texts.into_iter().flatten());
        }
        Ok(all)
    }
}

/// The body, which is held whole from here on. At most `limit` bytes are held.
///
/// # Errors
/// [`Error::BodyTooLarge`] for a longer one, and what reading it fails with.
pub async fn held(call: &mut Call, limit: u64) -> Result<Bytes, Error> {
    let body = body::collect(std::mem::take(&mut call.body), limit, LIMIT).await?;
    // Whoever waited for 100 has sent the body by now.
    call.headers.remove(EXPECT);
    call.expects_continue = false;
    call.body = if body.is_empty() { Body::Empty } else { Body::Full(body.clone()) };
    Ok(body)
}

/// Whether what reads these is not computed but shown, as no token was fetched.
pub fn stands_in(call: &Call, names: Names) -> bool {
    names.meets(Names::GRANTED) && call.granted.as_ref().is_some_and(|granted| granted.stands_in())
}

/// What is shown then.
fn stand_in() -> Rendered {
    Rendered { value: Value::text(STAND_IN), secret: true }
}

/// Whose fault a failure is: the request's, where it was read, the issuer's, where what came with a token was, else the
/// configuration's.
pub fn refused(failure: &Failure, names: Names) -> Error {
    if names.meets(Names::REQUEST.with(Names::CLIENT)) {
        let why = format!("This resource computes a value from the request, and cannot: {failure}.");
        return Error::BadRequest(why.into(), "Send what it reads.".into());
    }
    if names.meets(Names::GRANTED) {
        return lacking(format!("This resource computes a value from what came with its token, and cannot: {failure}."));
    }
    Error::Internal(format!("an expression failed: {failure}"))
}

/// The issuer gave something else than the resource counts on.
pub fn lacking(detail: String) -> Error {
    let hint = "Check `capture` and what the issuer sends; `default(…)` says what stands for a missing value.";
    Error::CredentialRefused(Box::new(Trouble { cause: detail.clone().into(), detail: detail.into(), hint: hint.into() }))
}

fn illegal(what: &str, names: Names) -> Error {
    if names.meets(Names::GRANTED) && !names.meets(Names::REQUEST.with(Names::CLIENT)) {
        return lacking(format!("This resource computes a value for {what} from what came with its token, and it cannot stand there."));
    }
    let why = format!("This resource computes a value for {what} that cannot stand there.");
    Error::BadRequest(why.into(), "It holds a line break or another character that is not allowed.".into())
}

fn text(rendered: &Rendered) -> &str {
    match &rendered.value {
        Value::Text(text) => text,
        Value::Secret(secret) => secret.expose(),
        _ => "",
    }
}

/// The value of a header that templates with these names have made.
///
/// # Errors
/// Where it cannot stand in a header.
pub fn header(name: &HeaderName, rendered: &Rendered, names: Names) -> Result<HeaderValue, Error> {
    field(rendered).ok_or_else(|| illegal(&format!("the header `{name}`"), names))
}

/// A field value, if it is legal (RFC 9110 section 5.5): no control characters, no white space at its ends.
fn field(rendered: &Rendered) -> Option<HeaderValue> {
    let text = text(rendered);
    if text.trim_matches([' ', '\t']).len() != text.len() {
        return None;
    }
    let mut value = HeaderValue::from_bytes(text.as_bytes()).ok()?;
    value.set_sensitive(rendered.secret);
    Some(value)
}

/// RFC 6265 section 4.1.1.
fn cookie_octet(b: u8) -> bool {
    matches!(b, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

/// One `Cookie` field with this pair in place of any of the same name.
fn cookie(headers: &mut HeaderMap, name: &str, value: &HeaderValue) -> Result<(), Error> {
    let mut line: Vec<u8> = Vec::new();
    for piece in headers.get_all(COOKIE).iter().flat_map(|v| v.as_bytes().split(|b| *b == b';')) {
        let piece = piece.trim_ascii();
        let end = memchr::memchr(b'=', piece).unwrap_or(piece.len());
        if !piece.is_empty() && piece[..end].trim_ascii_end() != name.as_bytes() {
            line.extend_from_slice(piece);
            line.extend_from_slice(b"; ");
        }
    }
    line.extend_from_slice(name.as_bytes());
    line.push(b'=');
    line.extend_from_slice(value.as_bytes());
    let mut line = HeaderValue::from_bytes(&line).map_err(|_| Error::Internal("cookies cannot be joined into one field".into()))?;
    line.set_sensitive(true);
    headers.insert(COOKIE, line);
    Ok(())
}

/// A call as expressions see it.
pub struct Facts<'f> {
    /// `vars`, `secrets`, `base`.
    pub settings: &'f Settings,
    /// The call as it stands.
    pub call: &'f Call,
    /// Its body, where it is held.
    pub body: Option<&'f Bytes>,
}

impl Facts<'_> {
    /// The account's own variables lie over the resource's (ruling C9).
    fn vars(&self) -> Arc<Map> {
        match &self.call.account {
            Some(account) if !account.vars.is_empty() => {
                let own = account.vars.iter().map(|(name, value)| (name.as_str(), Value::text(value.as_str()))).collect();
                Arc::new(self.settings.vars().overlaid(&own))
            }
            _ => self.settings.vars().clone(),
        }
    }
}

impl Inputs for Facts<'_> {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        const UNHELD: &str = "the body was not held back";
        const UNGRANTED: &str = "there is no token at this place";
        let call = self.call;
        let text = |text: &str| Some(Value::text(text));
        Ok(match name {
            Name::RequestMethod => text(call.method.as_str()),
            Name::RequestHost => call.headers.get(HOST).and_then(|h| h.to_str().ok()).map(Value::text),
            Name::RequestPath | Name::RequestRawPath => text(call.target.path()),
            Name::RequestTarget => text(call.target.as_str()),
            Name::RequestRawQuery => text(call.target.query().unwrap_or_default()),
            Name::RequestQuery => Some(query(call.target.query().unwrap_or_default())),
            Name::RequestHeaders => Some(headers(&call.headers)),
            Name::RequestBody => Some(Value::from_bytes(self.body.ok_or(UNHELD)?)),
            Name::RequestBodySha256 => Some(Value::Bytes(sha256(self.body.ok_or(UNHELD)?).into())),
            Name::ClientName => text(&call.caller.name),
            Name::ClientKind => text("anonymous"),
            Name::ClientGroups => Some(Value::List(Arc::from([]))),
            Name::ClientClaims => Some(Value::Map(Arc::default())),
            Name::ClientIp => call.caller.ip.map(|ip| Value::text(ip.to_string())),
            Name::Now => Some(Value::Moment(Moment::of(call.occasion.now()))),
            Name::Uuid => text(&call.occasion.uuid().to_string()),
            Name::Uuid7 => text(&call.occasion.uuid7().to_string()),
            Name::Vars => return Ok(Some(Value::Map(self.vars()))),
            Name::Base if call.base.is_some() => call.base.as_deref().map(Value::text),
            other if Names::GRANTED.has(other) => {
                let Some(granted) = &call.granted else { return Err(UNGRANTED) };
                return granted.input(other);
            }
            other => return self.settings.input(other),
        })
    }
}

/// Decoded; a name that occurs twice is a list.
fn query(raw: &str) -> Value {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), Value::text(decode(value)))
    });
    Value::Map(Arc::new(Map::new(gathered(pairs))))
}

/// By name in lower case; one that occurs twice is a list. What a secret has touched stays one.
fn headers(headers: &HeaderMap) -> Value {
    let pairs = headers.iter().map(|(name, value)| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let value = if value.is_sensitive() { Value::Secret(crate::secret::Secret::new(text)) } else { Value::text(text) };
        (name.as_str().to_owned(), value)
    });
    Value::Map(Arc::new(Map::of_fields(gathered(pairs))))
}

fn gathered(pairs: impl Iterator<Item = (String, Value)>) -> Vec<(Arc<str>, Value)> {
    let mut all: Vec<(Arc<str>, Vec<Value>)> = Vec::new();
    let mut places: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for (name, value) in pairs {
        match places.get(&name) {
            Some(at) => all[*at].1.push(value),
            None => {
                all.push((name.as_str().into(), vec![value]));
                places.insert(name, all.len() - 1);
            }
        }
    }
    let one = |mut values: Vec<Value>| if values.len() == 1 { values.remove(0) } else { Value::List(values.into()) };
    all.into_iter().map(|(name, values)| (name, one(values))).collect()
}
