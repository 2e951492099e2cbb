//! Connections: accounts of a resource, each put there by a person's consent (product, section 6). Which there are, whose
//! they are, and how they come and go. A connection's token lives in a grant of its own, whose first record is written
//! here; how it goes on is `grant.rs`. How consent is had is no affair of this file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::auth::bond::Bond;
use crate::auth::fingerprint::Fingerprint;
use crate::auth::grant::{Grant, Material, Over, Tokens};
use crate::auth::record;
use crate::auth::token::Minted;
use crate::call::Account;
use crate::error::Error;
use crate::store::{self, Sealed};

/// The connection of a resource that has one account only (ruling G10).
pub const DEFAULT: &str = "default";
/// Longest name of a connection.
const NAME_MAX: usize = 64;
/// Most connections of a process.
const CONNECTIONS_MAX: usize = 100_000;
/// Most variables of a connection, and the longest name and value of one.
const VARS_MAX: usize = 32;
const VAR_MAX: usize = 1024;
/// What records are about: connections, and what their grants have.
const CONNECTION: &str = "connection";
pub(super) const CONSENTED: &str = "consented";

/// Whether a connection can have this name: it goes through headers, paths, pages and logs, so there is nothing in it
/// that means anything to any of them.
pub fn is_name(name: &str) -> bool {
    let first = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    first && name.len() <= NAME_MAX && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@+".contains(&b))
}

/// Whether these can be the variables of a connection.
pub fn are_vars(vars: &BTreeMap<String, String>) -> bool {
    let named = |name: &str| !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    vars.len() <= VARS_MAX && vars.iter().all(|(n, v)| named(n) && v.len() <= VAR_MAX && !v.chars().any(char::is_control))
}

/// Where connections belong: a resource in an environment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The environment; empty where there is none.
    pub environment: Arc<str>,
    /// The resource.
    pub resource: Arc<str>,
}

/// A connection that is to be.
#[derive(Debug)]
pub struct New {
    /// Where it belongs.
    pub owner: Owner,
    /// Its name.
    pub name: Arc<str>,
    /// Whose it is; `None`: whoever may use the resource.
    pub client: Option<Arc<str>>,
    /// Its own values of variables.
    pub vars: BTreeMap<String, String>,
    /// What ties it to the configuration that it was made with.
    pub bond: Bond,
}

/// What an [`Account`] holds: the way to its tokens.
#[derive(Debug)]
pub struct Connection {
    owner: Owner,
    /// Tells one consent from the next under the same name, so that what is under way for one never serves the other.
    id: String,
    since: u64,
    /// `None`: it was stored by a version that did not say, and so belongs to nobody that is known.
    bond: Option<Bond>,
    material: Material,
    identity: Arc<str>,
    grant: OnceLock<Arc<Grant>>,
    /// Whether it was taken away.
    over: Over,
    /// What the issuer gave, where that never changes.
    given: OnceLock<Arc<Minted>>,
}

/// A connection as people may see it.
#[derive(Debug)]
pub struct View {
    /// Where it belongs.
    pub owner: Owner,
    /// The account.
    pub account: Arc<Account>,
    /// When a person consented, in milliseconds since 1970.
    pub since: u64,
    /// The word for the state of its token, where a call has asked for one.
    pub state: Option<&'static str>,
}

/// A connection that was taken away.
#[derive(Debug)]
pub struct Gone {
    /// The account.
    pub account: Arc<Account>,
    /// What its issuer gave last.
    pub minted: Option<Minted>,
}

/// The connections of one resource. Looked at by every call, and swapped whole.
#[derive(Debug, Default)]
pub struct Shelf(ArcSwap<HashMap<Box<str>, Arc<Account>>>);

impl Shelf {
    /// The connection of this name.
    pub fn find(&self, name: &str) -> Option<Arc<Account>> {
        self.0.load().get(name).cloned()
    }

    /// Those whose life has begun.
    pub(super) fn begun(&self) -> Vec<Arc<Grant>> {
        self.0.load().values().filter_map(|account| Connection::of(account)?.begun().cloned()).collect()
    }

