//! Fetches what references ask for from the sources that are not at hand: each thing once, several at a time, bounded in
//! number and time, in the background; and again at an interval. What had a value keeps it while its source gives none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::ask::{Answers, Ask, Document, Item, Kind, Trouble};
use super::settings::Settings;
use super::{aws, exec, vault};
use crate::digest::Digest;
use crate::net::Background;
use crate::secret::Secret;

/// Most things that one configuration may fetch.
const ITEMS_MAX: usize = 1000;
/// Most commands among them.
const COMMANDS_MAX: usize = 64;
/// How many are fetched at a time.
const AT_A_TIME: usize = 8;
/// How long a configuration waits for all of them.
const WHOLE: Duration = Duration::from_secs(60);
/// After a failure it is tried again so soon, then after twice the time, and so on up to the interval.
const RETRY: Duration = Duration::from_secs(5);

/// The sources that are not at hand. Clones share what they hold.
#[derive(Clone, Debug, Default)]
pub struct Remote(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    background: Mutex<Option<Background>>,
}

#[derive(Debug, Default)]
struct State {
    items: HashMap<Item, Held>,
    settings: Option<Arc<Settings>>,
    session: Arc<vault::Session>,
    /// When the token of the Vault has to be renewed.
    renew: Option<Instant>,
    /// Whether a refresh is under way.
    refreshing: bool,
    /// By reference, what serves on with its last good value, and why.
    stale: BTreeMap<String, String>,
    /// The references of the configuration that was read last.
    asked: BTreeSet<Ask>,
}

/// What was fetched, and when it is to be fetched again.
#[derive(Debug)]
struct Held {
    /// The last good one.
    document: Option<Document>,
    /// Why there is none, or no newer one.
    trouble: Option<Trouble>,
    failures: u32,
    due: Instant,
    /// Settings of the source that the document came from.
    settings: Option<Digest>,
}

type Fetched = Vec<(Item, Result<Document, Trouble>)>;

impl Remote {
    /// What the references come to. What is held and not yet due is not fetched again, unless `anew` says so.
    pub fn answers(&self, asked: BTreeSet<Ask>, settings: Settings, anew: Anew) -> Answers {
        let (wanted, settings) = {
            let mut state = self.state();
            let settings = state.adopt(settings);
            let items: BTreeSet<Item> = asked.iter().map(|ask| ask.item.clone()).collect();
            let wanted = items.into_iter().filter(|item| anew == Anew::All || !state.is_fresh(item, &settings)).collect();
            (wanted, settings)
        };
        self.fetch(wanted, &settings);
        let mut state = self.state();
        let answers = asked.iter().map(|ask| (ask.clone(), state.answer(ask))).collect();
        state.asked = asked;
        answers
    }

    /// Forgets what the configuration that was read last does not ask for.
    pub fn forget(&self) {
        let State { items, asked, stale, .. } = &mut *self.state();
        items.retain(|item, _| asked.iter().any(|ask| ask.item == *item));
        stale.retain(|reference, _| asked.iter().any(|ask| ask.to_string() == *reference));
    }

    /// What serves on with its last good value, and why.
    pub fn stale(&self) -> Vec<(String, String)> {
        self.state().stale.iter().map(|(reference, why)| (reference.clone(), why.clone())).collect()
    }

    /// When something has to be fetched again; `None` where there is nothing, or it is under way.
    pub fn due(&self) -> Option<Instant> {
        let state = self.state();
        if state.refreshing || state.asked.is_empty() {
            return None;
        }
        let items = state.asked.iter().filter_map(|ask| state.items.get(&ask.item)).map(|held| held.due);
        items.chain(state.renew).min()
    }

