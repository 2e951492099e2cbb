//! Finding the records that a [`Query`] asks for, with bounded work and memory. A plain page is read by position and
//! costs nothing but its own records; ids and the customer or product of an order lead straight to the candidates; all
//! else examines them one by one, gives the runtime a turn every [`BATCH`] records, and refuses beyond [`MAX_SCAN`].

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::answer::Problem;
use super::data::{Cell, ID, MAX_ID};
use super::query::{Direction, Filter, Query, Test};
use super::shelf::{MAX_CHANGES, View};

/// The most records that one search examines: a million generated ones, and all that can be created beside them.
pub const MAX_SCAN: u64 = 1_000_000 + MAX_CHANGES as u64;

/// How many records are examined, sorted or merged before others get a turn.
pub const BATCH: usize = 4096;

/// How many searches of more than a batch run at a time: sorting a million records takes up to 180 MB.
pub const SEARCHES: usize = 2;

/// How long a search waits for its turn.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The page that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// How many records match, on all pages.
    pub total: u64,
    /// The ids on this page, in order.
    pub ids: Vec<u64>,
}

/// Runs a query. `turns` bounds how many big ones run at a time. 422 for too much work, 503 if no turn comes.
pub async fn search(view: &View<'_>, query: &Query, turns: &Semaphore) -> Result<Found, Problem> {
    let (keys, direction) = keys(query);
    let candidates = Candidates::new(view, query, direction);
    let filters = candidates.filters(query);
    if keys.is_empty() && filters.is_empty() && query.text.is_none() {
        let ids = candidates.page(query.page.start, query.page.limit);
        return Ok(Found { total: candidates.len(), ids: ids.filter_map(|index| candidates.at(view, index)).collect() });
    }
    if candidates.len() > MAX_SCAN {
        return Err(Problem::work(
            format!("This would examine {} records; at most {MAX_SCAN} are examined for one answer.", candidates.len()),
            "Narrow it by id_gte and id_lte, or by customer_id or product_id for orders; or have fewer items.",
        ));
    }
    let _turn = turn(turns, candidates.len()).await?;
    let sieve = Sieve { view, filters, text: query.text.as_deref() };
    if keys.is_empty() { sift(&sieve, &candidates, query).await } else { sort(&sieve, &candidates, query, keys).await }
}

async fn turn(turns: &Semaphore, work: u64) -> Result<Option<SemaphorePermit<'_>>, Problem> {
    if work <= BATCH as u64 {
        return Ok(None);
    }
    match timeout(PATIENCE, turns.acquire()).await {
        Ok(Ok(permit)) => Ok(Some(permit)),
        Ok(Err(_)) | Err(_) => Err(Problem::busy()),
    }
}

/// What to sort by beside the id, and which way ids go. Nothing behind `id` matters, since ids are unique.
fn keys(query: &Query) -> (&[(usize, Direction)], Direction) {
    match query.sort.iter().position(|(field, _)| *field == ID) {
        Some(at) => (&query.sort[..at], query.sort[at].1),
        None => (&query.sort, Direction::Up),
    }
}

/// The records that come into question, in the order of ids that was asked for.
struct Candidates {
    ids: Ids,
    direction: Direction,
}

enum Ids {
    /// Positions in the collection: what the bounds on ids leave of it.
    Span(Range<u64>),
    /// Single ids, ascending.
    Listed(Vec<u64>),
}

impl Candidates {
    fn new(view: &View<'_>, query: &Query, direction: Direction) -> Self {
        let listed = query.filters.iter().find_map(|filter| listed(view, filter));
        Self { ids: listed.map_or_else(|| Ids::Span(span(view, query)), Ids::Listed), direction }
    }

    /// The filters that are still to be applied.
    fn filters<'q>(&self, query: &'q Query) -> Vec<&'q Filter> {
        let done = |filter: &Filter| matches!(self.ids, Ids::Span(_)) && bounds(filter).is_some();
        query.filters.iter().filter(|filter| !done(filter)).collect()
    }

    fn len(&self) -> u64 {
        match &self.ids {
            Ids::Span(span) => span.end - span.start,
            Ids::Listed(ids) => ids.len() as u64,
        }
    }

    fn at(&self, view: &View<'_>, index: u64) -> Option<u64> {
        let index = match self.direction {
            Direction::Up => index,
            Direction::Down => self.len().checked_sub(index.saturating_add(1))?,
        };
        match &self.ids {
            Ids::Span(span) => view.nth(span.start + index),
            Ids::Listed(ids) => usize::try_from(index).ok().and_then(|index| ids.get(index)).copied(),
        }
    }

    fn page(&self, start: u64, limit: u64) -> Range<u64> {
        start.min(self.len())..start.saturating_add(limit).min(self.len())
    }
}

/// The ids to which a filter leads without a scan.
fn listed(view: &View<'_>, filter: &Filter) -> Option<Vec<u64>> {
    if filter.test != Test::Equal {
        return None;
    }
    let mut ids = Vec::new();
    for value in &filter.values {
        let Cell::Number(number) = *value else { return None };
        // A fraction or a negative number is nobody's id; the cast below is exact for all others that pass.
        let id = if number.fract() == 0.0 && (1.0..=MAX_ID as f64).contains(&number) { number as u64 } else { 0 };
        if filter.field == ID {
            ids.push(id);
        } else {
            ids.extend(view.naming(filter.field, id)?);
        }
    }
    if filter.field != ID {
        // What a client wrote may name anyone.
        ids.extend(view.changed());
    }
    ids.retain(|id| view.holds(*id));
    ids.sort_unstable();
    ids.dedup();
    Some(ids)
}

