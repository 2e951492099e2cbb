//! What clients changed, laid over the generated data: created, replaced and deleted records, in memory and bounded.
//! Readers take a snapshot and never wait for a search; a write copies what a snapshot still holds. Nothing is durable.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use super::answer::Problem;
use super::data::{Cell, Collection, MAX_ID, World};
use super::tag::Conditions;

/// The most records that may differ from the generated ones, all collections together.
pub const MAX_CHANGES: usize = 100_000;

/// The most bytes that changed records may take, all collections together.
pub const MAX_BYTES: usize = 64 << 20;

/// The most bytes of one record, and of a request body.
pub const MAX_RECORD: usize = 1 << 20;

/// The fields of a JSON object.
pub type Fields = Map<String, Value>;

/// A record that a client wrote: as it is served, and the values that filters look at.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// The id.
    pub id: u64,
    /// JSON; the id comes first, the rest as the client sent it.
    pub text: Box<str>,
    cells: Box<[Cell<'static>]>,
}

impl Record {
    /// 400 where the fields name another id than this, 413 over [`MAX_RECORD`].
    fn new(collection: Collection, id: u64, mut fields: Fields) -> Result<Self, Problem> {
        if given(&fields)?.is_some_and(|named| named != id) {
            return Err(Problem::body(format!("The body says another id than {id}."), "An id never changes: leave it out."));
        }
        fields.shift_remove("id");
        fields.shift_insert(0, "id".to_owned(), id.into());
        let cells = collection.fields().iter().map(|field| cell(fields.get(field.name))).collect();
        let text = Value::Object(fields).to_string().into_boxed_str();
        if text.len() > MAX_RECORD {
            return Err(Problem::large(MAX_RECORD));
        }
        Ok(Self { id, text, cells })
    }

    fn bytes(&self) -> usize {
        let cells = self.cells.iter().map(|cell| if let Cell::Text(text) = cell { text.len() } else { 0 });
        size_of::<Self>() + size_of_val(&*self.cells) + self.text.len() + cells.sum::<usize>()
    }
}

/// The id that a body gives; 400 if it could not be one.
fn given(fields: &Fields) -> Result<Option<u64>, Problem> {
    let Some(value) = fields.get("id") else { return Ok(None) };
    match value.as_u64() {
        Some(id @ 1..=MAX_ID) => Ok(Some(id)),
        _ => Err(Problem::body("The id is not one.", format!("Leave it out, or give a whole number from 1 to {MAX_ID}."))),
    }
}

fn cell(value: Option<&Value>) -> Cell<'static> {
    match value {
        None | Some(Value::Null) => Cell::Missing,
        Some(Value::String(text)) => Cell::Text(text.clone().into()),
        Some(Value::Number(number)) => match number.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Cell::Number(number),
            None => Cell::Text(number.to_string().into()),
        },
        Some(other) => Cell::Text(other.to_string().into()),
    }
}

/// The changes to one collection.
#[derive(Clone, Debug)]
struct Shelf {
    /// Ids from 1 to here are generated.
    items: u64,
    changed: BTreeMap<u64, Arc<Record>>,
    /// Generated ids that were deleted, ascending.
    gone: Vec<u64>,
    /// Created ids beyond the generated ones, ascending.
    extra: Vec<u64>,
    bytes: usize,
    /// Where to look for the next id.
    next: u64,
}

impl Shelf {
    fn new(items: u64) -> Self {
        Self { items, changed: BTreeMap::new(), gone: Vec::new(), extra: Vec::new(), bytes: 0, next: items + 1 }
    }

    fn holds(&self, id: u64) -> bool {
        if id <= self.items { id > 0 && self.gone.binary_search(&id).is_err() } else { self.extra.binary_search(&id).is_ok() }
    }

    fn total(&self) -> u64 {
        self.items - self.gone.len() as u64 + self.extra.len() as u64
    }

    /// How many records have a smaller id.
    fn before(&self, id: u64) -> u64 {
        let generated = id.saturating_sub(1).min(self.items);
        let gone = self.gone.partition_point(|gone| *gone < id) as u64;
        generated - gone + self.extra.partition_point(|extra| *extra < id) as u64
    }

    /// The id at a position, counted from 0 in ascending order.
    fn nth(&self, position: u64) -> Option<u64> {
        let generated = self.items - self.gone.len() as u64;
        if position < generated {
            // The i-th deleted id has `gone - 1 - i` living ids before it, which never falls as i grows.
            let skipped = self.gone_before(position);
            return Some(position + 1 + skipped);
        }
        usize::try_from(position - generated).ok().and_then(|index| self.extra.get(index)).copied()
    }