    /// Fetches again what is due, without waiting for it. `told` is called if any value is another.
    pub fn refresh(&self, told: impl FnOnce() + Send + 'static) {
        let now = Instant::now();
        let (wanted, settings) = {
            let mut state = self.state();
            let Some(settings) = state.settings.clone().filter(|_| !state.refreshing) else { return };
            state.refreshing = true;
            let due = |item: &Item| state.items.get(item).is_none_or(|held| held.due <= now);
            let wanted: Vec<Item> = state.asked.iter().map(|ask| &ask.item).filter(|item| due(item)).cloned().collect();
            (wanted, settings)
        };
        let remote = self.clone();
        let session = self.state().session.clone();
        let begun = self.background().and_then(|background| {
            background
                .spawn(move || async move {
                    let refreshing = Refreshing(remote);
                    let fetched = fetch_all(wanted, &settings, &session).await;
                    let renew = keep(&settings, &session).await;
                    let changed = refreshing.0.take(fetched, renew, &settings);
                    drop(refreshing);
                    if changed {
                        told();
                    }
                })
                .map_err(|error| error.cause().into_owned())
        });
        if let Err(why) = begun {
            tracing::error!("secrets cannot be fetched: {why}");
            self.state().refreshing = false;
        }
    }

    /// Fetches, and waits for it.
    fn fetch(&self, wanted: Vec<Item>, settings: &Arc<Settings>) {
        if wanted.is_empty() {
            return;
        }
        let (give, given) = mpsc::channel();
        let (items, theirs, session) = (wanted.clone(), settings.clone(), self.state().session.clone());
        let begun = self.background().and_then(|background| {
            background
                .spawn(move || async move {
                    let fetched = fetch_all(items, &theirs, &session).await;
                    let renew = keep(&theirs, &session).await;
                    let _ = give.send((fetched, renew));
                })
                .map_err(|error| error.cause().into_owned())
        });
        let (fetched, renew) = match begun.map(|()| given.recv_timeout(WHOLE)) {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(_)) => (all_failed(wanted, "all that is to be fetched took more than a minute"), None),
            Err(why) => (all_failed(wanted, &why), None),
        };
        self.take(fetched, renew, settings);
    }

    /// Keeps what was fetched. Whether any value is another than before.
    fn take(&self, fetched: Fetched, renew: Option<Instant>, settings: &Settings) -> bool {
        let mut state = self.state();
        // A token that cannot be renewed is not asked for without a pause.
        state.renew = renew.map(|renew| renew.max(Instant::now() + RETRY));
        let mut changed = false;
        for (item, result) in fetched {
            changed |= state.keep(item, result, settings);
        }
        changed
    }

    fn background(&self) -> Result<Background, String> {
        let mut background = self.0.background.lock().unwrap_or_else(PoisonError::into_inner);
        if background.is_none() {
            *background = Some(Background::start().map_err(|error| error.to_string())?);
        }
        background.clone().ok_or_else(|| "there is no background".into())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A refresh is over, however it ends.
struct Refreshing(Remote);

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.state().refreshing = false;
    }
}

/// What is fetched though it is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anew {
    /// What is due.
    #[default]
    Due,
    /// Everything.
    All,
}

impl State {
    /// Takes these settings. Connections stay where nothing about them has changed; a token of another Vault, or of another
    /// login, is given up.
    fn adopt(&mut self, mut settings: Settings) -> Arc<Settings> {
        let same = |kind| self.settings.as_deref().and_then(|old| old.digest(kind)) == settings.digest(kind);
        let (vault, aws) = (same(Kind::Vault), same(Kind::AwsSm));
        if let Some(old) = &self.settings {
            if let (true, Ok(new), Ok(old)) = (vault, &mut settings.vault, &old.vault) {
                new.upstream = old.upstream.clone();
            }
            if let (true, Ok(new), Ok(old)) = (aws, &mut settings.aws, &old.aws) {
                new.upstream = old.upstream.clone();
            }
        }
        if !vault {
            self.session = Arc::default();
            self.renew = None;
        }
        let settings = Arc::new(settings);
        self.settings = Some(settings.clone());
        settings
    }

    fn is_fresh(&self, item: &Item, settings: &Settings) -> bool {
        self.items
            .get(item)
            .is_some_and(|held| held.document.is_some() && held.due > Instant::now() && held.settings == settings.digest(item.kind))
    }

