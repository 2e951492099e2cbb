//! What the benches share: a configuration as it runs, and calls as browsers and programs send them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use postern::call::{Call, Caller, Parts};
use postern::config;
use postern::path::Target;
use postern::record::Record;

/// As in the program: what is measured is mostly small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fields that a program with a common HTTP library sends.
pub const FIELDS: [(&str, &str); 7] = [
    ("host", "localhost:8080"),
    ("user-agent", "python-httpx/0.28.1"),
    ("accept", "*/*"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("connection", "keep-alive"),
    ("cookie", "session=0123456789abcdef"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
];

/// The plan of this configuration.
pub fn plan(yaml: &str) -> config::Plan {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), yaml).unwrap();
    let options = config::Options { file: Some(file.path().to_owned()), ..config::Options::default() };
    let outcome = config::plan(config::load(&options, &config::System).unwrap());
    outcome.plan.unwrap_or_else(|| panic!("{}", config::problem::text(&outcome.problems, &outcome.files, false)))
}

/// A call for this path and query with these fields.
pub fn call(target: &str, fields: &[(&'static str, &'static str)]) -> Call {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let headers: HeaderMap = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
    let caller = Caller { name: "anonymous".into(), ip: Some([127, 0, 0, 1].into()), tls: false };
    let record = Record::new("0193b3f0-7a1c-7000-8000-000000000000".into(), SystemTime::UNIX_EPOCH, "anonymous".into(), "bench".into());
    Call::new(Parts::new(Method::GET, Target::new(path, query), headers, caller, Rc::new(RefCell::new(record))))
}