    fn all(&self) -> Vec<Arc<Account>> {
        let mut all: Vec<_> = self.0.load().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn change(&self, change: impl Fn(&mut HashMap<Box<str>, Arc<Account>>)) {
        self.0.rcu(|map| {
            let mut map = HashMap::clone(map);
            change(&mut map);
            map
        });
    }
}

/// Makes the links by which a person mends a connection.
pub trait Links: std::fmt::Debug + Send + Sync {
    /// A link for this connection, which will be this client's; `None` where there can be none now.
    fn link(&self, owner: &Owner, name: &Arc<str>, client: Option<&Arc<str>>) -> Option<String>;
}

/// All connections of the process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Rooms>);

#[derive(Debug, Default)]
struct Rooms {
    store: OnceLock<Arc<Sealed>>,
    links: OnceLock<Weak<dyn Links>>,
    shelves: Mutex<HashMap<Owner, Arc<Shelf>>>,
    /// Held by whoever redeems: what is redeemed is redeemed once.
    redeeming: Mutex<()>,
    /// Held by whoever writes, so that what is stored and what is shown change in the same order.
    writing: Mutex<()>,
}

impl Connection {
    /// The connection behind an account.
    pub fn of(account: &Account) -> Option<&Self> {
        account.held.downcast_ref()
    }

    /// The fingerprint of its credential, as in audit records.
    pub fn identity(&self) -> &Arc<str> {
        &self.identity
    }

    /// Its grant, begun by the first who asks.
    pub(super) fn grant(&self, begin: impl FnOnce(&Material, Arc<str>, Over) -> Grant) -> &Arc<Grant> {
        self.grant.get_or_init(|| Arc::new(begin(&self.material, self.identity.clone(), self.over.clone())))
    }

    /// Its grant, where there is one already.
    pub fn begun(&self) -> Option<&Arc<Grant>> {
        self.grant.get()
    }

    /// Whether it was made with what this ties together.
    pub fn is_tied_by(&self, bond: &Bond) -> bool {
        self.bond.as_ref() == Some(bond)
    }

    fn new(owner: Owner, name: &str, id: String, since: u64, bond: Option<Bond>) -> Self {
        let parts = [CONNECTION, &owner.environment, &owner.resource, name, &id];
        let material = Material::of(parts.map(str::as_bytes));
        // Without the system's randomness no configuration with a scheme is read, so this is never empty.
        let identity = Fingerprint::keyed().map_or_else(|| "".into(), |fingerprint| fingerprint.of([material.bytes()]));
        Self { owner, id, since, bond, material, identity, grant: OnceLock::new(), over: Over::default(), given: OnceLock::new() }
    }
}

impl Connections {
    /// Takes up what the store has, at `now` in milliseconds since 1970. What cannot be read is said and left out: nothing is presented for it.
    ///
    /// # Errors
    /// If the store cannot be read at all.
    pub fn open(&self, store: &Arc<Sealed>, now: u64) -> Result<(), store::Failure> {
        let _ = self.0.store.set(store.clone());
        let mut kept = HashSet::new();
        let mut found: HashMap<Owner, HashMap<Box<str>, Arc<Account>>> = HashMap::new();
        let names = store.names()?;
        let mut whole = true;
        for name in names.iter().filter(|name| is_of(name, CONNECTION)) {
            let opened = store.read(name).map(|record| record.and_then(|record| read(&record)));
            let (owner, account) = match opened {
                Ok(Some((owner, account))) if place(store, &owner, &account.name) == *name => (owner, account),
                other => {
                    let why = other.err().map_or_else(|| "it is no connection".to_owned(), |error| error.to_string());
                    tracing::error!("the record {name} is left out, and its account must be connected anew: {why}");
                    whole = false;
                    continue;
                }
            };
            if let Some(connection) = Connection::of(&account) {
                kept.insert(store.name(CONSENTED, [connection.material.bytes()]));
            }
            found.entry(owner).or_default().insert((*account.name).into(), account);
        }
        // Each map is stored once: a copy for each of its connections would take hours for as many as there may be.
        for (owner, accounts) in found {
            self.shelf(&owner).0.store(Arc::new(accounts));
        }
        Self::sweep(store, &names, now);
        // A crash between two writes leaves a grant without a connection, which nothing will ever ask for.
        // Where a connection could not be read, nobody knows which one that is.
        for name in names.iter().filter(|name| whole && is_of(name, CONSENTED) && !kept.contains(*name)) {
            store.remove(name)?;
        }
        Ok(())
    }

    /// From now on these links mend connections. The second time changes nothing.
    pub fn link_by(&self, links: Weak<dyn Links>) {
        let _ = self.0.links.set(links);
    }

    /// A link by which a person mends this connection, where there can be one.
    pub fn link(&self, owner: &Owner, name: &Arc<str>, client: Option<&Arc<str>>) -> Option<String> {
        self.0.links.get()?.upgrade()?.link(owner, name, client)
    }

    /// Where the connections of a resource are found.
    pub fn shelf(&self, owner: &Owner) -> Arc<Shelf> {
        lock(&self.0.shelves).entry(owner.clone()).or_default().clone()
    }

