//! The sample data: each record follows from (seed, collection, id) by arithmetic alone, so ten million of them cost
//! nothing until they are read, and the same seed gives the same data on every machine and in every release. For that
//! reason the random numbers are our own (splitmix64), not a library's. What a client changed is not known here:
//! that is `shelf`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write;

use jiff::Timestamp;

use super::words::{CITIES, CURRENCIES, ENDINGS, FIRM, FIRST, LAST, MAIL, MANNER, SHELVES, STATUSES, TRADE};

/// The greatest id: JSON readers keep whole numbers exactly up to here (RFC 8259 section 6).
pub const MAX_ID: u64 = (1 << 53) - 1;

/// The most generated records of a collection, which leaves room above for created ones.
pub const MAX_ITEMS: u64 = MAX_ID / 2;

/// The first moment of the sample world, 2021-01-01, in Unix seconds.
const DAWN: u64 = 1_609_459_200;

/// Customers appear within so many seconds of [`DAWN`].
const GROWTH: u64 = 4 * 365 * 86_400;

/// The last moment of the sample world, 2026-01-01, in Unix seconds.
const DUSK: u64 = 1_767_225_600;

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collection {
    /// Who buys.
    Customers,
    /// What was bought, by whom.
    Orders,
    /// What is for sale.
    Products,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A JSON number.
    Number,
    /// A JSON string.
    Text,
}

/// One field of a collection.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
}

const fn number(name: &'static str) -> Field {
    Field { name, kind: Kind::Number }
}

const fn text(name: &'static str) -> Field {
    Field { name, kind: Kind::Text }
}

const CUSTOMER: [Field; 7] =
    [number("id"), text("name"), text("email"), text("company"), text("city"), text("country"), text("created_at")];
const PRODUCT: [Field; 6] = [number("id"), text("name"), text("category"), number("price"), text("currency"), number("stock")];
const ORDER: [Field; 7] =
    [number("id"), number("customer_id"), number("product_id"), number("quantity"), number("total"), text("status"), text("placed_at")];

/// Where `id` stands in every collection.
pub const ID: usize = 0;

impl Collection {
    /// All of them, in the order in which `/` lists them.
    pub const ALL: [Self; 3] = [Self::Customers, Self::Orders, Self::Products];

    /// The name in paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::Orders => "orders",
            Self::Products => "products",
        }
    }

    /// What its records hold, in the order in which they are written.
    pub fn fields(self) -> &'static [Field] {
        match self {
            Self::Customers => &CUSTOMER,
            Self::Orders => &ORDER,
            Self::Products => &PRODUCT,
        }
    }

    /// Which field has this name.
    pub fn field(self, name: &str) -> Option<usize> {
        self.fields().iter().position(|field| field.name == name)
    }
}

/// One value of a record, as far as filters and sorting care.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    /// A finite number.
    Number(f64),
    /// Text, and the JSON of whatever is neither text nor number.
    Text(Cow<'a, str>),
    /// `null`, or not there.
    Missing,
}

