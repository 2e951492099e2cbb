//! Sessions of consent: who asked, what for, whose browser it is, and how far it is. They live ten minutes, in memory, and
//! are bounded. A step that was taken cannot be taken again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::auth::bond::Bond;
use crate::auth::connection::Owner;
use crate::auth::consent::{Consent, Kept, Params};
use crate::error::Error;
use crate::secret::Secret;

/// How long a session lives, in milliseconds.
pub const LIFE: u64 = 10 * 60 * 1000;
/// Most sessions that were asked for, of all resources and of one.
const SESSIONS_MAX: usize = 1024;
const OF_RESOURCE_MAX: usize = 128;
/// The same for those that calls have begun which found no connection: of one client, and those of a resource at which
/// nobody has looked yet.
const OF_CLIENT_MAX: usize = 64;
const UNVISITED_MAX: usize = 16;
/// Characters of what is drawn: none that can be taken for another, each worth five bits.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Length of a session's name, and of what must not be guessed.
const NAME: usize = 12;
const UNGUESSABLE: usize = 32;

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Its name, which is no secret.
    pub id: String,
    /// Where the connection will belong.
    pub owner: Owner,
    /// What it will be called.
    pub name: Arc<str>,
    /// Whose it will be; `None`: whoever may use the resource.
    pub client: Option<Arc<str>>,
    /// Its own values of variables.
    pub vars: BTreeMap<String, String>,
    /// What ties it to the configuration under which it was asked for.
    pub bond: Bond,
    /// Where the browser lands; `None`: on a page with the code.
    pub return_url: Option<String>,
    /// How it is had.
    pub consent: Arc<dyn Consent>,
    /// Where the provider sends the browser.
    pub redirect_uri: String,
    /// When it ends, in milliseconds since 1970.
    pub until: u64,
    /// Whether a call that found no connection made it: the next such call gets the same link.
    pub mending: bool,
    /// What the link holds beside the name.
    link: Secret,
    /// Whether somebody has looked at its page.
    visited: bool,
    stage: Stage,
}

/// How far it is.
#[derive(Debug)]
enum Stage {
    /// Nobody has said yes yet.
    Waiting,
    /// The browser is at the provider.
    Away(Box<Away>),
    /// The browser is back: nothing more comes of it, but what it has brought may be pending.
    Over,
}

/// A browser that is at the provider.
#[derive(Debug)]
struct Away {
    /// What only this browser has.
    browser: Secret,
    /// What it must bring back.
    state: Secret,
    kept: Kept,
    /// What the provider has brought by itself (ruling F49).
    delivered: Option<Params>,
}

/// A browser that is back, with what it takes to go on. The session is over.
#[derive(Debug)]
pub struct Returned {
    /// What was kept meanwhile.
    pub kept: Kept,
    /// What the provider has brought by itself.
    pub delivered: Option<Params>,
}

/// Why a step cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// There is no such session, or no longer.
    Unknown,
    /// It was begun in another browser, or has come to its end.
    Used,
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions(HashMap<String, Session>);

/// What a session is made of.
pub struct New {
    /// See [`Session`], for all of these.
    pub owner: Owner,
    pub name: Arc<str>,
    pub client: Option<Arc<str>>,
    pub vars: BTreeMap<String, String>,
    pub bond: Bond,
    pub return_url: Option<String>,
    pub consent: Arc<dyn Consent>,
    pub redirect_uri: String,
    pub mending: bool,
}

impl Sessions {
    /// Begins a session and returns its name and its link's last segment.
    ///
    /// # Errors
    /// Where there are too many, or the system gives no randomness.
    pub fn begin(&mut self, new: New, now: u64) -> Result<(String, Secret), Error> {
        if new.mending {
            self.make_room(&new, now)?;
        } else {
            let alive: Vec<&Session> = self.0.values().filter(|session| now < session.until && !session.mending).collect();
            if alive.len() >= SESSIONS_MAX || alive.iter().filter(|session| session.owner == new.owner).count() >= OF_RESOURCE_MAX {
                return Err(full());
            }
        }
        let id = drawn(NAME)?.expose().to_owned();
        let link = drawn(UNGUESSABLE)?;
        let New { owner, name, client, vars, bond, return_url, consent, redirect_uri, mending } = new;
        let stage = Stage::Waiting;
        let until = now + LIFE;
        let session = Session {
            id: id.clone(),
            owner,
            name,
            client,
            vars,
            bond,
            return_url,
            consent,
            redirect_uri,
            until,
            mending,
            link: link.clone(),
            visited: false,
            stage,
        };
        self.0.insert(id.clone(), session);
        Ok((id.clone(), joined(&id, &link)))
    }