    fn keep(&mut self, item: Item, result: Result<Document, Trouble>, settings: &Settings) -> bool {
        let (kind, interval) = (item.kind, settings.refresh(item.kind));
        let held = self.items.entry(item).or_insert_with(|| Held {
            document: None,
            trouble: None,
            failures: 0,
            due: Instant::now(),
            settings: None,
        });
        match result {
            Ok(document) => {
                held.settings = settings.digest(kind);
                (held.failures, held.due) = (0, Instant::now() + interval);
                // What was in trouble has to be looked at again, if only to say that it is over.
                let changed = held.trouble.take().is_some() || held.document.as_ref() != Some(&document);
                held.document = Some(document);
                changed
            }
            Err(trouble) => {
                let wait = RETRY.saturating_mul(1 << held.failures.min(16)).min(interval);
                (held.failures, held.due) = (held.failures + 1, Instant::now() + wait);
                held.trouble.replace(trouble).is_none()
            }
        }
    }

    fn answer(&mut self, ask: &Ask) -> Result<Secret, Trouble> {
        let Some(held) = self.items.get(&ask.item) else { return Err(Trouble::new("it was not fetched", "")) };
        // What another source gave is no value of this one, however good it was: it may be for another place.
        let current = self.settings.as_deref().and_then(|settings| settings.digest(ask.item.kind));
        let value = match (held.document.as_ref().filter(|_| held.settings == current), &held.trouble) {
            (Some(document), _) => ask.pick(document),
            (None, Some(trouble)) => Err(trouble.clone()),
            (None, None) => Err(Trouble::new("it was not fetched", "")),
        };
        let reference = ask.to_string();
        match &held.trouble {
            Some(trouble) if value.is_ok() => {
                if self.stale.insert(reference.clone(), trouble.why.clone()).is_none() {
                    tracing::error!("{reference} has no value any more ({}); its last good one is used until it has", trouble.why);
                }
            }
            _ => {
                if self.stale.remove(&reference).is_some() && value.is_ok() {
                    tracing::info!("{reference} has a value again");
                }
            }
        }
        value
    }
}

/// Several at a time, within the bounds of number.
async fn fetch_all(items: Vec<Item>, settings: &Arc<Settings>, session: &Arc<vault::Session>) -> Fetched {
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut work = tokio::task::JoinSet::new();
    let mut fetched = Vec::with_capacity(items.len());
    let mut commands = 0;
    for (number, item) in items.into_iter().enumerate() {
        commands += usize::from(item.kind == Kind::Exec);
        if number >= ITEMS_MAX || (item.kind == Kind::Exec && commands > COMMANDS_MAX) {
            let why = format!("more than {ITEMS_MAX} secrets or {COMMANDS_MAX} commands are to be fetched");
            fetched.push((item, Err(Trouble::new(why, "several references may name fields of one secret"))));
            continue;
        }
        let (places, settings, session) = (places.clone(), settings.clone(), session.clone());
        work.spawn_local(async move {
            let _place = places.acquire().await;
            let result = fetch(&item, &settings, &session).await;
            (item, result)
        });
    }
    while let Some(done) = work.join_next().await {
        match done {
            Ok(one) => fetched.push(one),
            Err(error) => tracing::error!("fetching a secret ended early: {error}"),
        }
    }
    fetched
}

async fn fetch(item: &Item, settings: &Settings, session: &vault::Session) -> Result<Document, Trouble> {
    match item.kind {
        Kind::Exec => exec::fetch(&item.id, &settings.exec).await,
        Kind::Vault => session.fetch(&item.id, settings.vault.as_ref().map_err(Clone::clone)?).await,
        Kind::AwsSm => aws::fetch(&item.id, settings.aws.as_ref().map_err(Clone::clone)?).await,
    }
}

async fn keep(settings: &Settings, session: &vault::Session) -> Option<Instant> {
    session.keep(settings.vault.as_ref().ok()?).await
}

fn all_failed(items: Vec<Item>, why: &str) -> Fetched {
    items.into_iter().map(|item| (item, Err(Trouble::new(why, "")))).collect()
}
