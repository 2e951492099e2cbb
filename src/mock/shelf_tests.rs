use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::mock::data::MAX_ITEMS;

fn store(items: u64) -> Store {
    Store::new(World::new(1, items))
}

fn fields(value: Value) -> Fields {
    value.as_object().cloned().unwrap()
}

const HERE: Collection = Collection::Customers;

#[test]
fn positions_follow_any_mix_of_writes() {
    let mut random = fastrand::Rng::with_seed(7);
    for items in [0, 1, 5, 40] {
        let store = store(items);
        let mut model: BTreeSet<u64> = (1..=items).collect();
        for _ in 0..300 {
            let id = random.u64(1..60);
            if random.bool() {
                assert_eq!(store.create(HERE, fields(json!({ "id": id }))).is_ok(), model.insert(id));
            } else {
                assert_eq!(store.remove(HERE, id, &Conditions::default()).is_ok(), model.remove(&id));
            }
            let view = store.view(HERE);
            let ids: Vec<u64> = (0..view.total()).filter_map(|position| view.nth(position)).collect();
            assert_eq!(ids, model.iter().copied().collect::<Vec<_>>());
            assert_eq!(view.nth(view.total()), None);
            let (first, last) = (random.u64(0..70), random.u64(0..70));
            let expected = if first > last { 0 } else { model.range(first..=last).count() as u64 };
            let span = view.span(first, last);
            assert_eq!(span.end - span.start, expected);
        }
    }
}

#[test]
fn a_view_is_of_one_moment() {
    let store = store(3);
    let view = store.view(HERE);
    store.remove(HERE, 2, &Conditions::default()).unwrap();
    assert!(view.holds(2) && !store.view(HERE).holds(2));
}

#[test]
fn collections_are_changed_apart() {
    let store = store(3);
    store.remove(HERE, 2, &Conditions::default()).unwrap();
    assert!(store.view(Collection::Orders).holds(2));
}

#[test]
fn the_hundred_thousand_and_first_change_is_refused_and_room_comes_back() {
    let store = store(MAX_ITEMS);
    let none = Conditions::default();
    // Deleted, replaced and created records count alike, over all collections.
    for id in 1..=40_000 {
        store.remove(HERE, id, &none).unwrap();
    }
    for id in 1..=30_000 {
        store.replace(Collection::Orders, id, Fields::new(), &none).unwrap();
    }
    let made: Vec<u64> = (0..30_000).map(|_| store.create(Collection::Products, Fields::new()).unwrap().id).collect();
    assert!(store.create(HERE, Fields::new()).is_err());
    assert!(store.remove(HERE, 50_000, &none).is_err());
    assert!(store.replace(HERE, 50_000, Fields::new(), &none).is_err());
    // What is changed already may be changed again, and to delete what was created makes room.
    store.replace(Collection::Orders, 1, fields(json!({"status": "paid"})), &none).unwrap();
    store.remove(Collection::Orders, 1, &none).unwrap();
    assert!(store.create(HERE, Fields::new()).is_err());
    store.remove(Collection::Products, made[0], &none).unwrap();
    store.create(HERE, Fields::new()).unwrap();
}

#[test]
fn changed_records_take_bounded_memory() {
    let store = store(10);
    let big = || fields(json!({ "note": "x".repeat(MAX_RECORD - 100) }));
    let kept = (0..1000).take_while(|_| store.create(HERE, big()).is_ok()).count();
    assert!((MAX_BYTES / MAX_RECORD - 1..=MAX_BYTES / MAX_RECORD + 1).contains(&kept), "{kept}");
    assert!(store.replace(HERE, 1, big(), &Conditions::default()).is_err());
    store.remove(HERE, 11, &Conditions::default()).unwrap();
    store.create(HERE, big()).unwrap();
}

#[test]
fn memory_is_given_back_by_whatever_ends_a_record() {
    let store = store(10);
    let none = Conditions::default();
    store.replace(HERE, 1, fields(json!({"name": "a"})), &none).unwrap();
    store.replace(HERE, 1, fields(json!({"name": "a".repeat(1000)})), &none).unwrap();
    store.merge(HERE, 1, fields(json!({"name": null})), &none).unwrap();
    store.create(HERE, fields(json!({"id": 20}))).unwrap();
    store.remove(HERE, 1, &none).unwrap();
    store.remove(HERE, 20, &none).unwrap();
    assert_eq!(store.lock()[HERE as usize].bytes, 0);
}

#[test]
fn ids_that_were_given_are_skipped_when_ids_are_made() {
    let store = store(2);
    for id in [3, 4, MAX_ID] {
        store.create(HERE, fields(json!({ "id": id }))).unwrap();
    }
    assert_eq!(store.create(HERE, Fields::new()).unwrap().id, 5);
}

#[test]
fn an_id_that_was_made_is_never_made_again() {
    let store = store(2);
    assert_eq!(store.create(HERE, Fields::new()).unwrap().id, 3);
    store.remove(HERE, 3, &Conditions::default()).unwrap();
    assert_eq!(store.create(HERE, Fields::new()).unwrap().id, 4);
}

#[test]
fn numbers_stay_as_they_were_written() {
    let store = store(0);
    let sent: Fields = serde_json::from_str(r#"{"a":12345678901234567890123,"b":1.10,"c":1e+400}"#).unwrap();
    let record = store.create(HERE, sent).unwrap();
    assert_eq!(&*record.text, r#"{"id":1,"a":12345678901234567890123,"b":1.10,"c":1e+400}"#);
}

/// RFC 7396 appendix A, the cases whose target and patch are objects.
#[test]
fn patches_merge_as_the_rfc_shows() {
    let cases = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ];
    for (target, patch, result) in cases {
        let mut merged = fields(target);
        merge(&mut merged, fields(patch));
        assert_eq!(Value::Object(merged), result);
    }
}
