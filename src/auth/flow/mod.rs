//! `flow`: a login in steps of one's own. The steps are a source of the life of a token like any other: they run once for
//! all who wait, ahead of the end, and once more where an upstream refuses what they brought. What they capture goes where
//! `apply` says, and into the resource's own expressions.

mod apply;
mod body;
mod ended;
mod expect;
mod facts;
mod lasts;
mod line;
mod run;
mod step;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use apply::Apply;
pub use body::{Pairs, Reader};
pub use ended::{Ended, Redirects};
pub use expect::{Expect, condition};
pub use facts::{ANSWER, Facts, STEP, Seen};
use lasts::Lasts;
pub use line::Line;
use run::{Deed, Run};
use step::Step;
pub use step::{Call as Exchange, Draft, Headers, method, url};
pub use told::{Fault, Teller};

use crate::auth::grant::{Material, NewSeat, Seat};
use crate::auth::granted::{Gives, granted};
use crate::auth::oauth::written;
use crate::auth::read::{self, fields};
use crate::auth::token::Token;
use crate::auth::whose::Reads;
use crate::auth::{Acquiring, Attempt, Owned, Reading, Renewal, Renewing, Scheme, Signing};
use crate::call::Call;
use crate::error::Error;
use crate::expr::{self, Condition, Cut, Name, Names};
use crate::tree::{Fields, Node, Problems, Value, closest};

/// Most steps of a flow.
const STEPS_MAX: usize = 16;

/// The scheme.
#[derive(Debug)]
struct Flow {
    seat: Arc<Seat>,
    apply: Arc<Apply>,
    ended: Ended,
    gives: Gives,
    watched: Vec<Watched>,
}

/// The grant of a step, which renews itself by its own rules.
#[derive(Debug)]
struct Watched {
    name: String,
    seat: Arc<Seat>,
    /// Whether its token is presented as it is.
    shown: bool,
    /// The serial numbers of the flow's token and of its own that are known to belong together.
    met: (AtomicU64, AtomicU64),
}

/// Reads `{ steps, lasts, refresh, refused, apply }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let (context, problems) = (reading.context, reading.problems);
    let fields = fields(node, "a map with `steps`", problems)?;
    let reader = reader(reading);
    let line = Line::of(context);
    let deeds = deeds(&fields, &line, reading, reader);
    let lasts = fields.node("lasts").map_or(Some(Lasts::default()), |node| Lasts::read(node, reader));
    let apply = fields.node("apply").map_or_else(|| Some(Apply::nothing(context)), |node| Apply::read(node, context, problems));
    let ended =
        fields.node("refused").map_or_else(|| Some(Ended::usual(context)), |node| Ended::read(node, Redirects::Untold, context, reader));
    let from = fields.node("refresh").map(|node| refresh(node, deeds.as_deref(), reading));
    let place = fields.place();
    fields.finish();
    let (deeds, lasts, apply, ended) = (deeds?, lasts?, Arc::new(apply?), ended?);
    let from = match from {
        Some(from) => Some(from?),
        None => None,
    };
    // A later step may capture anew what an earlier one has.
    let captures: std::collections::BTreeSet<&str> = deeds.iter().flat_map(named).collect();
    let captures: Vec<String> = captures.into_iter().map(str::to_owned).collect();
    known(node, &captures, reading)?;
    if deeds.iter().all(|deed| matches!(deed, Deed::Grant(..))) && deeds.len() == 1 {
        problems.error(place, "a flow of nothing but a grant is that grant", "write its scheme under `auth`");
        return None;
    }
    let shown: Vec<&str> = apply.captures().collect();
    let watched = deeds.iter().filter_map(|deed| match deed {
        Deed::Grant(name, seat) => {
            let shown = shown.contains(&name.as_str());
            Some(Watched { name: name.clone(), seat: seat.clone(), shown, met: Default::default() })
        }
        Deed::Call(_) => None,
    });
    let watched: Vec<Watched> = watched.collect();
    let granted = deeds.iter().position(|deed| matches!(deed, Deed::Grant(..))).filter(|at| *at > 0);
    let renew_before = lasts.renew_before;
    let material = material("flow", node, &["apply", "refused"], &deeds, reading);
    let source = Run {
        line,
        settings: context.settings.clone(),
        refresh: from.or(granted),
        must_keep: from.is_some(),
        lasts,
        apply: apply.clone(),
        deeds,
    };
    let seat = context.tokens.seat(NewSeat {
        resource: context.resource.into(),
        scheme: "flow",
        identity: reading.fingerprint.of([material.bytes()]),
        material,
        renew_before,
        source: Arc::new(source),
        shelf: None,
        reads: reads(node, &["apply", "refused"], reader),
    });
    Some(Box::new(Flow { seat, apply, ended, gives: Gives { captures }, watched }))
}