    /// All of one resource, or all there are, by name.
    pub fn views(&self, tokens: &Tokens) -> Vec<View> {
        let now = tokens.clock().millis();
        let shelves: Vec<(Owner, Arc<Shelf>)> = lock(&self.0.shelves).iter().map(|(o, s)| (o.clone(), s.clone())).collect();
        let mut views: Vec<View> = shelves.iter().flat_map(|(owner, shelf)| shelf.all().into_iter().map(|a| view(owner, a, now))).collect();
        views.sort_by(|a, b| {
            (&a.owner.environment, &a.owner.resource, &a.account.name).cmp(&(&b.owner.environment, &b.owner.resource, &b.account.name))
        });
        views
    }

    /// Stores a connection and what its issuer gave, and only then shows it. One of the same name that is the same
    /// client's is replaced. Waits for the disk.
    ///
    /// # Errors
    /// If it cannot be stored, there are too many, or the name is another client's.
    pub fn put(&self, new: New, minted: &Minted, now: u64) -> Result<Arc<Account>, Error> {
        let store = self.store()?;
        let _writing = lock(&self.0.writing);
        let shelf = self.shelf(&new.owner);
        let before = shelf.find(&new.name);
        if before.as_ref().is_some_and(|before| before.client != new.client) {
            return Err(Error::Forbidden("The connection is another client's.".into(), "Choose another name for it.".into()));
        }
        if before.is_none() && self.count() >= CONNECTIONS_MAX {
            return Err(Error::Overloaded("The store of connections".into()));
        }
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| Error::Internal("the system gives no random bytes".into()))?;
        let id = id.iter().map(|b| format!("{b:02x}")).collect();
        let connection = Connection::new(new.owner.clone(), &new.name, id, now, Some(new.bond));
        let account = Account { name: new.name, client: new.client, vars: new.vars, held: Box::new(connection) };
        let account = Arc::new(account);
        let connection = Connection::of(&account).ok_or_else(|| Error::Internal("an account without a connection".into()))?;
        // The grant first: a connection that is there has what it needs.
        store.write(&store.name(CONSENTED, [connection.material.bytes()]), &record::write(Some(minted), record::Stage::Settled))?;
        store.write(&place(&store, &new.owner, &account.name), &written(&account, connection))?;
        shelf.change(|map| drop(map.insert((*account.name).into(), account.clone())));
        if let Some(before) = before.as_deref().and_then(Connection::of) {
            forget(&store, before);
        }
        Ok(account)
    }

    /// What a connection's issuer gave, for schemes whose tokens have no life: nothing renews them.
    ///
    /// # Errors
    /// If it is not there, or cannot be read.
    pub async fn given(&self, account: &Arc<Account>) -> Result<Arc<Minted>, Error> {
        let connection = Connection::of(account).ok_or_else(|| Error::Internal("a call names no account".into()))?;
        if let Some(given) = connection.given.get() {
            return Ok(given.clone());
        }
        let store = self.store()?;
        let name = store.name(CONSENTED, [connection.material.bytes()]);
        let record = crate::auth::grant::blocking(move || store.read(&name)).await?;
        let minted = record.and_then(|record| record::read(&record)).map(|(minted, _)| minted);
        let minted = minted.ok_or_else(|| Error::Internal("a connection has lost its record".into()))?;
        Ok(connection.given.get_or_init(|| Arc::new(minted)).clone())
    }

    /// Takes a connection away and returns it with what its issuer gave last, as it is stored: a renewal that is under way
    /// may bring more. Waits for the disk.
    ///
    /// # Errors
    /// If the store cannot be read or written; then it is still there.
    pub fn remove(&self, owner: &Owner, name: &str) -> Result<Option<Gone>, Error> {
        let store = self.store()?;
        let _writing = lock(&self.0.writing);
        let shelf = self.shelf(owner);
        let Some(account) = shelf.find(name) else { return Ok(None) };
        let Some(connection) = Connection::of(&account) else { return Ok(None) };
        let minted = store.read(&store.name(CONSENTED, [connection.material.bytes()]))?.and_then(|record| Some(record::read(&record)?.0));
        store.remove(&place(&store, owner, name))?;
        shelf.change(|map| drop(map.remove(name)));
        forget(&store, connection);
        Ok(Some(Gone { account, minted }))
    }

    /// The store.
    ///
    /// # Errors
    /// Where nothing outlives the process.
    pub fn store(&self) -> Result<Arc<Sealed>, Error> {
        self.0.store.get().cloned().ok_or_else(|| Error::StoreUnavailable("connections need a store that outlives the process".into()))
    }

