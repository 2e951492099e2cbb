//! The language as a whole: types, inputs, secrets, errors, and the filters against published vectors.

use proptest::prelude::*;

use super::*;
use crate::secret::Secret;

pub const EVERYWHERE: Names =
    Names::FIXED.with(Names::ATTEMPT).with(Names::CLIENT).with(Names::REQUEST).with(Names::TOKEN).with(Names::of(&[Name::Captured]));

fn json(text: &str) -> Value {
    Value::from_json(text).unwrap()
}

fn secrets(pairs: &[(&str, &str)]) -> Value {
    Value::Map(std::sync::Arc::new(pairs.iter().map(|(name, text)| (*name, Value::Secret(Secret::new((*text).into())))).collect()))
}

fn inputs() -> Given {
    Given::default()
        .with(
            Name::Vars,
            json(
                r#"{"a":"x","n":5,"big":12345678901234567890,"huge":123456789012345678901234567890123456789012345,
                "price":1.10,"exp":1e3,"yes":true,"none":null,"empty":"","list":[1,2,3],"map":{"k":"v","z":1,"b":2},"tricky":"{{ vars.a }}"}"#,
            ),
        )
        .with(Name::Secrets, secrets(&[("key", "hunter2hunter2"), ("json", r#"{"inner":"hunter2"}"#)]))
        .with(Name::Now, Value::Moment(Moment::from_millis(1_714_564_800_007).unwrap()))
        .with(Name::Uuid, Value::text("0b5f2c8e-3d1a-4c4e-9a65-1f2e3d4c5b6a"))
        .with(Name::Base, Value::text("https://api.example.com/v1"))
        .with(Name::ClientName, Value::text("billing"))
        .with(Name::RequestMethod, Value::text("GET"))
        .with(Name::RequestQuery, json(r#"{"limit":"10","tag":["a","b"]}"#))
        .with(Name::RequestHeaders, Value::Map(std::sync::Arc::new(Map::of_fields([("x-foo".into(), Value::text("bar"))]))))
        .with(Name::RequestRawQuery, Value::text("b=2&a=1+1&a=%7e"))
        .with(Name::RequestBody, Value::text(""))
}

fn scope() -> Scope<'static> {
    Scope::of(EVERYWHERE)
}

/// The result, as the page shows it.
fn run(template: &str) -> String {
    let template = match Template::compile(template, &scope()) {
        Ok(template) => template,
        Err(mistakes) => return format!("load: {}", mistakes.iter().map(|m| m.message.clone()).collect::<Vec<_>>().join("; ")),
    };
    match template.render(&inputs()) {
        Err(failure) => format!("error: {}", failure.why),
        Ok(rendered) => shown(&rendered),
    }
}

pub fn shown(rendered: &Rendered) -> String {
    let mark = if rendered.secret { "secret " } else { "" };
    if let Value::Moment(moment) = rendered.value {
        return format!("{mark}moment {}", moment.rfc3339());
    }
    let mut json = String::new();
    rendered.value.write_json(Moments::Refused, &mut json).unwrap();
    format!("{mark}{json}")
}

#[track_caller]
fn all(cases: &[(&str, &str)]) {
    for (template, expected) in cases {
        assert_eq!(run(template), *expected, "{template}");
    }
}

#[test]
fn a_text_that_is_one_expression_keeps_its_type_and_any_other_is_text() {
    all(&[
        ("{{ vars.n }}", "5"),
        ("{{vars.n}}", "5"),
        (" {{ vars.n }}", "\" 5\""),
        ("n={{ vars.n }}", "\"n=5\""),
        ("{{ vars.yes }}", "true"),
        ("{{ vars.yes }}!", "\"true!\""),
        ("{{ vars.none }}", "null"),
        ("{{ vars.list }}", "[1,2,3]"),
        ("{{ vars.map }}", r#"{"k":"v","z":1,"b":2}"#),
        ("{{ {'b': 1, 'a': [vars.n]} }}", r#"{"b":1,"a":[5]}"#),
        ("{{ now }}", "moment 2024-05-01T12:00:00.007Z"),
        ("plain", "\"plain\""),
        ("", "\"\""),
        ("{{ '{{' }}", "\"{{\""),
        ("{{ '{%' }}{{ '}}' }}", "\"{%}}\""),
    ]);
}

#[test]
fn numbers_are_kept_as_written_until_they_are_computed_with() {
    all(&[
        ("{{ vars.big }}", "12345678901234567890"),
        ("{{ vars.huge }}", "123456789012345678901234567890123456789012345"),
        ("{{ vars.price }}", "1.10"),
        ("{{ vars.exp }}", "1e3"),
        ("{{ 'p' ~ vars.price }}", "\"p1.10\""),
        ("{{ vars.price | string }}", "\"1.10\""),
        ("{{ vars.price | json }}", "\"1.10\""),
        ("{{ [vars.price, vars.huge] }}", "[1.10,123456789012345678901234567890123456789012345]"),
        ("{{ vars.big + 1 }}", "12345678901234567891"),
        ("{{ vars.price * 2 }}", "2.2"),
        ("{{ vars.price > 1 }}", "true"),
        ("{{ vars.exp == 1000 }}", "true"),
        ("{{ 1 < vars.price < 2 }}", "true"),
        ("{{ vars.price in [1.1] }}", "true"),
        ("{{ vars.exp | int }}", "1000"),
        ("{{ -vars.n }}", "-5"),
        ("{{ 7 // 2 }}", "3"),
        ("{{ 7 / 2 }}", "3.5"),
        ("{{ 2 ** 10 }}", "1024"),
        ("{{ '42' | int + 1 }}", "43"),
        ("{{ 'x' | int(0) }}", "0"),
        ("{{ '12345678901234567890' | int }}", "12345678901234567890"),
        ("{{ 1 / 3 }}", "0.3333333333333333"),
    ]);
}

#[test]
fn what_is_undefined_is_an_error_that_names_it() {
    for (template, part) in [
        ("{{ vars.nope }}", "`vars.nope` is undefined"),
        ("a{{ vars.nope }}", "`vars.nope` is undefined"),
        ("{{ vars.nope | upper }}", "`vars.nope` is undefined"),
        ("{{ vars.nope.deeper }}", "`vars.nope` is undefined"),
        ("{{ vars.nope ~ 'x' }}", "`vars.nope` is undefined"),
        ("{{ vars.nope | sha256 | hex }}", "`vars.nope` is undefined"),
        ("{{ vars.nope + 1 }}", "`vars.nope` is undefined"),
        ("{{ [vars.nope] }}", "`vars.nope` is undefined"),
        ("{{ 'x' if false }}", "undefined"),
        ("{{ captured.token }}", "`captured` is undefined"),
        ("{{ vars.none }}x", "is null"),
        ("{{ vars.list }}x", "puts a list into text"),
    ] {
        assert!(run(template).contains(part), "{template}: {}", run(template));
    }
}

#[test]
fn unset_is_undefined_null_and_empty() {
    all(&[
        ("{{ vars.nope | default('d') }}", "\"d\""),
        ("{{ vars.none | default('d') }}", "\"d\""),
        ("{{ vars.empty | default('d') }}", "\"d\""),
        ("{{ vars.a | default('d') }}", "\"x\""),
        ("{{ 0 | default(1) }}", "0"),
        ("{{ false | default(true) }}", "false"),
        ("{{ vars.nope is defined }}", "false"),
        ("{{ vars.a is defined and vars.none is none }}", "true"),
    ]);
    let omit = |text: &str| Template::compile(text, &scope()).unwrap().render_set(&inputs(), Unset::Omitted).unwrap();
    for text in
        ["{{ vars.nope }}", "{{ vars.none }}", "{{ vars.empty }}", "x{{ vars.empty }}", "{{ vars.nope.x }}", "{{ vars.nope | upper }}"]
    {
        assert_eq!(omit(text), None, "{text}");
    }
    assert!(omit("{{ vars.a }}").is_some() && omit("constant").is_some());
}

#[test]
fn names_that_a_place_does_not_offer_are_mistakes_at_load() {
    let at = |text: &str, names: Names| Template::compile(text, &Scope::of(names)).unwrap_err();
    for (text, byte, message, hint) in [
        ("a {{ tenant }}", 5, "no input `tenant`", "text needs quotes"),
        ("{{ var.x }}", 3, "no input `var`", "`vars`"),
        ("{{ now }}", 3, "does not exist at this place", "vars"),
        ("{{ request.body }}", 3, "does not exist at this place", ""),
        ("{{ vars.x | uper }}", 12, "no filter `uper`", "`upper`"),
        ("{{ vars.x is definde }}", 13, "no test `is definde`", "`defined`"),
        ("{{ lookup('x') }}", 3, "no function `lookup`", ""),
        ("{{ sha256(vars.x) }}", 3, "no function `sha256`", "VALUE | sha256"),
        ("{{ vars.x.upper() }}", 9, "no methods", ""),
    ] {
        let mistakes = at(text, Names::FIXED);
        assert!(mistakes[0].message.contains(message), "{text}: {mistakes:?}");
        assert!(mistakes[0].hint.contains(hint), "{text}: {mistakes:?}");
        assert_eq!(mistakes[0].at, byte, "{text}: {mistakes:?}");
    }
    for text in ["{{ request }}", "{{ request.nope }}", "{{ client[vars.x] }}", "{{ request | json }}", "{{ client.claim }}"] {
        assert!(Template::compile(text, &scope()).is_err(), "{text}");
    }
}

#[test]
fn every_mistake_of_a_template_is_found_with_its_place() {
    let mistakes = Template::compile("a {{ nope }} b {{ vars.x | uper | lowr }} {{ 1 + }}", &scope()).unwrap_err();
    let places: Vec<usize> = mistakes.iter().map(|m| m.at).collect();
    assert_eq!((mistakes.len(), places[0]), (4, 5), "{mistakes:?}");
    assert!(places[1] >= 18 && places[3] >= 45, "{mistakes:?}");
}

#[test]
fn arguments_are_judged_at_load() {
    for text in [
        "{{ 'a' | replace('x') }}",
        "{{ 'a' | upper(1) }}",
        "{{ 'a' | regex('(') }}",
        "{{ 'a' | regex('a{1000}{1000}') }}",
        "{{ 'a' | regex('(?=x)') }}",
        "{{ now | plus('5 minutes') }}",
        "{{ now | date_format('%!') }}",
        "{{ vars.map | jwt('RS999', 'k') }}",
        "{{ vars.map | jwt(algorithm='HS256') }}",
        "{{ vars.map | jwt(algorithm='HS256', key='k', key_encoding='octal') }}",
        "{{ vars.map | jwt(algorithm='HS256', key='k', kid='x') }}",
        "{{ vars.map | jsonpath('a[?(@.b)]') }}",
        "{{ '<a/>' | xpath('a[') }}",
        "{{ 'a' | hmac_sha256 }}",
        "{{ 'a' | replace(*vars.list) }}",
        "{{ 'a' | epoch }}",
        "{{ now | upper }}",
        "{{ now | sha256 }}",
        "{{ now + 5 }}",
        "{{ 'a' | ecdsa_sha256('k', form='hex') }}",
    ] {
        assert!(run(text).starts_with("load: "), "{text}: {}", run(text));
    }
}

#[test]
fn bytes_and_moments_never_print() {
    for text in [
        "{{ 'a' | sha256 }}",
        "x{{ 'a' | sha256 }}",
        "{{ 'a' | sha256 ~ 'x' }}",
        "{{ ('a' | sha256) if vars.yes else 'b' }}",
        "{{ 'a' | sha256 | upper }}",
        "{{ 'a' | replace('a', vars.a | sha256) }}",
        "{{ ('a' | sha256)[:4] }}",
        "{{ request.body_sha256 }}",
        "x{{ now }}",
        "{{ 'x' ~ now }}",
    ] {
        assert!(run(text).starts_with("load: "), "{text}: {}", run(text));
    }
    for text in [
        "{{ [vars.a | sha256] }}",
        "{{ [vars.a | sha256] | first }}",
        "{{ [vars.a | sha256] | first | upper }}",
        "{{ [vars.a | sha256] | join(',') }}",
        "{{ [vars.a | sha256] | json }}",
        "{{ ([vars.a | sha256] | first) ~ 'x' }}",
        "{{ 'a' | replace('a', [vars.a | sha256] | first) }}",
        "{{ '%s' | format([vars.a | sha256] | first) }}",
        "{{ [now] | first | upper }}",
        "{{ [now] | json }}",
    ] {
        let result = run(text);
        assert!(result.starts_with("error: ") && (result.contains("bytes") || result.contains("moment")), "{text}: {result}");
    }
    all(&[("{{ 'a' | sha256 == 'a' | sha256 }}", "true"), ("{{ now > now | minus('1s') }}", "true")]);
}

#[test]
fn what_touches_a_secret_becomes_one() {
    for text in [
        "{{ secrets.key }}",
        "Bearer {{ secrets.key }}",
        "{{ secrets.key[:4] }}",
        "{{ secrets.key | length }}",
        "{{ secrets.key | sha256 | hex }}",
        "{{ 'a' if secrets.key == 'x' else 'b' }}",
        "{{ 'm' | hmac_sha256(secrets.key) | hex }}",
        "{{ secrets }}",
        "{{ secrets | json }}",
        "{{ [secrets.key] }}",
        "{{ secrets.json | parse_json }}",
        "{{ {'a': secrets.key} }}",
        "{{ secrets.values | default(secrets.key) }}",
        "{{ secrets | items | first | last }}",
        "{{ secrets | dictsort }}",
    ] {
        let template = Template::compile(text, &scope()).unwrap();
        let rendered = template.render(&inputs()).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(rendered.secret, "{text}");
        assert!(!format!("{rendered:?} {:?}", template).contains("hunter2"), "{text}");
    }
    for text in ["{{ vars.a }}", "{{ 'x' if false else 'y' }}", "{{ secrets.key if false else 'y' }}"] {
        assert!(!Template::compile(text, &scope()).unwrap().render(&inputs()).unwrap().secret, "{text}");
    }
}

#[test]
fn a_secret_in_vars_or_captures_taints_as_well() {
    let inputs =
        Given::default().with(Name::Vars, secrets(&[("s", "hunter2")])).with(Name::TokenAccess, Value::Secret(Secret::new("t0ken".into())));
    for text in ["{{ vars.s }}", "{{ vars.s ~ 'x' }}", "{{ token.access | upper }}", "{{ vars | json }}"] {
        assert!(Template::compile(text, &scope()).unwrap().render(&inputs).unwrap().secret, "{text}");
    }
}

#[test]
fn an_error_never_holds_a_value() {
    for text in [
        "{{ secrets.key | int }}",
        "{{ secrets.key + 1 }}",
        "{{ secrets.key | unhex | hex }}",
        "{{ secrets.key | b64url_decode | text }}",
        "{{ secrets.key.hunter2.x }}",
        "{{ -secrets.key }}",
        "{{ secrets.key | parse_json }}",
        "{{ secrets.key | parse_time }}",
        "{{ secrets.key | regex('z(z)') }}",
        "{{ 'm' | rsa_sha256(secrets.key) | hex }}",
        "{{ secrets.key | claims }}",
        "{{ secrets.key | xpath('/a') }}",
        "{{ 'x' | replace(secrets.key, 1) }}",
        "{{ secrets.key | format(1, 2, 3) }}",
        "{{ '%d' | format(secrets.key) }}",
        "{{ secrets.key | map(secrets.key) | list }}",
        "{{ vars.list | map(secrets.key) | list }}",
        "{{ vars.list | select(secrets.key) | list }}",
        "{{ vars.list | sort(attribute=secrets.key) }}",
        "{{ range(secrets.key) }}",
        "{{ vars.list[secrets.key] }}",
        "{{ secrets.key % 5 }}",
        "{{ 'a' | indent(secrets.key) }}",
        "{{ vars.map | jwt(algorithm=secrets.key, key='k') }}",
        "{{ now | date_format(secrets.key ~ '%!') }}",
        "{{ now | plus(secrets.key) | epoch }}",
        "{{ dict(secrets.key) }}",
        "{{ secrets.key | round }}",
        "{{ 1 is divisibleby secrets.key }}",
    ] {
        let template = Template::compile(text, &scope()).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        match template.render(&inputs()) {
            Err(failure) => assert!(!format!("{failure} {failure:?}").contains("hunter2h"), "{text}: {failure}"),
            Ok(rendered) => assert!(rendered.secret || text.contains("%s"), "{text}: {rendered:?}"),
        }
    }
}

#[test]
fn what_is_used_is_known_wherever_it_stands() {
    let names = |text: &str| Template::compile(text, &scope()).unwrap().names();
    for (text, name) in [
        ("{{ secrets.key[:4] }}", Name::Secrets),
        ("{{ 'a'[vars.n:] }}", Name::Vars),
        ("{{ 'x' | replace('a', request.method) }}", Name::RequestMethod),
        ("{{ {'a': [uuid]} }}", Name::Uuid),
        ("{{ 'a' if client.name == 'x' else 'b' }}", Name::ClientName),
        ("{{ request['headers']['x-foo'] }}", Name::RequestHeaders),
        ("{{ vars.list | map(default=request.path) | list }}", Name::RequestPath),
        ("{{ 1 is divisibleby(request.query.limit) }}", Name::RequestQuery),
        ("{{ dict(a=token.access) }}", Name::TokenAccess),
        ("{{ not (1 < captured.x < 2) }}", Name::Captured),
        ("{{ vars[client.claims.sub] }}", Name::ClientClaims),
        ("a {{ 1 }} {{ request.body | sha256 | hex }}", Name::RequestBody),
    ] {
        assert!(names(text).has(name), "{text}: {:?}", names(text));
    }
    assert!(names("{{ request.body_sha256 | hex }}").reads_body());
    assert!(!names("{{ request.path }}").reads_body());
    assert!(names("{{ now | epoch }}").is_volatile() && !names("{{ vars.a }}{{ base }}").is_volatile());
}

#[test]
fn inputs_have_their_shapes() {
    all(&[
        ("{{ request.headers['X-Foo'] }}", "\"bar\""),
        ("{{ request.query.tag }}", "[\"a\",\"b\"]"),
        ("{{ request.query.limit | int <= 100 }}", "true"),
        ("{{ request.body }}", "\"\""),
        ("{{ base }}/x", "\"https://api.example.com/v1/x\""),
        ("{{ vars.tricky }}", "\"{{ vars.a }}\""),
        ("{{ 'a' ~ vars.yes ~ vars.n }}", "\"atrue5\""),
        ("{{ [vars.yes, 1.5, 'x'] | join('-') }}", "\"true-1.5-x\""),
    ]);
}

#[test]
fn a_condition_is_true_or_false_and_nothing_else() {
    let holds = |text: &str| Condition::compile(text, &scope()).unwrap().holds(&inputs());
    assert_eq!(holds("vars.n > 3 and request.method == 'GET'"), Ok(true));
    assert_eq!(holds("request.query.limit | int <= 5"), Ok(false));
    assert!(holds("vars.nope != false").unwrap_err().undefined);
    assert!(holds("vars.a").unwrap_err().why.contains("neither true nor false"));
    assert!(holds("vars.nope").unwrap_err().undefined);
    assert!(holds("request.query.nope | int <= 5").unwrap_err().undefined);
    // Of an answer's body, what is not there compares as null.
    let answer = Given::default().with(Name::Body, json(r#"{"error":"expired"}"#)).with(Name::Status, Value::whole(200));
    let holds = |text: &str| Condition::compile(text, &Scope::of(Names::ANSWER)).unwrap().holds(&answer);
    assert_eq!(holds("body.ok != false and body.error == 'expired' and status in [200, 204]"), Ok(true));
    assert!(holds("body.count > 5").unwrap_err().undefined);
    assert!(holds("body.ok").unwrap_err().undefined);
    for text in ["{{ vars.n > 3 }}", "'x'", "5", "vars.n |", "", "${env:X}"] {
        assert!(Condition::compile(text, &scope()).is_err(), "{text}");
    }
}

#[test]
fn references_are_put_in_as_they_are_and_never_stand_inside() {
    let secret = Secret::new("{{ vars.a }}${env:X}'\"".into());
    let parts = [Part::Written("a {{ vars.a }} "), Part::Put("{{ vars.a }}"), Part::Secret(&secret), Part::Written("{{ vars.n }}")];
    let rendered = Template::of_parts(&parts, &scope()).unwrap().render(&inputs()).unwrap();
    assert!(rendered.secret);
    assert_eq!(shown(&rendered), r#"secret "a x {{ vars.a }}{{ vars.a }}${env:X}'\"5""#);
    assert!(run("{{ '${env:X}' }}").contains("cannot stand inside"));
    assert!(Template::of_parts(&[Part::Written("{{ vars."), Part::Put("a"), Part::Written(" }}")], &scope()).is_err());
}

#[test]
fn what_urlencode_made_is_not_encoded_again() {
    let placed = |text: &str| {
        let rendered = Template::compile(text, &scope()).unwrap().render_placed(&inputs(), place::query).unwrap();
        shown(&rendered)
    };
    assert_eq!(placed("a b {{ 'c d&' }}"), "\"a%20b%20c%20d%26\"");
    assert_eq!(placed("{{ 'c d&' | urlencode }}"), "\"c%20d%26\"");
    assert_eq!(placed("{{ 'c d' | formencode }}"), "\"c+d\"");
    assert_eq!(placed("{{ ('c d' | urlencode) ~ '&' }}"), "\"c%2520d%26\"");
    assert_eq!(placed("{{ '%20' }}"), "\"%2520\"");
}

// RFC 1321, FIPS 180-4, RFC 2202, RFC 4231.
#[test]
fn hashes_agree_with_their_vectors() {
    all(&[
        ("{{ 'abc' | md5 | hex }}", "\"900150983cd24fb0d6963f7d28e17f72\""),
        ("{{ 'abc' | sha1 | hex }}", "\"a9993e364706816aba3e25717850c26c9cd0d89d\""),
        ("{{ 'abc' | sha256 | hex }}", "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\""),
        (
            "{{ 'abc' | sha512 | hex }}",
            "\"ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f\"",
        ),
        ("{{ 'what do ya want for nothing?' | hmac_sha1('Jefe') | hex }}", "\"effcdf6ae5eb2fa2d27416d5f184df9c259a7c79\""),
        (
            "{{ 'what do ya want for nothing?' | hmac_sha256('Jefe') | hex }}",
            "\"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843\"",
        ),
        (
            "{{ 'Hi There' | hmac_sha256('0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b' | unhex) | hex }}",
            "\"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7\"",
        ),
        (
            "{{ 'what do ya want for nothing?' | hmac_sha512('Jefe') | hex }}",
            "\"164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737\"",
        ),
    ]);
}

// RFC 8032 section 7.1, tests 2 and 3.
#[test]
fn ed25519_agrees_with_its_vectors() {
    all(&[
        (
            "{{ ('72' | unhex) | ed25519('4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb' | unhex) | hex }}",
            "\"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00\"",
        ),
        (
            "{{ ('af82' | unhex) | ed25519('c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7' | unhex) | hex }}",
            "\"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a\"",
        ),
    ]);
}

#[test]
fn text_is_encoded_and_decoded() {
    all(&[
        ("{{ 'a?>~' | b64encode }}", "\"YT8+fg==\""),
        ("{{ 'a?>~' | b64url }}", "\"YT8-fg\""),
        ("{{ 'YT8+fg' | b64decode | text }}", "\"a?>~\""),
        ("{{ 'YT8-fg==' | b64url_decode | text }}", "\"a?>~\""),
        ("{{ 'C3BF' | unhex | text }}", "\"ÿ\""),
        ("{{ vars.price | hex }}", "\"312e3130\""),
        ("{{ 'a b+c/ü' | urlencode }}", "\"a%20b%2Bc%2F%C3%BC\""),
        ("{{ request.raw_query | canonical_query }}", "\"a=1%201&a=~&b=2\""),
        ("{{ '?z&a=%zz&b=%2F' | canonical_query }}", "\"a=%25zz&b=%2F&z=\""),
        ("{{ '<a&' | xml_escape }}", "\"&lt;a&amp;\""),
        ("{{ {'a': 1, 'b': [true, null]} | json }}", r#""{\"a\":1,\"b\":[true,null]}""#),
        ("{{ '{\"n\": 1.10}' | parse_json }}", r#"{"n":1.10}"#),
        ("{{ '{\"a\": [{\"b\": 7}]}' | jsonpath('a[0].b') }}", "7"),
        ("{{ vars.map | jsonpath('nope') | default('d') }}", "\"d\""),
        ("{{ '<a><b>x</b></a>' | xpath('/a/b') }}", "\"x\""),
        ("{{ 'id=42;' | regex('id=(\\\\d+)') }}", "\"42\""),
        ("{{ 'id=42;' | regex('[0-9]') }}", "\"4\""),
    ]);
    assert!(run("{{ 'x' | regex('y') }}").contains("found nothing"));
    assert!(run("{{ '_-' | b64decode | hex }}").contains("no base64"));
    assert!(run("{{ 'ff' | unhex | text }}").contains("no UTF-8"));
}

#[test]
fn moments_are_moved_and_written() {
    all(&[
        ("{{ now | epoch }}", "1714564800"),
        ("{{ now | int }}", "1714564800"),
        ("{{ now | epoch_ms }}", "1714564800007"),
        ("{{ now | rfc3339 }}", "\"2024-05-01T12:00:00.007Z\""),
        ("{{ now | http_date }}", "\"Wed, 01 May 2024 12:00:00 GMT\""),
        ("{{ now | date_format('%Y%m%dT%H%M%S.%3fZ') }}", "\"20240501T120000.007Z\""),
        ("{{ now | plus('5m') | epoch }}", "1714565100"),
        ("{{ now | plus(90) | minus('1d') | date_format('%F %T') }}", "\"2024-04-30 12:01:30\""),
        ("{{ 'Wed, 01 May 2024 12:00:00 GMT' | parse_time | epoch }}", "1714564800"),
        ("{{ 1714564800 | parse_time | rfc3339 }}", "\"2024-05-01T12:00:00Z\""),
    ]);
}

// RFC 7515 appendix A.1 is signed over white space that no writer makes, so tokens are read back by another's code.
#[test]
fn a_jwt_is_signed_and_others_can_verify_it() {
    use jsonwebtoken::{DecodingKey, Validation, decode};

    let template = "{{ {'iss': 'me', 'aud': ['a', 'b'], 'exp': now | plus('5m'), 'n': vars.big} | jwt(algorithm='HS256', key=secrets.key, header={'kid': 'k1', 'typ': null}) }}";
    let rendered = Template::compile(template, &scope()).unwrap().render_text(&inputs()).unwrap();
    let Value::Secret(jwt) = &rendered.value else { panic!("{rendered:?}") };
    let mut validation = Validation::new(jsonwebtoken::Algorithm::HS256);
    validation.set_audience(&["a"]);
    validation.validate_exp = false;
    let token = decode::<serde_json::Value>(jwt.expose(), &DecodingKey::from_secret(b"hunter2hunter2"), &validation).unwrap();
    assert_eq!(token.claims["exp"].to_string(), "1714565100");
    assert_eq!(token.claims["n"].to_string(), "12345678901234567890");
    assert_eq!((token.header.kid.as_deref(), token.header.typ), (Some("k1"), None));
    all(&[("{{ {'sub': 'x', 'n': 5} | jwt('HS512', '00ff', 'hex') | claims }}", r#"{"sub":"x","n":5}"#)]);
}

#[test]
fn the_work_the_size_and_the_depth_of_a_result_are_bounded() {
    let long = "x".repeat(template::OUTPUT_MAX / 2);
    let inputs = Given::default().with(Name::Vars, Value::Map(std::sync::Arc::new(Map::new([("t".into(), Value::text(long))]))));
    let failure = |text: &str| Template::compile(text, &scope()).unwrap().render(&inputs).unwrap_err().why;
    assert!(failure("{{ vars.t }}{{ vars.t }}{{ vars.t }}").contains("longer than"));
    assert!(failure("{{ vars.t * 1000 }}").contains("more work"));
    assert!(failure("{{ range(100000) | list }}").contains("values") || failure("{{ range(100000) | list }}").contains("work"));
    let nested = format!("{{{{ {}1{} }}}}", "[".repeat(30), "]".repeat(30));
    assert!(Template::compile(&nested, &scope()).unwrap_err()[0].message.contains("nested"));
    assert!(Template::compile(&"x".repeat(template::TEMPLATE_MAX + 1), &scope()).is_err());
    assert!(Template::compile(&"{{ 1 }}".repeat(template::EXPRESSIONS_MAX + 1), &scope()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_value_becomes_structure(value in any::<String>()) {
        let inputs = Given::default().with(Name::Vars, Value::Map(std::sync::Arc::new([("v", Value::text(value.clone()))].into_iter().collect())));
        let render = |text: &str| Template::compile(text, &scope()).unwrap().render(&inputs).unwrap();
        prop_assert_eq!(render("{{ vars.v }}").value, Value::text(value.clone()));
        let Value::Text(text) = render("a{{ vars.v }}b").value else { panic!() };
        prop_assert_eq!(&*text, format!("a{value}b"));
        let Value::Text(json) = render("{{ {'a': vars.v} | json }}").value else { panic!() };
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(read["a"].as_str(), Some(&*value));
    }

    #[test]
    fn no_template_makes_it_panic(text in "(\\{\\{)?[a-z.|'\" ()\\[\\]{},:~+*0-9%=<>-]{0,30}(\\}\\})?") {
        if let Ok(template) = Template::compile(&text, &scope()) {
            let _ = template.render(&inputs());
        }
    }
}
