use super::*;
use crate::mock::data::{Collection, World};
use crate::mock::shelf::{Fields, Store};
use crate::mock::tag::Conditions;

async fn found(store: &Store, collection: Collection, raw: &str) -> Result<Found, Problem> {
    search(&store.view(collection), &Query::new(collection, raw)?, &Semaphore::new(1)).await
}

/// What a search must find, said the slow way: filter all, sort all, cut the page.
fn expected(store: &Store, collection: Collection, raw: &str) -> Found {
    let (view, query) = (store.view(collection), Query::new(collection, raw).unwrap());
    let text = query.text.as_deref().unwrap_or("");
    let fields = 0..collection.fields().len();
    let mentions = |id: u64| fields.clone().any(|field| view.cell(id, field).text().to_lowercase().contains(text));
    let mut ids: Vec<u64> = (0..view.total()).filter_map(|position| view.nth(position)).filter(|id| mentions(*id)).collect();
    ids.retain(|id| query.filters.iter().all(|filter| filter.admits(&view.cell(*id, filter.field))));
    for (field, direction) in query.sort.iter().rev() {
        ids.sort_by(|a, b| {
            let order = view.cell(*a, *field).order(&view.cell(*b, *field));
            if *direction == Direction::Up { order } else { order.reverse() }
        });
    }
    let total = ids.len() as u64;
    ids = ids.into_iter().skip(query.page.start as usize).take(query.page.limit as usize).collect();
    Found { total, ids }
}

/// More than two batches, with deleted, changed and created records.
fn worn() -> Store {
    let store = Store::new(World::new(3, 10_000));
    let none = Conditions::default();
    let fields = |text: &str| serde_json::from_str::<Fields>(text).unwrap();
    for id in (1..10_000).step_by(97) {
        store.remove(Collection::Orders, id, &none).unwrap();
        store.merge(Collection::Orders, id + 1, fields(r#"{"customer_id":5,"total":"much","status":null}"#), &none).unwrap();
        store.create(Collection::Orders, fields(r#"{"product_id":6,"quantity":2.5,"status":"new"}"#)).unwrap();
    }
    store
}

#[tokio::test]
async fn every_way_to_search_finds_what_a_plain_scan_finds() {
    let store = worn();
    for raw in [
        "",
        "_page=1011",
        "_sort=-id&_start=3",
        "_order=desc&_page=1011",
        "status=paid&_start=400&_limit=1000",
        "status=paid&_sort=-id&_page=3",
        "_sort=status,-total&_limit=1000",
        "_sort=-status,total&_start=4090&_limit=20",
        "_sort=-placed_at&_start=9990&_limit=1000",
        "_sort=status,-id,total&_page=7",
        "total_gt=100&total_lte=500&quantity_ne=3&_sort=total",
        "q=2024-02&_sort=quantity",
        "q=MUCH",
        "id=5&id=7&id=5&id=1&id=20000&id=10001",
        "id=2.5",
        "id=-1&id=1e300",
        "id_like=99&_sort=-id",
        "id_ne=3&_limit=5",
        "id_gte=50&id_lt=60",
        "id_gt=49.5&id_lte=59.5&_sort=-id",
        "id_gte=-5&id_lte=1e300",
        "id_gt=60&id_lt=50",
        "id_gte=9990&status=new",
        "customer_id=5",
        "customer_id=5&_sort=-total&_page=2",
        "customer_id=1&customer_id=2&customer_id=3&customer_id=4&status=delivered",
        "product_id=6&quantity_gt=2",
        "product_id=6&customer_id=5",
        "customer_id=0",
        "customer_id=5&id_lt=100",
    ] {
        assert_eq!(found(&store, Collection::Orders, raw).await.unwrap(), expected(&store, Collection::Orders, raw), "{raw}");
    }
}

#[tokio::test]
async fn the_same_holds_for_customers_and_products() {
    let store = worn();
    for (collection, raw) in [
        (Collection::Customers, "city=Berlin&city=Paris&_sort=name,-email"),
        (Collection::Customers, "country_like=land&created_at_gte=2024-01-01&created_at_lt=2024-02-01"),
        (Collection::Customers, "q=zürich&_limit=100"),
        (Collection::Products, "category=books&price_lt=20&stock_gt=0&_sort=price&_start=20"),
    ] {
        let page = found(&store, collection, raw).await.unwrap();
        assert_eq!(page, expected(&store, collection, raw), "{raw}");
        assert!(!page.ids.is_empty(), "{raw}");
    }
}

#[tokio::test]
async fn as_many_records_as_allowed_are_examined_and_not_one_more() {
    let most = Store::new(World::new(1, MAX_SCAN));
    assert_eq!(found(&most, Collection::Customers, "city=nowhere").await.unwrap().total, 0);
    let more = Store::new(World::new(1, MAX_SCAN + 1));
    assert!(found(&more, Collection::Customers, "city=nowhere").await.is_err());
    assert!(found(&more, Collection::Customers, "_sort=name").await.is_err());
    assert_eq!(found(&more, Collection::Customers, "city=nowhere&id_gt=1").await.unwrap().total, 0);
}

#[tokio::test]
async fn a_big_search_waits_for_its_turn_and_a_small_one_does_not() {
    let store = worn();
    let turns = Semaphore::new(1);
    let held = turns.acquire().await.unwrap();
    let view = store.view(Collection::Orders);
    let (big, small) =
        (Query::new(Collection::Orders, "status=paid").unwrap(), Query::new(Collection::Orders, "status=paid&id_lt=9").unwrap());
    assert!(search(&view, &small, &turns).await.is_ok());
    let mut waiting = std::pin::pin!(search(&view, &big, &turns));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("it did not wait"),
        () = yield_now() => drop(held),
    }
    assert!(waiting.await.is_ok());
}