impl Cell<'_> {
    /// Numbers before text before what is missing; text by code points.
    pub fn order(&self, other: &Cell<'_>) -> Ordering {
        match (self, other) {
            (Self::Number(a), Cell::Number(b)) => a.total_cmp(b),
            (Self::Text(a), Cell::Text(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    /// As text; nothing for what is missing.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Number(number) => number.to_string().into(),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Missing => Cow::Borrowed(""),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Text(_) => 1,
            Self::Missing => 2,
        }
    }
}

/// The generated records of all collections: `items` of each, with the ids from 1.
#[derive(Debug)]
pub struct World {
    seed: u64,
    items: u64,
    buyers: Relation,
    goods: Relation,
}

impl World {
    /// A world of `items` records a collection, at most [`MAX_ITEMS`].
    pub fn new(seed: u64, items: u64) -> Self {
        let items = items.min(MAX_ITEMS);
        let relation = |salt| Relation::new(mix(mix(seed).wrapping_add(salt)), items);
        Self { seed, items, buyers: relation(1), goods: relation(2) }
    }

    /// How many records each collection has.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// The seed that all of it follows from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// One field of one record; `Missing` where there is no such field. The id must be one of 1 to `items`.
    pub fn cell(&self, collection: Collection, id: u64, field: usize) -> Cell<'static> {
        if field == ID {
            return Cell::Number(id as f64);
        }
        match collection {
            Collection::Customers => self.customer(id, field),
            Collection::Orders => self.order(id, field),
            Collection::Products => self.product(id, field),
        }
    }

    /// One whole record as JSON.
    pub fn text(&self, collection: Collection, id: u64) -> String {
        let mut json = String::with_capacity(224);
        for (index, field) in collection.fields().iter().enumerate() {
            json.push(if index == 0 { '{' } else { ',' });
            // Writing into a String cannot fail.
            let _ = write!(json, "\"{}\":", field.name);
            let _ = match self.cell(collection, id, index) {
                Cell::Number(number) => write!(json, "{number}"),
                Cell::Text(text) => write!(json, "{}", serde_json::Value::from(text.as_ref())),
                Cell::Missing => write!(json, "null"),
            };
        }
        json.push('}');
        json
    }

    /// The generated orders that name this id in this field of an order, ascending; `None` where only a scan can tell.
    pub fn orders(&self, field: usize, id: u64) -> Option<Vec<u64>> {
        match ORDER.get(field)?.name {
            "customer_id" => Some(self.buyers.sources(id)),
            "product_id" => Some(self.goods.sources(id)),
            _ => None,
        }
    }

    fn customer(&self, id: u64, field: usize) -> Cell<'static> {
        let draw = |salt| self.draw(Collection::Customers, id, salt);
        let (first, last) = (pick(&FIRST, draw(1)), pick(&LAST, draw(2)));
        let (city, country) = pick(&CITIES, draw(4));
        Cell::Text(match CUSTOMER.get(field).map_or("", |field| field.name) {
            "name" => format!("{first} {last}").into(),
            "email" => format!("{}.{}{id}@{}", first.to_ascii_lowercase(), last.to_ascii_lowercase(), pick(&MAIL, draw(3))).into(),
            "company" => format!("{} {}", pick(&FIRM, draw(5)), pick(&TRADE, draw(6))).into(),
            "city" => city.into(),
            "country" => country.into(),
            "created_at" => moment(self.birth(id)).into(),
            _ => return Cell::Missing,
        })
    }

    fn product(&self, id: u64, field: usize) -> Cell<'static> {
        let draw = |salt| self.draw(Collection::Products, id, salt);
        let shelf = &SHELVES[index(SHELVES.len(), draw(1))];
        match PRODUCT.get(field).map_or("", |field| field.name) {
            "name" => Cell::Text(format!("{} {}", pick(&MANNER, draw(2)), pick(&shelf.things, draw(3))).into()),
            "category" => Cell::Text(shelf.category.into()),
            "price" => Cell::Number(self.cents(id) as f64 / 100.0),
            "currency" => Cell::Text(pick(&CURRENCIES, draw(6)).into()),
            // One in ten is sold out, which is the case that clients forget.
            "stock" => Cell::Number(if draw(7).is_multiple_of(10) { 0.0 } else { (1 + draw(8) % 400) as f64 }),
            _ => Cell::Missing,
        }
    }

    fn order(&self, id: u64, field: usize) -> Cell<'static> {
        let draw = |salt| self.draw(Collection::Orders, id, salt);
        let quantity = 1 + draw(1) % 5;
        match ORDER.get(field).map_or("", |field| field.name) {
            "customer_id" => Cell::Number(self.buyers.target(id) as f64),
            "product_id" => Cell::Number(self.goods.target(id) as f64),
            "quantity" => Cell::Number(quantity as f64),
            "total" => Cell::Number((self.cents(self.goods.target(id)) * quantity) as f64 / 100.0),
            "status" => Cell::Text(pick(&STATUSES, draw(2)).into()),
            "placed_at" => {
                // Nobody orders before they are a customer.
                let since = self.birth(self.buyers.target(id));
                Cell::Text(moment(since + 1 + draw(3) % (DUSK - since - 1)).into())
            }
            _ => Cell::Missing,
        }
    }

    /// When a customer appeared, in Unix seconds.
    fn birth(&self, id: u64) -> u64 {
        DAWN + self.draw(Collection::Customers, id, 7) % GROWTH
    }

    /// What a product costs, in hundredths.
    fn cents(&self, id: u64) -> u64 {
        let draw = |salt| self.draw(Collection::Products, id, salt);
        let shelf = &SHELVES[index(SHELVES.len(), draw(1))];
        (shelf.least + draw(4) % (shelf.most - shelf.least)) * 100 + pick(&ENDINGS, draw(5))
    }

    /// A random number that belongs to one property of one record.
    fn draw(&self, collection: Collection, id: u64, salt: u64) -> u64 {
        let tag = ((collection as u64) << 8) | salt;
        mix(mix(self.seed.wrapping_add(tag.wrapping_mul(GOLDEN))).wrapping_add(id.wrapping_mul(GOLDEN)))
    }
}