    /// Makes room for one more that a call has asked for. Callers can invent names, and go to links too: what nobody has
    /// looked at makes room first, each client has a share, and who is on the way to a provider is never cut off.
    fn make_room(&mut self, new: &New, now: u64) -> Result<(), Error> {
        let of_resource = |session: &Session| session.owner == new.owner && !matches!(session.stage, Stage::Over);
        self.hold(OF_CLIENT_MAX, now, |session| of_resource(session) && session.client == new.client)?;
        self.hold(UNVISITED_MAX, now, |session| of_resource(session) && !session.visited)?;
        self.hold(OF_RESOURCE_MAX, now, of_resource)?;
        self.hold(SESSIONS_MAX, now, |_| true)
    }

    /// Sees to it that fewer than `most` of these are alive.
    fn hold(&mut self, most: usize, now: u64, counts: impl Fn(&Session) -> bool) -> Result<(), Error> {
        let of: Vec<&Session> = self.0.values().filter(|session| session.mending && now < session.until && counts(session)).collect();
        if of.len() < most {
            return Ok(());
        }
        let idle = of.into_iter().filter(|session| matches!(session.stage, Stage::Waiting));
        let oldest = idle.min_by_key(|session| (session.visited, session.until)).map(|session| session.id.clone());
        self.0.remove(&oldest.ok_or_else(full)?);
        Ok(())
    }

    /// The link of a session that nobody has gone into yet, which a call has asked for before.
    pub fn mending(
        &self,
        owner: &Owner,
        name: &str,
        client: Option<&Arc<str>>,
        (bond, vars): (&Bond, &BTreeMap<String, String>),
        now: u64,
    ) -> Option<(&Session, Secret)> {
        let session = self.0.values().find(|session| {
            session.mending
                && session.owner == *owner
                && *session.name == *name
                && session.client.as_ref() == client
                && session.bond == *bond
                && session.vars == *vars
                && matches!(session.stage, Stage::Waiting)
                // What is about to end helps nobody.
                && now + LIFE / 2 < session.until
        })?;
        Some((session, joined(&session.id, &session.link)))
    }

    /// The session of a link, whoever comes.
    pub fn behind(&self, link: &str, now: u64) -> Option<&Session> {
        let (id, secret) = link.split_once('.')?;
        self.alive(id, now).filter(|session| session.link == Secret::new(secret.to_owned()))
    }

    /// The session of a link.
    ///
    /// # Errors
    /// Where the link leads nowhere, or belongs to another browser.
    pub fn of_link(&self, link: &str, browser: Option<&Secret>, now: u64) -> Result<&Session, Stop> {
        let session = self.behind(link, now).ok_or(Stop::Unknown)?;
        match &session.stage {
            Stage::Waiting => Ok(session),
            Stage::Away(away) if browser == Some(&away.browser) => Ok(session),
            Stage::Away(_) | Stage::Over => Err(Stop::Used),
        }
    }

    /// Somebody looks at the page behind a link.
    ///
    /// # Errors
    /// As [`Sessions::of_link`].
    pub fn visit(&mut self, link: &str, browser: Option<&Secret>, now: u64) -> Result<&Session, Stop> {
        let id = self.of_link(link, browser, now)?.id.clone();
        let session = self.0.get_mut(&id).ok_or(Stop::Unknown)?;
        session.visited = true;
        Ok(session)
    }

    /// The browser goes to the provider. Returns what it must bring back; whatever it was given before is void.
    ///
    /// # Errors
    /// As [`Sessions::of_link`].
    pub fn leave(&mut self, link: &str, browser: &Secret, now: u64) -> Result<Secret, Stop> {
        let id = self.of_link(link, Some(browser), now)?.id.clone();
        let state = drawn(UNGUESSABLE).map(|state| joined(&id, &state)).map_err(|_| Stop::Unknown)?;
        let session = self.0.get_mut(&id).ok_or(Stop::Unknown)?;
        let away = Away { browser: browser.clone(), state: state.clone(), kept: Kept::default(), delivered: None };
        session.stage = Stage::Away(Box::new(away));
        session.visited = true;
        Ok(state)
    }

    /// Keeps what is needed when the browser is back. Whether it is still the one that left.
    pub fn keep(&mut self, state: &Secret, kept: Kept) -> bool {
        match self.away(state) {
            Some(away) => {
                away.kept = kept;
                true
            }
            None => false,
        }
    }

