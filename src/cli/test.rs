//! `postern test`: goes the way to each upstream one stage after the other, and says of each what came of it as it
//! happens. The last two go through the very stack that serves requests.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Reply, Request, own_host, peer};
use super::run::start;
use super::{Cli, fail, plan};
use crate::config::probe::{Answer, Probe};
use crate::config::resource::{Plan, aside};
use crate::error::Error;
use crate::net::Upstream;
use crate::secret::Mask;
use crate::server::rehearsal::Inside;
use crate::tree::{Node, closest};

/// A test failed.
const FAILED: u8 = 4;
/// The command line is wrong.
const USAGE: u8 = 2;
/// Beyond the resource's own timeouts, for what of an answer is still to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of a stage whose place only the token brings: the call goes through it (ruling F27).
const UNKNOWN: &str = "known once there is a token; part of the call";

/// What `postern test` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which resources; all without.
    resources: Vec<String>,
}

/// What is tested of one resource.
struct Subject {
    name: Arc<str>,
    upstream: Arc<Upstream>,
    /// Whether only its token says where it is.
    late: bool,
    probes: Arc<[Probe]>,
    /// Base URLs of the calls that go elsewhere.
    places: Vec<String>,
    schemes: Vec<String>,
    secrets: usize,
    patience: Duration,
    mask: Option<Arc<Mask>>,
}

/// A stage that went well says what it found, one that did not says why.
type Outcome = Result<String, String>;

/// Tests, and returns the exit code.
pub fn run(cli: &Cli, args: &Args) -> u8 {
    let (plan, outcome) = match plan(cli) {
        Ok(planned) => planned,
        Err(code) => return code,
    };
    let known: Vec<&str> = plan.resources.iter().map(|r| &*r.name).collect();
    if let Some(name) = args.resources.iter().find(|name| !known.contains(&name.as_str())) {
        fail(cli, &format!("there is no resource `{name}`; {}", closest(name, &known)));
        return USAGE;
    }
    let wanted = |name: &str| args.resources.is_empty() || args.resources.iter().any(|r| r == name);
    let tree = outcome.tree.as_ref().and_then(|tree| tree.get("resources"));
    let subjects: Vec<Subject> = plan.resources.iter().filter(|r| wanted(&r.name)).map(|r| Subject::of(r, tree)).collect();
    let (host, peer) = (own_host(&plan), peer(&plan));
    // A refresh token that is spent must be kept like the gateway keeps it: without its store nothing is tested.
    if let Err(code) = start(&plan.tokens, &plan.store) {
        return code;
    }
    let inside = match Inside::new(plan, peer) {
        Ok(inside) => inside,
        Err(error) => return fail(cli, &format!("the gateway cannot be set up: {error}")),
    };
    let width = subjects.iter().map(|s| s.name.len()).max().unwrap_or(0);
    let report = Report { json: cli.json, width };
    // All are tested, whatever becomes of the first.
    let failed = subjects.iter().filter(|subject| !subject.test(&inside, &host, &report)).count();
    if failed == 0 { 0 } else { FAILED }
}

impl Subject {
    fn of(plan: &Plan, tree: Option<&Node>) -> Self {
        let mut secrets = Vec::new();
        tree.and_then(|tree| tree.get(&plan.name)).into_iter().for_each(|node| node.secrets(&mut secrets));
        let times = plan.variant.timeouts;
        // The way to the resource itself is gone first, unless no call goes there.
        let nearest = if plan.test.iter().all(|probe| probe.elsewhere.is_some()) { place(plan, 0) } else { plan };
        Self {
            name: plan.name.clone(),
            upstream: nearest.upstream.clone(),
            places: (0..plan.test.len())
                .map(|at| if plan.test[at].elsewhere.is_some() { place(plan, at).base_url.clone() } else { String::new() })
                .collect(),
            late: nearest.late.is_some(),
            probes: if plan.test.is_empty() { Arc::new([Probe::base()]) } else { plan.test.clone() },
            schemes: plan.schemes.clone(),
            secrets: secrets.len(),
            patience: times.connect + times.queue + times.head + PATIENCE,
            mask: plan.mask.clone(),
        }
    }

    /// All stages, up to the first that fails. Returns whether none did.
    fn test(&self, inside: &Inside, host: &str, report: &Report) -> bool {
        let stage = |name: &str, work: &mut dyn FnMut() -> Outcome| {
            let began = Instant::now();
            let outcome = work();
            report.line(self, name, began.elapsed(), &outcome);
            outcome.is_ok()
        };
        let (mut addresses, mut stream) = (Vec::new(), None);
        stage("secret", &mut || Ok(self.resolved()))
            && stage("dns", &mut || {
                if self.late {
                    return Ok(UNKNOWN.into());
                }
                addresses = inside.run(self.upstream.addresses()).map_err(|e| self.why(&e))?;
                Ok(addresses.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>().join(", "))
            })
            && stage("tcp", &mut || {
                if self.late {
                    return Ok(UNKNOWN.into());
                }
                let connected = inside.run(self.upstream.connected(&addresses)).map_err(|e| self.why(&e))?;
                let to = connected.peer_addr().map(|a| a.to_string()).unwrap_or_default();
                stream = Some(connected);
                Ok(to)
            })
            && stage("tls", &mut || {
                if self.late {
                    return Ok(UNKNOWN.into());
                }
                let Some(stream) = stream.take() else { return Err("there is no connection".into()) };
                let agreed = inside.run(self.upstream.secured(stream)).map_err(|e| self.why(&e))?;
                Ok(agreed.unwrap_or_else(|| "not used: plain http".into()))
            })
            && stage("credential", &mut || self.credential(inside, host))
            && stage("call", &mut || self.call(inside, host))
    }