/// How many records share one pattern of a [`Relation`].
const BLOCK: u64 = 8;

/// Which members of a block the eight orders of a block go to: some to many, some to none. No entry exceeds its index,
/// so the last, shorter block never names a record that is not there; every first one is 0, so record 1 is always named.
const PATTERNS: [[u64; 8]; 4] = [[0, 0, 0, 1, 2, 2, 4, 5], [0, 1, 1, 1, 1, 2, 3, 6], [0, 0, 2, 2, 4, 4, 6, 6], [0, 1, 2, 3, 4, 5, 6, 7]];

/// Who an order belongs to, so that the way back needs no scan: orders are permuted, then dealt out block by block.
#[derive(Debug)]
struct Relation {
    key: u64,
    items: u64,
    /// Bits in each half of the Feistel network, whose domain is the least even power of two that holds `items`.
    half: u32,
}

impl Relation {
    fn new(key: u64, items: u64) -> Self {
        let bits = u64::BITS - items.leading_zeros();
        Self { key, items, half: bits.div_ceil(2).max(1) }
    }

    /// What an order names. The id must be one of 1 to `items`.
    fn target(&self, order: u64) -> u64 {
        let slot = self.walk(order - 1, |index| self.shuffle(index));
        let block = slot / BLOCK;
        let place = index(self.pattern(block).len(), slot % BLOCK);
        block * BLOCK + self.pattern(block)[place] + 1
    }

    /// The orders that name an id, ascending; none for an id that is not generated.
    fn sources(&self, id: u64) -> Vec<u64> {
        if id == 0 || id > self.items {
            return Vec::new();
        }
        let (block, member) = ((id - 1) / BLOCK, (id - 1) % BLOCK);
        let slots = self.pattern(block).iter().zip(block * BLOCK..).filter(|(to, slot)| **to == member && *slot < self.items);
        let mut orders: Vec<u64> = slots.map(|(_, slot)| self.walk(slot, |index| self.unshuffle(index)) + 1).collect();
        orders.sort_unstable();
        orders
    }

    fn pattern(&self, block: u64) -> &'static [u64; 8] {
        &PATTERNS[index(PATTERNS.len(), mix(self.key.wrapping_add(block)))]
    }

    /// Applies a permutation of the whole domain until the result is an item again. It ends, since the cycle leads back to
    /// where it began, and soon, since the domain is at most four times the items.
    fn walk(&self, start: u64, step: impl Fn(u64) -> u64) -> u64 {
        let mut at = step(start);
        while at >= self.items {
            at = step(at);
        }
        at
    }

    fn shuffle(&self, value: u64) -> u64 {
        let (mut left, mut right) = (value >> self.half, value & self.mask());
        for round in 0..4 {
            (left, right) = (right, left ^ self.round(round, right));
        }
        (left << self.half) | right
    }

    fn unshuffle(&self, value: u64) -> u64 {
        let (mut left, mut right) = (value >> self.half, value & self.mask());
        for round in (0..4).rev() {
            (left, right) = (right ^ self.round(round, left), left);
        }
        (left << self.half) | right
    }

    fn round(&self, round: u64, value: u64) -> u64 {
        mix(mix(self.key ^ round).wrapping_add(value)) & self.mask()
    }

    fn mask(&self) -> u64 {
        (1 << self.half) - 1
    }
}

/// The increment of splitmix64: 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// splitmix64 (Steele, Lea, Flood 2014): one step and its finalizer.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn index(len: usize, draw: u64) -> usize {
    // Both casts are exact: the lists are short.
    (draw % len as u64) as usize
}

fn pick<T: Copy>(list: &[T], draw: u64) -> T {
    list[index(list.len(), draw)]
}