/// What reads the expressions of a login. A base URL that only its result brings is not there yet.
pub fn reader(reading: Reading<'_>) -> Reader<'_> {
    let late = reading.context.settings.unsettled().and(Names::of(&[Name::Base]));
    Reader { settings: reading.context.settings, names: STEP.without(late), problems: reading.problems }
}

/// What a login reads of its caller (ruling G4): each value has a login of its own. `except` are keys that are no part of it.
pub fn reads(node: &Node, except: &[&str], reader: Reader<'_>) -> Reads {
    let names = named_in(node, "", except, reader);
    let account = names.and(reader.settings.unsettled()).has(Name::Vars);
    Reads { client: names.and(Names::CLIENT), bearer: false, account }
}

/// The inputs that the expressions of a subtree read. What cannot be compiled is reported by whoever reads it.
fn named_in(node: &Node, key: &str, except: &[&str], reader: Reader<'_>) -> Names {
    let quiet = Problems::default();
    match &node.value {
        Value::List(items) => items.iter().fold(Names::NONE, |names, item| names.with(named_in(item, key, except, reader))),
        Value::Map(entries) => {
            let entries = entries.iter().filter(|entry| !except.contains(&&*entry.key));
            entries.fold(Names::NONE, |names, entry| names.with(named_in(&entry.node, &entry.key, except, reader)))
        }
        _ if node.is_template() => expr::read(node, &reader.scope(), &quiet).map_or(Names::NONE, |template| template.names()),
        Value::Text(text) if key == "when" => {
            Condition::compile(text, &reader.settings.scope(ANSWER)).map_or(Names::NONE, |condition| condition.names())
        }
        _ => Names::NONE,
    }
}

/// What names the grant: everything that is written but for how it is presented, where it leads, and what its expressions
/// read of the configuration.
fn material(kind: &str, node: &Node, except: &[&str], deeds: &[Deed], reading: Reading<'_>) -> Material {
    let base = reading.context.settings.base().unwrap_or_default();
    let mut parts = vec![kind.as_bytes().to_vec(), base.as_bytes().to_vec()];
    written(node, except, &mut parts);
    let words = reading.context.settings.material();
    let grants =
        deeds.iter().filter_map(|deed| if let Deed::Grant(_, seat) = deed { Some(seat.grant.identity().as_bytes()) } else { None });
    Material::of(parts.iter().map(Vec::as_slice).chain([words.as_slice()]).chain(grants))
}

/// The same for a login that is no flow.
pub fn material_of(kind: &str, node: &Node, except: &[&str], reading: Reading<'_>) -> Material {
    material(kind, node, except, &[], reading)
}

fn deeds(fields: &Fields<'_>, line: &Line, reading: Reading<'_>, reader: Reader<'_>) -> Option<Vec<Deed>> {
    let problems = reading.problems;
    let nodes = fields.items("steps");
    if nodes.is_empty() || nodes.len() > STEPS_MAX {
        let hint = "steps: [ { name: login, method: POST, url: \"{{ base }}/login\", json: { … }, capture: { token: json.token } } ]";
        problems.error(fields.key_place("steps"), format!("a flow has 1 to {STEPS_MAX} steps"), hint);
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    let mut all = Vec::new();
    let mut whole = true;
    for node in nodes {
        match deed(node, line, reading, reader) {
            Some((name, _)) if names.contains(&name) => {
                problems.error(node.place, format!("two steps are called `{name}`"), "give each its own name");
                whole = false;
            }
            Some((name, deed)) => {
                names.push(name);
                all.push(deed);
            }
            None => whole = false,
        }
    }
    let captured: Vec<&str> = all.iter().flat_map(named).collect();
    for deed in &all {
        if let Deed::Grant(name, _) = deed
            && captured.iter().filter(|n| *n == name).count() > 1
        {
            problems.error(fields.key_place("steps"), format!("`captured.{name}` is both a step and a capture"), "rename one of them");
            whole = false;
        }
    }
    whole.then_some(all)
}

/// The names that it puts under `captured`.
fn named(deed: &Deed) -> Vec<&str> {
    match deed {
        Deed::Call(step) => step.captures().collect(),
        Deed::Grant(name, _) => vec![name],
    }
}

fn deed(node: &Node, line: &Line, reading: Reading<'_>, reader: Reader<'_>) -> Option<(String, Deed)> {
    let problems = reading.problems;
    let fields = Fields::of(node, "a step: a map with `name` and `url`", problems)?;
    let name = fields.need("name").and_then(|node| {
        let name = node.text(problems)?;
        let good = !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        if !good {
            problems.error(node.place, "a step's name is made of letters, digits, `_` and `-`", "name: login");
        }
        good.then_some(name)
    });
    let deed = match fields.node("auth") {
        Some(node) => grant(node, name.as_deref(), reading).map(|seat| Deed::Grant(name.clone().unwrap_or_default(), seat)),
        None => {
            let step = Step::read(name.as_deref().unwrap_or("?"), &fields, reader, line, reading.context.hosts.is_some());
            step.map(|step| Deed::Call(Box::new(step)))
        }
    };
    fields.finish();
    Some((name?, deed?))
}

/// The grant of a step (ruling E2).
fn grant(node: &Node, name: Option<&str>, reading: Reading<'_>) -> Option<Arc<Seat>> {
    let problems = reading.problems;
    if name.is_some_and(|name| !step::is_name(name)) {
        problems.error(node.place, "a step with `auth` is named in expressions", "letters, digits and `_`: name: grant");
        return None;
    }
    let settled = reading.context.settings.settle(node, Names::ALL, problems);
    let scheme = read::one(&settled, reading)?;
    match scheme.seat() {
        Some(seat) if !seat.is_shared_out() => Some(seat.clone()),
        Some(_) => {
            problems.error(node.place, "a grant of many accounts cannot be a step", "remove `connections` of the resource");
            None
        }
        None => {
            problems.error(
                node.place,
                "this scheme has no token that a step could hand on",
                "an `oauth2_…` scheme, `auth0` or `google_service_account`",
            );
            None
        }
    }
}

fn refresh(node: &Node, deeds: Option<&[Deed]>, reading: Reading<'_>) -> Option<usize> {
    let fields = Fields::of(node, "a map with `from`", reading.problems)?;
    let from = fields.need("from").and_then(|node| Some((node.text(reading.problems)?, node.place)));
    fields.finish();
    let (name, place) = from?;
    let deeds = deeds?;
    let names: Vec<String> = deeds.iter().map(Deed::name).collect();
    let at = names.iter().position(|n| *n == name);
    if at.is_none() {
        reading.problems.error(place, format!("there is no step `{name}`"), closest(&name, &names));
    }
    at
}

/// Whether everything that is read of `captured` is captured by some step.
fn known(node: &Node, captures: &[String], reading: Reading<'_>) -> Option<()> {
    let mut good = Some(());
    let mut walk = vec![node];
    while let Some(node) = walk.pop() {
        match &node.value {
            Value::List(items) => walk.extend(items),
            Value::Map(entries) => walk.extend(entries.iter().map(|entry| &entry.node)),
            _ => {
                let mut read = Vec::new();
                mentioned(node, &mut read);
                for name in read.iter().filter(|name| !captures.contains(name)) {
                    let hint = if captures.is_empty() { format!("capture: {{ {name}: json.… }}") } else { closest(name, captures) };
                    reading.problems.error(node.place, format!("no step captures `{name}`"), hint);
                    good = None;
                }
            }
        }
    }
    good
}

/// The names that a subtree reads of `captured`, in their order.
fn mentioned(node: &Node, into: &mut Vec<String>) {
    let mut text = |text: &str| {
        let cuts = expr::split(text).unwrap_or_default();
        let expressions = cuts.iter().filter_map(|cut| if let Cut::Expression(range) = cut { Some(&text[range.clone()]) } else { None });
        // A condition is bare.
        let bare = if text.contains("{{") { None } else { Some(text) };
        into.extend(expressions.chain(bare).flat_map(expr::captures).map(str::to_owned));
    };
    match &node.value {
        Value::Text(written) => text(written),
        Value::Mixed(pieces) => pieces.iter().for_each(|piece| {
            if let crate::tree::Piece::Written(written) = piece {
                text(written);
            }
        }),
        Value::List(items) => items.iter().for_each(|item| mentioned(item, into)),
        Value::Map(entries) => entries.iter().for_each(|entry| mentioned(&entry.node, into)),
        _ => {}
    }
}

impl Flow {
    /// Looks after the grants of its steps: where one has a new token, the steps behind it are run anew, and until then what
    /// there is serves on.
    fn watch(&self, token: &Token, call: &Call) {
        for watched in &self.watched {
            let Some(inner) = watched.seat.shared_fresh() else {
                watched.seat.nudge();
                continue;
            };
            let (outer_met, inner_met) = (watched.met.0.load(Ordering::Relaxed), watched.met.1.load(Ordering::Relaxed));
            if !inner.is_real() || !token.is_real() || (outer_met, inner_met) == (token.serial, inner.serial) {
                continue;
            }
            if token.minted.captured.get(&watched.name) == Some(&run::granted(&inner)) {
                watched.met.0.store(token.serial, Ordering::Relaxed);
                watched.met.1.store(inner.serial, Ordering::Relaxed);
            } else {
                self.seat.outdate(token, call);
            }
        }
    }

    async fn put(&self, call: &mut Call, token: Option<Arc<Token>>) -> Result<(), Error> {
        let token = match token {
            Some(token) => token,
            None => self.seat.token(call).await?,
        };
        if call.granted.is_none() {
            call.granted = Some(Box::new(granted(vec![(0, token.clone())])));
        }
        self.ended.prepare(&mut call.headers);
        self.apply.put(call).await?;
        call.ticket = Some(token);
        Ok(())
    }
}

impl Scheme for Flow {
    fn owns(&self) -> Owned {
        self.apply.owns()
    }

    fn identity(&self, call: &Call) -> Option<Arc<str>> {
        self.seat.identity(call)
    }

    fn secret(&self) -> bool {
        true
    }

    fn gives(&self) -> Option<Gives> {
        Some(self.gives.clone())
    }

    fn acquire<'a>(&'a self, call: &'a Call) -> Option<Acquiring<'a>> {
        Some(self.seat.acquire(call))
    }

    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
        let acquired = Token::of(call.ticket.take().as_ref());
        let token = acquired.or_else(|| self.seat.fresh(call));
        if let Some(token) = &token {
            self.watch(token, call);
        }
        Signing::Later(Box::pin(self.put(call, token)))
    }

    fn renews(&self) -> bool {
        true
    }

    fn renew<'a>(&'a self, attempt: Attempt<'a>) -> Renewing<'a> {
        let Some(token) = Token::of(attempt.ticket) else {
            return Renewing::Done(Ok(Renewal::Stands));
        };
        Renewing::Later(Box::pin(async move {
            if !self.ended.told(attempt.call, attempt.answer).await? {
                let status = attempt.answer.status();
                if status.is_success() || status.is_redirection() {
                    token.accept();
                }
                return Ok(Renewal::Stands);
            }
            for watched in self.watched.iter().filter(|watched| watched.shown) {
                if let Some(inner) = watched.seat.shared_fresh() {
                    watched.seat.refuse_shared(&inner);
                }
            }
            let worthwhile = self.seat.refuse(&token, attempt.call);
            Ok(if worthwhile && attempt.again { Renewal::Again } else { Renewal::Stands })
        }))
    }
}
