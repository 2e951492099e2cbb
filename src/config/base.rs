//! `base_url` and `hosts` of a resource. What expressions put into the URL is judged and encoded for its place, and a
//! host that they made must be one that `hosts` allows (rulings C19, H16).

use crate::expr::{self, Names, Settings, Unmade};
use crate::net::{self, Hosts};
use crate::tree::{Node, Place, Problems, Value as Tree};

const EXAMPLE: &str = "https://api.example.com/v1";

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
    /// Whether an expression had a say in the host.
    pub made: bool,
}

impl BaseUrl {
    /// Stands for one that could not be read.
    pub fn nowhere(place: Place) -> Option<Self> {
        let origin = net::Origin::parse("https", "nowhere.invalid").ok()?;
        Some(Self { origin, path: String::new(), text: String::new(), place, made: false })
    }

    /// Reads it. `None` after an error was reported.
    pub fn read(node: &Node, hosts: Option<&Hosts>, settings: &Settings, problems: &Problems) -> Option<Self> {
        if matches!(node.value, Tree::List(_)) {
            problems.error(node.place, "a list of base URLs (failover) is not built into this version", "write one URL");
            return None;
        }
        let (text, computed) = if node.is_template() { computed(node, settings, problems)? } else { (node.text(problems)?, false) };
        let base = Self::parse(text, node.place, problems)?;
        if computed {
            base.allowed(hosts, problems)?;
        }
        Some(Self { made: computed, ..base })
    }

    fn parse(text: String, place: Place, problems: &Problems) -> Option<Self> {
        let refuse = |why: String, hint: &str| {
            problems.error(place, why, hint);
            None
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse("`base_url` needs a scheme and a host".into(), EXAMPLE);
        };
        if let Some(mark) = rest.find(['?', '#', '@', '\\', ' ']) {
            let why = match rest.as_bytes()[mark] {
                b'?' => "`base_url` holds a query; parameters go under `params`",
                b'#' => "`base_url` holds a fragment",
                b'@' => "`base_url` holds a user; credentials go under `auth`",
                _ => "`base_url` holds a character that no URL may hold",
            };
            return refuse(why.into(), EXAMPLE);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let origin = match net::Origin::parse(scheme, authority) {
            Ok(origin) => origin,
            Err(why) => return refuse(why.to_string(), EXAMPLE),
        };
        if let Err(error) = crate::path::check(path) {
            return refuse(format!("the path of `base_url` is refused: {}", error.detail()), &error.hint());
        }
        let path = path.to_owned();
        Some(Self { origin, path, text, place, made: false })
    }

    fn allowed(&self, hosts: Option<&Hosts>, problems: &Problems) -> Option<()> {
        let Some(hosts) = hosts else {
            let hint = "name what it may become: hosts: [\"*.example.com\"]";
            problems.error(self.place, "an expression makes the host of `base_url`, and there are no `hosts`", hint);
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
fn computed(node: &Node, settings: &Settings, problems: &Problems) -> Option<(String, bool)> {
    let template = expr::read(node, &settings.scope(Names::FIXED.without(Names::of(&[expr::Name::Base]))), problems)?;
    let unmade = match expr::url(&template, settings, None) {
        Ok(made) => return Some((made.text.to_string(), made.host)),
        Err(unmade) => unmade,
    };
    let hint = match &unmade {
        Unmade::Failed(failure) if failure.undefined => "set it under `vars`, or give it a `default(…)`",
        Unmade::Failed(_) => "",
        Unmade::Unfit(_) => "a value under `vars` that goes into a host is made of letters, digits, `-` and `.`",
    };
    problems.error(node.place, unmade.to_string(), hint);
    None
}