    /// The session that a state belongs to.
    pub fn of_state(&self, state: &Secret, now: u64) -> Option<&Session> {
        let session = self.alive(state.expose().split_once('.')?.0, now)?;
        matches!(&session.stage, Stage::Away(away) if away.state == *state).then_some(session)
    }

    /// Keeps what the provider itself has brought, the first time.
    ///
    /// # Errors
    /// Where nobody waits for it.
    pub fn deliver(&mut self, state: &Secret, params: Params, now: u64) -> Result<(), Stop> {
        self.of_state(state, now).ok_or(Stop::Unknown)?;
        match self.away(state) {
            Some(away) if away.delivered.is_none() => {
                away.delivered = Some(params);
                Ok(())
            }
            _ => Err(Stop::Used),
        }
    }

    /// The browser is back. Nothing but this can be done with its session any more.
    ///
    /// # Errors
    /// Where it is another browser; the right one may still come.
    pub fn arrive(&mut self, state: &Secret, browser: Option<&Secret>, now: u64) -> Result<Returned, Stop> {
        let id = self.of_state(state, now).ok_or(Stop::Unknown)?.id.clone();
        let session = self.0.get_mut(&id).ok_or(Stop::Unknown)?;
        match std::mem::replace(&mut session.stage, Stage::Over) {
            Stage::Away(away) if browser == Some(&away.browser) => Ok(Returned { kept: away.kept, delivered: away.delivered }),
            other => {
                session.stage = other;
                Err(Stop::Used)
            }
        }
    }

    /// Ends a session of which nothing is pending: nothing is left of it.
    pub fn end(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// Forgets sessions that have ended, and returns them.
    pub fn sweep(&mut self, now: u64) -> Vec<Session> {
        let over: Vec<String> = self.0.values().filter(|session| now >= session.until).map(|session| session.id.clone()).collect();
        over.iter().filter_map(|id| self.0.remove(id)).collect()
    }

    fn alive(&self, id: &str, now: u64) -> Option<&Session> {
        self.0.get(id).filter(|session| now < session.until)
    }

    fn away(&mut self, state: &Secret) -> Option<&mut Away> {
        let session = self.0.get_mut(state.expose().split_once('.')?.0)?;
        match &mut session.stage {
            Stage::Away(away) if away.state == *state => Some(away),
            _ => None,
        }
    }
}

fn full() -> Error {
    Error::Overloaded("The room for people who connect accounts".into())
}

/// Characters that nobody can guess: five bits each.
///
/// # Errors
/// If the system gives no randomness.
pub fn drawn(length: usize) -> Result<Secret, Error> {
    let mut bytes = zeroize::Zeroizing::new(vec![0; length]);
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Internal("the system gives no random bytes".into()))?;
    Ok(Secret::new(bytes.iter().map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect()))
}

