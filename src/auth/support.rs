//! What the tests of schemes share: nodes from JSON, a call to sign, and the problems as text.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method};
use serde_json::{Value as Json, json};

use crate::auth::connection::Owner;
use crate::auth::grant::Tokens;
use crate::auth::{Auth, Context, Scheme, read};
use crate::body::Body;
use crate::call::{Account, Call, Caller, Parts};
use crate::clock::Clock;
use crate::error::Error;
use crate::expr::{Name, Names, Settings};
use crate::net::Origin;
use crate::path::Target;
use crate::record::Record;
use crate::secret::Secret;
use crate::tree::{Entry, Folders, Node, Place, Problems, Unresolved, Value};

/// The `limits.buffer` of these tests, in bytes.
pub const BUFFER: u64 = 1024;

/// Grants that nobody ever fetches for.
static TOKENS: LazyLock<Tokens> = LazyLock::new(|| Tokens::new(Clock::manual(0)));

/// A node: `${secret:TEXT}` is a resolved reference, `${unset}` one that names nothing.
pub fn node(json: &Json) -> Node {
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => Value::Number(n.to_string().into()),
        Json::String(s) if s == "${unset}" => {
            Value::Unresolved(Box::new(Unresolved { message: "NAME is not set".into(), hint: String::new(), unset: true }))
        }
        Json::String(s) => match s.strip_prefix("${secret:").and_then(|s| s.strip_suffix('}')) {
            Some(secret) => Value::Secret(Secret::new(secret.to_owned())),
            None => Value::Text(s.as_str().into()),
        },
        Json::Array(items) => Value::List(items.iter().map(node).collect()),
        Json::Object(map) => {
            let entry = |(k, v): (&String, &Json)| Entry { key: k.as_str().into(), place: Place::default(), node: node(v) };
            Value::Map(map.iter().map(entry).collect())
        }
    };
    Node { place: Place::default(), value }
}

/// A private key (RFC 8037 appendix A.1).
const ED25519: &str = r#"${secret:{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}"#;

/// `vars` with a text and a number, and `secrets` with a key, an id, both in one, and a private key.
fn settings() -> Arc<Settings> {
    let vars = node(&json!({ "tenant": "acme", "count": 7 }));
    let secrets = node(
        &json!({ "key": "${secret:hunter2hunter2}", "id": "${secret:the-id-of-it}", "pair": "${secret:6f1e:68756e74657232}", "pem": ED25519 }),
    );
    Arc::new(Settings::new(None, Some(&vars), Some(&secrets)).with_base("https://api.example/"))
}

fn try_read(json: &Json, base_path: &str) -> (Option<Auth>, Vec<String>) {
    read_with(json, base_path, settings())
}

fn read_with(json: &Json, base_path: &str, settings: Arc<Settings>) -> (Option<Auth>, Vec<String>) {
    let problems = Problems::default();
    let folders = Folders::one(".");
    let origin = Origin::parse("https", "api.example").unwrap();
    // As `config::resource` does it: what needs nothing but settings is evaluated before a scheme reads it.
    let json = settings.settle(&node(json), Names::ALL, &problems);
    let context = Context {
        base_path,
        buffer: BUFFER,
        largest: None,
        secure: true,
        resource: "api",
        origin: &origin,
        settings: &settings,
        hosts: None,
        made: false,
        private: false,
        tls: None,
        certificate: None,
        folders: &folders,
        allow_http: false,
        connect: Duration::from_secs(5),
        head: Duration::from_secs(5),
        queue: Duration::from_secs(5),
        owner: &Owner { environment: "".into(), resource: "api".into() },
        ambient: |_| None,
        tokens: &TOKENS,
        durable: true,
        commands: None,
    };
    let auth = read(&json, &context, &problems);
    assert!(auth.is_some() || problems.any_error(), "nothing was read, and nobody said why");
    let any_error = problems.any_error();
    let texts = problems.into_sorted().into_iter().map(|p| format!("{} | {}", p.message, p.hint)).collect();
    (auth.filter(|_| !any_error), texts)
}

/// What stands under `auth`, for a base path.
pub fn auth_at(json: Json, base_path: &str) -> Auth {
    let (auth, texts) = try_read(&json, base_path);
    auth.unwrap_or_else(|| panic!("{texts:?}"))
}

/// What stands under `auth`.
pub fn auth(json: Json) -> Auth {
    auth_at(json, "")
}

/// What stands under `auth` where accounts have variables of their own.
pub fn auth_of_accounts(json: Json) -> Auth {
    let settings = Settings::clone(&settings()).without(Names::of(&[Name::Vars]));
    let (auth, texts) = read_with(&json, "", Arc::new(settings));
    auth.unwrap_or_else(|| panic!("{texts:?}"))
}

/// A call for an account with this variable.
pub fn call_of_account(tenant: &str) -> Call {
    let mut call = call("/a");
    let vars = [("tenant".to_owned(), tenant.to_owned())].into();
    call.account = Some(Arc::new(Account { name: tenant.into(), client: None, vars, held: Box::new(()) }));
    call
}

/// A scheme that a test has made.
pub fn auth_of(scheme: impl Scheme + 'static) -> Auth {
    Auth(std::sync::Arc::new([Box::new(scheme)]))
}

/// The problems with it, for a base path.
pub fn complaints_at(json: Json, base_path: &str) -> Vec<String> {
    try_read(&json, base_path).1
}

/// The problems with it.
pub fn complaints(json: Json) -> Vec<String> {
    complaints_at(json, "")
}

/// A call for this target.
pub fn call(target: &str) -> Call {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let caller = Caller { name: "anonymous".into(), ip: None, tls: false };
    let record = Rc::new(RefCell::new(record()));
    Call::new(Parts::new(Method::POST, Target::new(path, query), HeaderMap::new(), caller, record))
}

#[expect(clippy::disallowed_methods, reason = "a record needs some time, and no test looks at it")]
fn record() -> Record {
    Record::new("1".into(), SystemTime::now(), "anonymous".into(), "1".into())
}

/// A call with a body of this type.
pub fn call_with(content_type: &str, body: &[u8]) -> Call {
    let mut call = call("/a");
    if !content_type.is_empty() {
        call.headers.insert("content-type", content_type.parse().unwrap());
    }
    call.body = if body.is_empty() { Body::Empty } else { Body::Full(body.to_vec().into()) };
    call
}

/// Signs the call. Nothing here waits for anything but a body at hand, so one poll must do.
pub fn signed(auth: &Auth, mut call: Call) -> Result<Call, Error> {
    now(auth.sign(&mut call))?;
    Ok(call)
}

/// The result of a future that is ready at once.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).as_mut().poll(&mut cx) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => panic!("the future waits for something"),
    }
}

/// The body of a signed call as text.
pub fn body(call: &Call) -> &str {
    match &call.body {
        Body::Full(bytes) => std::str::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}
