use super::*;
use crate::auth::grant::Tokens;
use crate::auth::support::call;
use crate::clock::Clock;
use crate::expr::{Name, Names};

fn family(most: usize) -> Family {
    let reads = Reads { client: Names::of(&[Name::ClientName]), ..Reads::default() };
    Family { most, ..Family::new(reads, Material::of([&b"scheme"[..]]), Fingerprint::keyed().unwrap()) }
}

fn whose(family: &Family, name: &str) -> Whose {
    let mut call = call("/a");
    call.caller.name = name.into();
    Whose::of(&call, family.reads).unwrap()
}

fn member(family: &Family, name: &str) -> Arc<Member> {
    let tokens = Tokens::new(Clock::manual(0));
    family.member(whose(family, name), |material, identity| tokens.alone(material, identity))
}

#[test]
fn each_value_has_its_own_grant_and_keeps_it() {
    let family = family(10);
    let (one, other) = (member(&family, "a"), member(&family, "b"));
    assert!(Arc::ptr_eq(&one, &member(&family, "a")) && !Arc::ptr_eq(&one.grant, &other.grant));
    assert_ne!(one.grant.identity(), other.grant.identity());
    assert_eq!(one.grant.identity(), &family.name(&whose(&family, "a")).1);
    assert_eq!(family.all().len(), 2);
}

#[test]
fn of_too_many_the_one_that_was_used_longest_ago_ends() {
    let family = family(2);
    let first = member(&family, "a");
    member(&family, "b");
    // Used again, so `b` is the one that waits longest.
    member(&family, "a");
    member(&family, "c");
    let mut names: Vec<String> = family.all().iter().map(|member| member.whose.name().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["a", "c"]);
    assert!(Arc::ptr_eq(&first, &member(&family, "a")));
    for n in 0..100 {
        member(&family, &n.to_string());
    }
    assert_eq!((family.all().len(), family.lock().order.len()), (2, 2));
}

#[test]
fn two_schemes_share_nothing_for_the_same_caller() {
    let one = family(2);
    let other = Family::new(one.reads, Material::of([&b"other"[..]]), Fingerprint::keyed().unwrap());
    assert_ne!(one.name(&whose(&one, "a")).1, other.name(&whose(&other, "a")).1);
}