/// A name and what must not be guessed, in one text.
pub fn joined(id: &str, secret: &Secret) -> Secret {
    Secret::new([id, ".", secret.expose()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::consent::{Ask, Back, Begun, Refusal, Working};
    use crate::auth::grant::Material;
    use crate::auth::token::Minted;
    use crate::clock::Clock;

    #[derive(Debug)]
    struct Nobody;

    impl Consent for Nobody {
        fn provider(&self) -> String {
            String::new()
        }
        fn parties(&self) -> Material {
            Material::of([])
        }
        fn scopes(&self) -> Vec<String> {
            Vec::new()
        }
        fn redirect_uri(&self) -> Option<&str> {
            None
        }
        fn begin<'a>(&'a self, _: Ask<'a>) -> Working<'a, Begun> {
            Box::pin(async { Err(Refusal::Wrong("nobody".into())) })
        }
        fn finish<'a>(&'a self, _: Back<'a>) -> Working<'a, Minted> {
            Box::pin(async { Err(Refusal::Wrong("nobody".into())) })
        }
        fn revoke<'a>(&'a self, _: &'a Minted, _: &'a Clock) -> Working<'a, bool> {
            Box::pin(async { Err(Refusal::Wrong("nobody".into())) })
        }
    }

    fn mend(resource: &str, name: &str) -> New {
        New { name: name.into(), mending: true, ..new(resource) }
    }

    fn new(resource: &str) -> New {
        New {
            owner: Owner { environment: "".into(), resource: resource.into() },
            name: "a".into(),
            client: None,
            vars: BTreeMap::new(),
            bond: Bond::stored("b"),
            return_url: None,
            consent: Arc::new(Nobody),
            redirect_uri: String::new(),
            mending: false,
        }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    #[test]
    fn a_browser_goes_and_comes_back_once() {
        let mut sessions = Sessions::default();
        let (_, link) = sessions.begin(new("api"), 0).unwrap();
        let mine = secret("mine");
        let state = sessions.leave(link.expose(), &mine, 1).unwrap();
        assert!(sessions.keep(&state, Kept::default()));
        assert!(sessions.arrive(&state, Some(&mine), 2).is_ok());
        assert_eq!(sessions.arrive(&state, Some(&mine), 2).unwrap_err(), Stop::Unknown);
        assert_eq!(sessions.of_link(link.expose(), Some(&mine), 2).unwrap_err(), Stop::Used);
    }

    #[test]
    fn another_browser_neither_goes_in_nor_comes_back_and_harms_nobody() {
        let mut sessions = Sessions::default();
        let (_, link) = sessions.begin(new("api"), 0).unwrap();
        let (mine, theirs) = (secret("mine"), secret("theirs"));
        let state = sessions.leave(link.expose(), &mine, 1).unwrap();
        for other in [None, Some(&theirs)] {
            assert_eq!(sessions.of_link(link.expose(), other, 1).unwrap_err(), Stop::Used);
            assert_eq!(sessions.arrive(&state, other, 1).unwrap_err(), Stop::Used);
        }
        assert_eq!(sessions.leave(link.expose(), &theirs, 1).unwrap_err(), Stop::Used);
        assert!(sessions.arrive(&state, Some(&mine), 1).is_ok());
    }

    #[test]
    fn going_again_makes_what_was_given_before_void() {
        let mut sessions = Sessions::default();
        let (_, link) = sessions.begin(new("api"), 0).unwrap();
        let mine = secret("mine");
        let first = sessions.leave(link.expose(), &mine, 1).unwrap();
        let second = sessions.leave(link.expose(), &mine, 1).unwrap();
        assert!(!sessions.keep(&first, Kept::default()));
        assert_eq!(sessions.arrive(&first, Some(&mine), 1).unwrap_err(), Stop::Unknown);
        assert!(sessions.arrive(&second, Some(&mine), 1).is_ok());
    }

    #[test]
    fn after_ten_minutes_there_is_nothing() {
        let mut sessions = Sessions::default();
        let (id, link) = sessions.begin(new("api"), 0).unwrap();
        let mine = secret("mine");
        let state = sessions.leave(link.expose(), &mine, LIFE - 1).unwrap();
        assert_eq!(sessions.of_link(link.expose(), Some(&mine), LIFE).unwrap_err(), Stop::Unknown);
        assert_eq!(sessions.arrive(&state, Some(&mine), LIFE).unwrap_err(), Stop::Unknown);
        assert_eq!(sessions.sweep(LIFE).into_iter().map(|session| session.id).collect::<Vec<_>>(), [id]);
    }

    #[test]
    fn what_is_not_quite_the_link_or_the_state_leads_nowhere() {
        let mut sessions = Sessions::default();
        let (id, link) = sessions.begin(new("api"), 0).unwrap();
        let mine = secret("mine");
        for wrong in ["", ".", &id, &format!("{id}."), &format!("{id}.x"), &link.expose()[1..], &format!("{}x", link.expose())] {
            assert_eq!(sessions.of_link(wrong, None, 1).unwrap_err(), Stop::Unknown, "{wrong}");
        }
        let state = sessions.leave(link.expose(), &mine, 1).unwrap();
        for wrong in ["", ".", &id, link.expose(), &state.expose()[1..]] {
            assert_eq!(sessions.arrive(&secret(wrong), Some(&mine), 1).unwrap_err(), Stop::Unknown, "{wrong}");
        }
    }

    #[test]
    fn what_the_provider_brings_is_kept_once_and_only_where_somebody_waits() {
        let mut sessions = Sessions::default();
        let (_, link) = sessions.begin(new("api"), 0).unwrap();
        let (mine, params) = (secret("mine"), || Params::read("code=c").unwrap());
        assert!(sessions.deliver(&secret("a.b"), params(), 1).is_err());
        let state = sessions.leave(link.expose(), &mine, 1).unwrap();
        assert!(sessions.deliver(&state, params(), 1).is_ok());
        assert_eq!(sessions.deliver(&state, params(), 1).unwrap_err(), Stop::Used);
        assert!(sessions.arrive(&state, Some(&mine), 1).unwrap().delivered.is_some());
    }

    #[test]
    fn sessions_are_bounded_and_one_resource_leaves_room_for_others() {
        let mut sessions = Sessions::default();
        (0..OF_RESOURCE_MAX).for_each(|_| drop(sessions.begin(new("api"), 0).unwrap()));
        assert!(matches!(sessions.begin(new("api"), 0), Err(Error::Overloaded(_))));
        for resource in 1.. {
            if sessions.0.len() == SESSIONS_MAX {
                break;
            }
            sessions.begin(new(&format!("r{resource}")), 0).unwrap();
        }
        assert!(matches!(sessions.begin(new("other"), 0), Err(Error::Overloaded(_))));
        assert!(sessions.begin(new("other"), LIFE).is_ok());
    }

    #[test]
    fn callers_who_invent_names_neither_fill_the_room_nor_push_out_who_is_on_the_way() {
        let mut sessions = Sessions::default();
        let (_, link) = sessions.begin(mend("api", "first"), 0).unwrap();
        sessions.leave(link.expose(), &secret("mine"), 1).unwrap();
        for name in 0..1000 {
            sessions.begin(mend("api", &name.to_string()), 1).unwrap();
        }
        assert_eq!(sessions.0.len(), 1 + UNVISITED_MAX);
        assert!(sessions.of_link(link.expose(), Some(&secret("mine")), 1).is_ok());
        assert!(sessions.begin(new("api"), 1).is_ok());
    }

    #[test]
    fn calls_that_find_no_connection_share_one_link_until_somebody_uses_it() {
        let mut sessions = Sessions::default();
        let owner = new("api").owner;
        let (bond, vars) = (Bond::stored("b"), BTreeMap::new());
        let (_, link) = sessions.begin(mend("api", "a"), 0).unwrap();
        assert!(sessions.mending(&owner, "a", None, (&bond, &vars), 1).is_some_and(|(_, found)| found == link));
        assert!(sessions.mending(&owner, "b", None, (&bond, &vars), 1).is_none());
        assert!(sessions.mending(&owner, "a", Some(&"c".into()), (&bond, &vars), 1).is_none());
        assert!(sessions.mending(&owner, "a", None, (&bond, &vars), LIFE / 2).is_none());
        // Nor one that was begun under another configuration, or for an account with other variables.
        assert!(sessions.mending(&owner, "a", None, (&Bond::stored("c"), &vars), 1).is_none());
        assert!(sessions.mending(&owner, "a", None, (&bond, &[("t".into(), "x".into())].into()), 1).is_none());
        sessions.leave(link.expose(), &secret("mine"), 1).unwrap();
        assert!(sessions.mending(&owner, "a", None, (&bond, &vars), 1).is_none());
    }

    #[test]
    fn callers_who_invent_names_do_not_take_away_the_page_that_a_person_is_reading() {
        let mut sessions = Sessions::default();
        let (_, link) = sessions.begin(mend("api", "first"), 0).unwrap();
        sessions.visit(link.expose(), None, 1).unwrap();
        for name in 0..1000 {
            sessions.begin(mend("api", &name.to_string()), 1).unwrap();
        }
        assert!(sessions.of_link(link.expose(), None, 1).is_ok());
        assert_eq!(sessions.0.len(), 1 + UNVISITED_MAX);
    }

    #[test]
    fn who_opens_links_without_end_takes_none_from_other_clients() {
        let mut sessions = Sessions::default();
        let of = |client: &str, name: usize| New { client: Some(client.into()), ..mend("api", &name.to_string()) };
        let (_, link) = sessions.begin(of("honest", 0), 0).unwrap();
        sessions.visit(link.expose(), None, 1).unwrap();
        for name in 0..1000 {
            let (_, theirs) = sessions.begin(of("busy", name), 1).unwrap();
            sessions.visit(theirs.expose(), None, 1).unwrap();
        }
        assert_eq!(sessions.0.len(), 1 + OF_CLIENT_MAX);
        assert!(sessions.of_link(link.expose(), None, 1).is_ok());
        // Nor does going on to the provider, which nobody cuts off: only the same client finds no room any more.
        for name in 0..OF_CLIENT_MAX {
            let (_, theirs) = sessions.begin(of("busy", 1000 + name), 1).unwrap();
            sessions.leave(theirs.expose(), &secret("b"), 1).unwrap();
        }
        assert!(matches!(sessions.begin(of("busy", 5000), 1), Err(Error::Overloaded(_))));
        assert!(sessions.begin(of("honest", 1), 1).is_ok());
    }

    #[test]
    fn links_that_were_opened_and_cancelled_leave_room_at_once() {
        let mut sessions = Sessions::default();
        for name in 0..1000 {
            let (id, link) = sessions.begin(mend("api", &name.to_string()), 1).unwrap();
            sessions.leave(link.expose(), &secret("b"), 1).unwrap();
            sessions.end(&id);
        }
        assert!(sessions.0.is_empty());
    }
}
