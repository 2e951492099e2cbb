//! `base_url` and `hosts` of a resource. What expressions put into the URL is judged and encoded for its place, and a
//! host that they made must be one that `hosts` allows (rulings C19, H16).

use std::sync::Arc;

use crate::expr::{self, Names, Settings, Template, Unmade};
use crate::net::base::EXAMPLE;
use crate::net::{self, Hosts};
use crate::tree::{Node, Place, Problems, Value as Tree};

/// Stands for a host that is not known yet: a name that leads nowhere (RFC 6761 section 6.4).
const NOWHERE: &str = "nowhere.invalid";
const NO_HOSTS: &str = "an expression makes the host of `base_url`, and there are no `hosts`";
const HOSTS: &str = "name what it may become: hosts: [\"*.example.com\"]";
/// What it may read: nothing of the request (ruling G4), and not itself.
const INPUTS: Names = Names::FIXED.with(Names::CLIENT).with(Names::GRANTED).without(Names::of(&[expr::Name::Base]));

/// A base URL, taken apart.
#[derive(Clone, Debug)]
pub struct BaseUrl {
    /// Scheme, host and port.
    pub origin: net::Origin,
    /// The path as written, or empty.
    pub path: String,
    /// The whole URL.
    pub text: String,
    /// Where it stands.
    pub place: Place,
    /// Whether an expression has a say in the host.
    pub made: bool,
    /// What makes it, where only a call knows it. Then its path is empty here, and a host that is made is nowhere.
    pub late: Option<Arc<Template>>,
}

impl BaseUrl {
    /// Stands for one that could not be read.
    pub fn nowhere(place: Place) -> Option<Self> {
        let origin = net::Origin::parse("https", NOWHERE).ok()?;
        Some(Self { origin, path: String::new(), text: String::new(), place, made: false, late: None })
    }

    /// Reads it. `None` after an error was reported.
    pub fn read(node: &Node, hosts: Option<&Hosts>, settings: &Settings, problems: &Problems) -> Option<Self> {
        if matches!(node.value, Tree::List(_)) {
            problems.error(node.place, "a list of base URLs (failover) is not built into this version", "write one URL");
            return None;
        }
        let (text, computed) = if node.is_template() {
            let template = expr::read(node, &settings.scope(INPUTS), problems)?;
            if template.names().meets(Names::GRANTED.with(Names::CLIENT).with(settings.unsettled())) {
                return Self::late(template, hosts, node.place, problems);
            }
            computed(&template, node.place, settings, problems)?
        } else {
            (node.text(problems)?, false)
        };
        let base = Self::parse(text, node.place, problems)?;
        if computed {
            base.allowed(hosts, problems)?;
        }
        Some(Self { made: computed, ..base })
    }

    /// One that only a call knows. Its host is known nevertheless where it is written out in front of the first
    /// expression.
    fn late(template: Template, hosts: Option<&Hosts>, place: Place, problems: &Problems) -> Option<Self> {
        let text = format!("{template:?}");
        let written = text.split("{{").next().unwrap_or_default();
        let scheme = if written.starts_with("http://") { "http" } else { "https" };
        let origin = written.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(authority, _)| authority);
        let origin = origin.filter(|authority| !authority.contains(crate::secret::REDACTED));
        let made = origin.is_none();
        let origin = match net::Origin::parse(scheme, origin.unwrap_or(NOWHERE)) {
            Ok(origin) => origin,
            Err(why) => {
                problems.error(place, why, EXAMPLE);
                return None;
            }
        };
        if made && hosts.is_none() {
            problems.error(place, NO_HOSTS, HOSTS);
            return None;
        }
        Some(Self { origin, path: String::new(), text, place, made, late: Some(Arc::new(template)) })
    }

    fn parse(text: String, place: Place, problems: &Problems) -> Option<Self> {
        let (origin, path) = match net::base::parts(&text) {
            Ok((origin, path)) => (origin, path.to_owned()),
            Err((why, hint)) => {
                problems.error(place, why, hint);
                return None;
            }
        };
        Some(Self { origin, path, text, place, made: false, late: None })
    }

    fn allowed(&self, hosts: Option<&Hosts>, problems: &Problems) -> Option<()> {
        let Some(hosts) = hosts else {
            problems.error(self.place, NO_HOSTS, HOSTS);
            return None;
        };
        if !hosts.allow(&self.origin) {
            problems.error(
                self.place,
                "an expression makes a host of `base_url` that `hosts` does not allow",
                "check the variable, or add the host",
            );
            return None;
        }
        Some(())
    }
}

/// The URL with its expressions evaluated, and whether one of them had a say in the host.
fn computed(template: &Template, place: Place, settings: &Settings, problems: &Problems) -> Option<(String, bool)> {
    let unmade = match expr::url(template, settings, None) {
        Ok(made) => return Some((made.text.to_string(), made.host)),
        Err(unmade) => unmade,
    };
    let hint = match &unmade {
        Unmade::Failed(failure) if failure.undefined => "set it under `vars`, or give it a `default(…)`",
        Unmade::Failed(_) => "",
        Unmade::Unfit(_) => "a value under `vars` that goes into a host is made of letters, digits, `-` and `.`",
    };
    problems.error(place, unmade.to_string(), hint);
    None
}