    pub(super) fn redeeming(&self) -> MutexGuard<'_, ()> {
        lock(&self.0.redeeming)
    }

    fn count(&self) -> usize {
        lock(&self.0.shelves).values().map(|shelf| shelf.0.load().len()).sum()
    }
}

fn view(owner: &Owner, account: Arc<Account>, now: u64) -> View {
    let connection = Connection::of(&account);
    let state = connection.and_then(Connection::begun).map(|grant| grant.state(now).word());
    View { owner: owner.clone(), since: connection.map_or(0, |c| c.since), state, account }
}

/// Takes away what a connection's grant has stored, and lets it store no more: also what calls that hold it still begin. What is left for want of a disk goes at the next start.
fn forget(store: &Sealed, connection: &Connection) {
    *lock(&connection.over) = true;
    if let Err(error) = store.remove(&store.name(CONSENTED, [connection.material.bytes()])) {
        tracing::warn!("what a connection to {} had could not be removed yet: {error}", connection.owner.resource);
    }
}

fn is_of(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('/'))
}

/// The name of a connection's record, which the seal binds to its content: none can be put in another's place.
fn place(store: &Sealed, owner: &Owner, name: &str) -> String {
    store.name(CONNECTION, [owner.environment.as_bytes(), owner.resource.as_bytes(), name.as_bytes()])
}

fn written(account: &Account, connection: &Connection) -> Zeroizing<Vec<u8>> {
    let record = json!({
        "version": 1,
        "environment": &*connection.owner.environment,
        "resource": &*connection.owner.resource,
        "connection": &*account.name,
        "client": account.client.as_deref(),
        "vars": &account.vars,
        "id": connection.id,
        "since": connection.since,
        "bond": connection.bond.as_ref().map(Bond::text),
    });
    Zeroizing::new(record.to_string().into_bytes())
}