    fn gone_before(&self, position: u64) -> u64 {
        let (mut low, mut high) = (0, self.gone.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.gone[middle] - 1 - middle as u64 <= position { low = middle + 1 } else { high = middle }
        }
        low as u64
    }

    fn put(&mut self, record: Arc<Record>) {
        let id = record.id;
        if id <= self.items {
            if let Ok(index) = self.gone.binary_search(&id) {
                self.gone.remove(index);
            }
        } else if let Err(index) = self.extra.binary_search(&id) {
            self.extra.insert(index, id);
        }
        self.bytes += record.bytes();
        if let Some(old) = self.changed.insert(id, record) {
            self.bytes -= old.bytes();
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(old) = self.changed.remove(&id) {
            self.bytes -= old.bytes();
        }
        if id > self.items {
            if let Ok(index) = self.extra.binary_search(&id) {
                self.extra.remove(index);
            }
        } else if let Err(index) = self.gone.binary_search(&id) {
            self.gone.insert(index, id);
        }
    }

    fn changes(&self) -> usize {
        self.changed.len() + self.gone.len()
    }
}

/// One collection at one moment, for reading.
pub struct View<'w> {
    world: &'w World,
    shelf: Arc<Shelf>,
    /// Which collection it is.
    pub collection: Collection,
}

impl View<'_> {
    /// How many records there are.
    pub fn total(&self) -> u64 {
        self.shelf.total()
    }

    /// Whether there is such a record.
    pub fn holds(&self, id: u64) -> bool {
        self.shelf.holds(id)
    }

    /// The positions, in ascending order of ids, of the records from one id to another, both included.
    pub fn span(&self, first: u64, last: u64) -> Range<u64> {
        let start = self.shelf.before(first);
        start..self.shelf.before(last.saturating_add(1)).max(start)
    }

    /// The id at a position.
    pub fn nth(&self, position: u64) -> Option<u64> {
        self.shelf.nth(position)
    }

    /// One field of a record that is there.
    pub fn cell(&self, id: u64, field: usize) -> Cell<'_> {
        match self.shelf.changed.get(&id) {
            Some(record) => match record.cells.get(field) {
                Some(Cell::Text(text)) => Cell::Text(Cow::Borrowed(text)),
                Some(other) => other.clone(),
                None => Cell::Missing,
            },
            None => self.world.cell(self.collection, id, field),
        }
    }

    /// A record as JSON, if it is there.
    pub fn text(&self, id: u64) -> Option<Cow<'_, str>> {
        match self.shelf.changed.get(&id) {
            Some(record) => Some(Cow::Borrowed(&record.text)),
            None => self.holds(id).then(|| self.world.text(self.collection, id).into()),
        }
    }

    /// The generated records that have this id in this field, unless they were changed since; `None` where only a scan can
    /// tell.
    pub fn naming(&self, field: usize, id: u64) -> Option<Vec<u64>> {
        if self.collection == Collection::Orders { self.world.orders(field, id) } else { None }
    }

    /// The ids of all records that a client wrote, ascending.
    pub fn changed(&self) -> impl Iterator<Item = u64> {
        self.shelf.changed.keys().copied()
    }
}

/// All collections, for reading and writing.
pub struct Store {
    /// The generated data beneath.
    pub world: World,
    shelves: Mutex<[Arc<Shelf>; 3]>,
}

impl Store {
    /// A store in which nothing is changed yet.
    pub fn new(world: World) -> Self {
        let shelf = Arc::new(Shelf::new(world.items()));
        Self { world, shelves: Mutex::new([shelf.clone(), shelf.clone(), shelf]) }
    }