/// RFC 3339, in UTC.
fn moment(seconds: u64) -> String {
    i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    fn record(world: &World, collection: Collection, id: u64) -> Value {
        serde_json::from_str(&world.text(collection, id)).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_data_in_every_release() {
        let world = World::new(1, 100);
        assert_eq!(
            world.text(Collection::Customers, 1),
            r#"{"id":1,"name":"Dario Lindgren","email":"dario.lindgren1@example.org","company":"Meridian Analytics","city":"Seoul","country":"South Korea","created_at":"2023-04-24T04:56:01Z"}"#
        );
        assert_eq!(
            world.text(Collection::Products, 1),
            r#"{"id":1,"name":"Slim Drill","category":"tools","price":104.95,"currency":"EUR","stock":363}"#
        );
        assert_eq!(
            world.text(Collection::Orders, 1),
            r#"{"id":1,"customer_id":57,"product_id":65,"quantity":2,"total":53.8,"status":"shipped","placed_at":"2025-07-31T15:44:23Z"}"#
        );
    }

    #[test]
    fn another_seed_gives_other_data() {
        assert_ne!(World::new(1, 100).text(Collection::Customers, 7), World::new(2, 100).text(Collection::Customers, 7));
    }

    #[test]
    fn customers_do_not_change_with_their_number() {
        assert_eq!(World::new(1, 100).text(Collection::Customers, 7), World::new(1, 10_000_000).text(Collection::Customers, 7));
    }

    #[test]
    fn orders_name_records_that_are_there() {
        for items in [1, 2, 3, 7, 8, 9, 100, 1000] {
            let world = World::new(3, items);
            for id in 1..=items {
                let order = record(&world, Collection::Orders, id);
                for field in ["customer_id", "product_id"] {
                    assert!((1..=items).contains(&order[field].as_u64().unwrap()), "{items} {order}");
                }
            }
        }
    }

    #[test]
    fn the_way_back_from_a_customer_finds_exactly_its_orders() {
        let world = World::new(5, 500);
        let buyer = Collection::Orders.field("customer_id").unwrap();
        for customer in 1..=500 {
            let scanned: Vec<u64> =
                (1..=500).filter(|id| world.cell(Collection::Orders, *id, buyer) == Cell::Number(customer as f64)).collect();
            assert_eq!(world.orders(buyer, customer).unwrap(), scanned);
        }
    }

    #[test]
    fn an_id_that_is_not_generated_has_no_orders() {
        let world = World::new(5, 500);
        assert!(world.orders(1, 0).unwrap().is_empty());
        assert!(world.orders(1, 501).unwrap().is_empty());
        assert!(World::new(5, 0).orders(1, 1).unwrap().is_empty());
    }

    #[test]
    fn an_order_costs_its_quantity_times_the_price() {
        let world = World::new(9, 200);
        for id in 1..=200 {
            let order = record(&world, Collection::Orders, id);
            let product = record(&world, Collection::Products, order["product_id"].as_u64().unwrap());
            let total = product["price"].as_f64().unwrap() * order["quantity"].as_f64().unwrap();
            assert!((total - order["total"].as_f64().unwrap()).abs() < 0.005, "{order} {product}");
        }
    }

    #[test]
    fn nobody_orders_before_they_are_a_customer() {
        let world = World::new(9, 200);
        for id in 1..=200 {
            let order = record(&world, Collection::Orders, id);
            let customer = record(&world, Collection::Customers, order["customer_id"].as_u64().unwrap());
            assert!(order["placed_at"].as_str().unwrap() > customer["created_at"].as_str().unwrap());
        }
    }

    #[test]
    fn addresses_are_unique_and_nobody_is_ever_written_to() {
        let world = World::new(1, 2000);
        let emails: HashSet<String> =
            (1..=2000).map(|id| record(&world, Collection::Customers, id)["email"].as_str().unwrap().to_owned()).collect();
        assert_eq!(emails.len(), 2000);
        assert!(emails.iter().all(|email| email.split_once("@example.").is_some()));
    }

    #[test]
    fn the_last_of_ten_million_is_there_at_once() {
        let world = World::new(1, 10_000_000);
        assert_eq!(record(&world, Collection::Orders, 10_000_000)["id"], 10_000_000);
    }

    #[test]
    fn more_records_than_there_are_ids_are_cut_to_what_fits() {
        let world = World::new(1, u64::MAX);
        assert_eq!(world.items(), MAX_ITEMS);
        assert_eq!(record(&world, Collection::Orders, MAX_ITEMS)["id"].as_u64(), Some(MAX_ITEMS));
    }

    #[test]
    fn numbers_come_before_text_and_what_is_missing_comes_last() {
        let mut cells = [Cell::Missing, Cell::Text("a".into()), Cell::Number(10.0), Cell::Number(9.0)];
        cells.sort_by(Cell::order);
        assert_eq!(cells, [Cell::Number(9.0), Cell::Number(10.0), Cell::Text("a".into()), Cell::Missing]);
    }
}