fn read(bytes: &[u8]) -> Option<(Owner, Arc<Account>)> {
    let record: Value = serde_json::from_slice(bytes).ok()?;
    let text = |name: &str| record.get(name).and_then(Value::as_str);
    let owner = Owner { environment: text("environment")?.into(), resource: text("resource")?.into() };
    let name = text("connection").filter(|name| is_name(name))?;
    let vars = record.get("vars").and_then(Value::as_object).into_iter().flatten();
    let vars = vars.filter_map(|(n, v)| Some((n.clone(), v.as_str()?.to_owned()))).collect();
    let since = record.get("since").and_then(Value::as_u64)?;
    let connection = Connection::new(owner.clone(), name, text("id")?.to_owned(), since, text("bond").map(Bond::stored));
    let account = Account { name: name.into(), client: text("client").map(Into::into), vars, held: Box::new(connection) };
    Some((owner, Arc::new(account)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::secret::Secret;
    use crate::store::{File, MasterKey, Records};

    fn owner(resource: &str) -> Owner {
        Owner { environment: "".into(), resource: resource.into() }
    }

    fn new(resource: &str, name: &str, client: Option<&str>) -> New {
        New {
            owner: owner(resource),
            name: name.into(),
            client: client.map(Into::into),
            vars: [("tenant".to_owned(), "acme".to_owned())].into(),
            bond: Bond::stored("b"),
        }
    }

    fn minted(token: &str) -> Minted {
        Minted { access: Some(Secret::new(token.into())), refresh: Some(Secret::new("r".into())), ..Minted::default() }
    }

    fn opened(folder: &std::path::Path, keys: &[u8]) -> (Connections, Arc<Sealed>) {
        let keys = keys.iter().map(|n| MasterKey::new(&[*n; 32]).unwrap()).collect();
        let store = Arc::new(Sealed::open(Box::new(File::open(folder).unwrap()), keys).unwrap());
        let connections = Connections::default();
        connections.open(&store, 0).unwrap();
        (connections, store)
    }

    fn names(connections: &Connections) -> Vec<String> {
        connections.views(&Tokens::new(Clock::manual(0))).iter().map(|v| format!("{}/{}", v.owner.resource, v.account.name)).collect()
    }

    #[test]
    fn a_connection_is_there_after_a_restart_with_its_client_and_variables() {
        let folder = tempfile::tempdir().unwrap();
        opened(folder.path(), &[1]).0.put(new("api", "team", Some("billing")), &minted("t"), 7).unwrap();
        let (connections, _) = opened(folder.path(), &[1]);
        let account = connections.shelf(&owner("api")).find("team").unwrap();
        assert_eq!((account.client.as_deref(), account.vars["tenant"].as_str()), (Some("billing"), "acme"));
        assert_eq!(connections.views(&Tokens::new(Clock::manual(0)))[0].since, 7);
        assert!(connections.shelf(&owner("other")).find("team").is_none());
    }

    #[test]
    fn a_connection_is_tied_to_those_it_was_made_with_and_one_that_does_not_say_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (connections, store) = opened(folder.path(), &[1]);
        let account = connections.put(new("api", "a", None), &minted("t"), 0).unwrap();
        let record = String::from_utf8(written(&account, Connection::of(&account).unwrap()).to_vec()).unwrap();
        store
            .write(&place(&store, &owner("api"), "old"), record.replace(r#","bond":"b""#, "").replace(r#""a""#, r#""old""#).as_bytes())
            .unwrap();
        drop((connections, store));
        let (connections, _) = opened(folder.path(), &[1]);
        let tied = |name: &str, bond: &str| {
            let account = connections.shelf(&owner("api")).find(name).unwrap();
            Connection::of(&account).unwrap().is_tied_by(&Bond::stored(bond))
        };
        assert_eq!((tied("a", "b"), tied("a", "c"), tied("old", "b")), (true, false, false));
    }

    #[test]
    fn connections_live_on_under_a_new_master_key() {
        let folder = tempfile::tempdir().unwrap();
        opened(folder.path(), &[1]).0.put(new("api", "a", None), &minted("t"), 0).unwrap();
        drop(opened(folder.path(), &[2, 1]));
        let (connections, _) = opened(folder.path(), &[2]);
        let kept = connections.remove(&owner("api"), "a").unwrap().unwrap().minted;
        assert_eq!(kept.unwrap().access, Some(Secret::new("t".into())));
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (connections, store) = opened(folder.path(), &[1]);
        connections.put(new("api", "a", None), &minted("t"), 0).unwrap();
        assert_eq!(store.names().unwrap().len(), 2);
        assert!(connections.remove(&owner("api"), "a").unwrap().is_some());
        assert!(connections.remove(&owner("api"), "a").unwrap().is_none());
        assert_eq!((store.names().unwrap(), names(&connections)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_second_consent_replaces_the_first_and_shares_nothing_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (connections, store) = opened(folder.path(), &[1]);
        let one = connections.put(new("api", "a", None), &minted("1"), 0).unwrap();
        let two = connections.put(new("api", "a", None), &minted("2"), 0).unwrap();
        let identity = |account: &Account| Connection::of(account).unwrap().identity.clone();
        assert_ne!(identity(&one), identity(&two));
        assert_eq!(store.names().unwrap().len(), 2);
        let kept = connections.remove(&owner("api"), "a").unwrap().unwrap().minted;
        assert_eq!(kept.unwrap().access, Some(Secret::new("2".into())));
    }

    #[test]
    fn nobody_takes_the_name_of_another_clients_connection() {
        let folder = tempfile::tempdir().unwrap();
        let (connections, _) = opened(folder.path(), &[1]);
        connections.put(new("api", "a", Some("billing")), &minted("1"), 0).unwrap();
        for other in [Some("other"), None] {
            assert!(matches!(connections.put(new("api", "a", other), &minted("2"), 0), Err(Error::Forbidden(..))));
        }
        let gone = connections.remove(&owner("api"), "a").unwrap().unwrap();
        assert_eq!((gone.account.client.as_deref(), gone.minted.unwrap().access), (Some("billing"), Some(Secret::new("1".into()))));
    }

    #[test]
    fn a_record_in_anothers_place_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (connections, store) = opened(folder.path(), &[1]);
        connections.put(new("api", "mine", Some("a")), &minted("1"), 0).unwrap();
        connections.put(new("api", "theirs", Some("b")), &minted("2"), 0).unwrap();
        let (mine, theirs) = (place(&store, &owner("api"), "mine"), place(&store, &owner("api"), "theirs"));
        drop((connections, store));
        let records = File::open(folder.path()).unwrap();
        records.write(&mine, &records.read(&theirs).unwrap().unwrap()).unwrap();
        drop(records);
        let (connections, store) = opened(folder.path(), &[1]);
        assert_eq!(names(&connections), ["api/theirs"]);
        assert_eq!(store.names().unwrap().len(), 4, "what a connection that cannot be read has is kept");
    }

    #[test]
    fn a_name_means_nothing_to_headers_paths_and_pages() {
        for good in ["default", "a", "team-a", "ann@acme.example", "A.b_c+d", &"x".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for wrong in ["", "-a", ".a", "a b", "a/b", "a\nb", "<b>", "a%00", "a'b", "ä", "a;b", "a:b", &"x".repeat(65)] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }
}