    /// A collection as it is now.
    pub fn view(&self, collection: Collection) -> View<'_> {
        self.locked(collection, &self.lock())
    }

    /// Adds a record, under the id that it gives or the next free one. 409 if that is taken.
    pub fn create(&self, collection: Collection, fields: Fields) -> Result<Arc<Record>, Problem> {
        let mut shelves = self.lock();
        let shelf = &shelves[collection as usize];
        let (id, next) = match given(&fields)? {
            Some(id) if shelf.holds(id) => {
                let hint = format!("Change it with PUT or PATCH /{}/{id}, or leave the id out.", collection.name());
                return Err(Problem::conflict(format!("There is a record {id} already."), hint));
            }
            Some(id) => (id, shelf.next),
            None => {
                // Ends after at most MAX_CHANGES steps: no more ids than that are taken beyond the generated ones.
                let free = (shelf.next..=MAX_ID).find(|id| !shelf.holds(*id));
                let id = free.ok_or_else(|| Problem::full("No id is left."))?;
                (id, id + 1)
            }
        };
        let record = Arc::new(Record::new(collection, id, fields)?);
        put(&mut shelves, collection, record.clone())?;
        Arc::make_mut(&mut shelves[collection as usize]).next = next;
        Ok(record)
    }

    /// Puts these fields in the place of a record's. 404 if there is none, 412 if the conditions do not hold.
    pub fn replace(&self, collection: Collection, id: u64, fields: Fields, when: &Conditions) -> Result<Arc<Record>, Problem> {
        self.change(collection, id, when, |_| Ok(fields))
    }

    /// Merges a patch into a record (RFC 7396). 404 if there is none, 412 if the conditions do not hold.
    pub fn merge(&self, collection: Collection, id: u64, patch: Fields, when: &Conditions) -> Result<Arc<Record>, Problem> {
        if patch.get("id").is_some_and(Value::is_null) {
            return Err(Problem::body("The patch removes the id.", "An id never changes: leave it out."));
        }
        self.change(collection, id, when, |old| {
            let Ok(mut fields) = serde_json::from_str::<Fields>(old) else {
                return Err(Problem::conflict("The record cannot be merged.", "Replace it with PUT."));
            };
            merge(&mut fields, patch);
            Ok(fields)
        })
    }

    /// Deletes a record. 404 if there is none, 412 if the conditions do not hold.
    pub fn remove(&self, collection: Collection, id: u64, when: &Conditions) -> Result<(), Problem> {
        let mut shelves = self.lock();
        when.writable(&self.locked(collection, &shelves).text(id).ok_or_else(|| absent(collection, id))?)?;
        let shelf = &shelves[collection as usize];
        if id <= shelf.items && !shelf.changed.contains_key(&id) {
            room(&shelves, 1, 0)?;
        }
        Arc::make_mut(&mut shelves[collection as usize]).remove(id);
        Ok(())
    }

    fn change(
        &self,
        collection: Collection,
        id: u64,
        when: &Conditions,
        edit: impl FnOnce(&str) -> Result<Fields, Problem>,
    ) -> Result<Arc<Record>, Problem> {
        let mut shelves = self.lock();
        let record = {
            let view = self.locked(collection, &shelves);
            let old = view.text(id).ok_or_else(|| absent(collection, id))?;
            when.writable(&old)?;
            Arc::new(Record::new(collection, id, edit(&old)?)?)
        };
        put(&mut shelves, collection, record.clone())?;
        Ok(record)
    }

    fn locked(&self, collection: Collection, shelves: &[Arc<Shelf>; 3]) -> View<'_> {
        View { world: &self.world, shelf: shelves[collection as usize].clone(), collection }
    }

    /// A writer that panicked has changed nothing or everything: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, [Arc<Shelf>; 3]> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 404 for a record.
pub fn absent(collection: Collection, id: u64) -> Problem {
    let name = collection.name();
    Problem::absent(format!("There is no record {id} in {name}."), format!("GET /{name} lists what there is."))
}

fn put(shelves: &mut [Arc<Shelf>; 3], collection: Collection, record: Arc<Record>) -> Result<(), Problem> {
    let shelf = &shelves[collection as usize];
    let old = shelf.changed.get(&record.id).map(|old| old.bytes());
    let counted = old.is_some() || (record.id <= shelf.items && !shelf.holds(record.id));
    room(shelves, usize::from(!counted), record.bytes().saturating_sub(old.unwrap_or(0)))?;
    Arc::make_mut(&mut shelves[collection as usize]).put(record);
    Ok(())
}

/// 507 unless so many more changes and bytes fit.
fn room(shelves: &[Arc<Shelf>; 3], changes: usize, bytes: usize) -> Result<(), Problem> {
    if changes > 0 && shelves.iter().map(|shelf| shelf.changes()).sum::<usize>() + changes > MAX_CHANGES {
        return Err(Problem::full(format!("{MAX_CHANGES} records are changed already, which is as many as the mock keeps.")));
    }
    if bytes > 0 && shelves.iter().map(|shelf| shelf.bytes).sum::<usize>() + bytes > MAX_BYTES {
        return Err(Problem::full(format!(
            "The changed records would take more than {MAX_BYTES} bytes, which is as many as the mock keeps."
        )));
    }
    Ok(())
}

/// RFC 7396 section 2. The depth is bounded by what the JSON reader lets through (128).
fn merge(target: &mut Fields, patch: Fields) {
    // In one pass: removing a hundred thousand fields one by one, in order, would be quadratic.
    target.retain(|name, _| !patch.get(name).is_some_and(Value::is_null));
    for (name, value) in patch {
        match value {
            Value::Null => {}
            Value::Object(inner) => {
                let mut fields = match target.get_mut(&name).map(Value::take) {
                    Some(Value::Object(fields)) => fields,
                    _ => Fields::new(),
                };
                merge(&mut fields, inner);
                target.insert(name, fields.into());
            }
            other => {
                target.insert(name, other);
            }
        }
    }
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