    /// A configuration whose references name nothing does not come this far.
    fn resolved(&self) -> String {
        match self.secrets {
            0 => "none is needed".into(),
            1 => "1 reference is resolved".into(),
            n => format!("{n} references are resolved"),
        }
    }

    /// What a client is told, and where the upstream is, which a client is not.
    fn why(&self, error: &Error) -> String {
        self.hidden(format!("{}: {} {}", self.upstream.origin(), error.detail(), error.hint()).trim_end().to_owned())
    }

    fn hidden(&self, text: String) -> String {
        self.mask.as_ref().and_then(|mask| mask.apply(&text)).unwrap_or(text)
    }

    fn request(&self, at: usize, probe: &Probe, host: &str) -> Request {
        let name = if probe.elsewhere.is_some() { aside(&self.name, at) } else { self.name.to_string() };
        Request {
            method: probe.method.to_string(),
            host: host.to_owned(),
            target: format!("/r/{name}{}", probe.path),
            fields: probe.headers.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
            body: probe.body.clone(),
        }
    }

    /// Signs the first call without sending it: whatever has to be fetched or made for that is.
    fn credential(&self, inside: &Inside, host: &str) -> Outcome {
        let Some(probe) = self.probes.first() else { return Ok(String::new()) };
        let rehearsal = inside.rehearse(&self.request(0, probe, host).bytes()).map_err(|e| e.to_string())?;
        if rehearsal.sent.is_empty() {
            return Err(self.refusal(Reply::parse(&rehearsal.answer)));
        }
        Ok(if self.schemes.is_empty() { "nothing is presented".into() } else { self.schemes.join(", ") })
    }

    /// Makes the calls until one succeeds.
    fn call(&self, inside: &Inside, host: &str) -> Outcome {
        let mut failures = Vec::new();
        for (at, probe) in self.probes.iter().enumerate() {
            let to = [self.places.get(at).map_or("", String::as_str), &probe.path].concat();
            let what = self.hidden(format!("{} {}", probe.method, if to.is_empty() { "the base URL" } else { &to }));
            match self.answered(inside, &self.request(at, probe, host), probe) {
                Ok(status) => return Ok(format!("{what}: {status}")),
                Err(why) => failures.push(format!("{what}: {why}")),
            }
        }
        Err(failures.join("; "))
    }

    fn answered(&self, inside: &Inside, request: &Request, probe: &Probe) -> Result<u16, String> {
        let answer = inside.call(&request.bytes(), self.patience).map_err(|error| format!("no answer: {error}"))?;
        let reply = Reply::parse(&answer).ok_or("no answer")?;
        if reply.problem().is_some() {
            return Err(self.refusal(Some(reply)));
        }
        let status = reply.status;
        let judged = probe.judge(&Answer { status, headers: &reply.fields, body: &reply.body });
        judged.map_err(|why| self.hidden(format!("{status}, {why}"))).map(|()| status)
    }

    /// Why the gateway answered by itself.
    fn refusal(&self, reply: Option<Reply>) -> String {
        let Some(problem) = reply.as_ref().and_then(Reply::problem) else { return "the gateway gave no answer".into() };
        let word = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
        self.hidden(format!("{}: {} {}", word("code"), word("detail"), word("hint")).trim_end().to_owned())
    }
}

/// The resource where this call of its test goes.
fn place(plan: &Plan, at: usize) -> &Plan {
    let name = aside(&plan.name, at);
    plan.aside.iter().find(|aside| *aside.name == *name).unwrap_or(plan)
}

/// Where stages are told.
struct Report {
    json: bool,
    width: usize,
}

impl Report {
    fn line(&self, subject: &Subject, stage: &str, took: Duration, outcome: &Outcome) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let (ok, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        let line = if self.json {
            let row: Value = json!({ "resource": &*subject.name, "stage": stage, "ok": ok, "ms": ms, "detail": detail });
            row.to_string()
        } else {
            let word = if ok { "ok" } else { "FAILED" };
            format!("{:<width$}  {stage:<10}  {word:<6}  {ms:>5} ms  {detail}", subject.name, width = self.width)
        };
        let mut out = std::io::stdout().lock();
        // A reader that has had enough is no failure of the test.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}