/// The least and the greatest id that a filter on ids leaves; `None` for other filters.
fn bounds(filter: &Filter) -> Option<(u64, u64)> {
    if filter.field != ID {
        return None;
    }
    let mut bounds = (1, MAX_ID);
    for value in &filter.values {
        let Cell::Number(number) = *value else { return None };
        // Casts from floats saturate, which is what is wanted beyond either end.
        match filter.test {
            Test::AtLeast => bounds.0 = bounds.0.max(number.ceil() as u64),
            Test::Greater => bounds.0 = bounds.0.max((number.floor() + 1.0) as u64),
            Test::AtMost => bounds.1 = bounds.1.min(number.floor() as u64),
            Test::Less => bounds.1 = bounds.1.min((number.ceil() - 1.0) as u64),
            Test::Equal | Test::Differs | Test::Like => return None,
        }
    }
    Some(bounds)
}

fn span(view: &View<'_>, query: &Query) -> Range<u64> {
    let all = query.filters.iter().filter_map(bounds).fold((1, MAX_ID), |a, b| (a.0.max(b.0), a.1.min(b.1)));
    view.span(all.0, all.1)
}

/// What a record must pass.
struct Sieve<'v> {
    view: &'v View<'v>,
    filters: Vec<&'v Filter>,
    text: Option<&'v str>,
}

impl Sieve<'_> {
    fn passes(&self, id: u64) -> bool {
        self.filters.iter().all(|filter| filter.admits(&self.view.cell(id, filter.field))) && self.mentions(id)
    }

    fn mentions(&self, id: u64) -> bool {
        let Some(text) = self.text else { return true };
        let fields = 0..self.view.collection.fields().len();
        fields.into_iter().any(|field| self.view.cell(id, field).text().to_lowercase().contains(text))
    }
}

/// In the order of ids: nothing is kept but the page.
async fn sift(sieve: &Sieve<'_>, candidates: &Candidates, query: &Query) -> Result<Found, Problem> {
    let page = query.page.start..query.page.start.saturating_add(query.page.limit);
    let mut found = Found { total: 0, ids: Vec::new() };
    for index in 0..candidates.len() {
        if index % BATCH as u64 == BATCH as u64 - 1 {
            yield_now().await;
        }
        let Some(id) = candidates.at(sieve.view, index).filter(|id| sieve.passes(*id)) else { continue };
        if page.contains(&found.total) {
            found.ids.push(id);
        }
        found.total += 1;
    }
    Ok(found)
}

/// In the order of other fields: runs of one batch are sorted, cut to what the page can need, and merged.
async fn sort(sieve: &Sieve<'_>, candidates: &Candidates, query: &Query, keys: &[(usize, Direction)]) -> Result<Found, Problem> {
    let needed = usize::try_from(query.page.start.saturating_add(query.page.limit)).unwrap_or(usize::MAX);
    let mut runs = Vec::new();
    let mut total = 0;
    let mut index = 0;
    while index < candidates.len() {
        let batch = index..(index + BATCH as u64).min(candidates.len());
        index = batch.end;
        let mut run: Vec<Row<'_>> = batch
            .filter_map(|index| Some((index, candidates.at(sieve.view, index).filter(|id| sieve.passes(*id))?)))
            .map(|(index, id)| Row { index, id, keys: row(sieve.view, id, keys) })
            .collect();
        total += run.len() as u64;
        run.sort_unstable();
        run.truncate(needed);
        runs.push(run.into_iter());
        yield_now().await;
    }
    let mut heap: BinaryHeap<_> =
        runs.iter_mut().enumerate().filter_map(|(run, rows)| rows.next().map(|row| Reverse((row, run)))).collect();
    let mut ids = Vec::new();
    for position in 0..needed {
        let Some(Reverse((row, run))) = heap.pop() else { break };
        heap.extend(runs[run].next().map(|row| Reverse((row, run))));
        if position as u64 >= query.page.start {
            ids.push(row.id);
        }
        if position % BATCH == BATCH - 1 {
            yield_now().await;
        }
    }
    Ok(Found { total, ids })
}

/// A record with what it is sorted by. Equals stay in the order of the candidates.
struct Row<'v> {
    keys: Box<[(Cell<'v>, Direction)]>,
    index: u64,
    id: u64,
}

fn row<'v>(view: &'v View<'_>, id: u64, keys: &[(usize, Direction)]) -> Box<[(Cell<'v>, Direction)]> {
    keys.iter().map(|(field, direction)| (view.cell(id, *field), *direction)).collect()
}

impl Ord for Row<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let mut keys = self.keys.iter().zip(&other.keys).map(|((a, direction), (b, _))| match direction {
            Direction::Up => a.order(b),
            Direction::Down => b.order(a),
        });
        keys.find(|order| order.is_ne()).unwrap_or_else(|| self.index.cmp(&other.index))
    }
}

impl PartialOrd for Row<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Row<'_> {}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
