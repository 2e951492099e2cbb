//! Templates that mean harm: each ends in a clear error, or in exactly the bytes that it should. What bounds them is
//! fuel and size, so no test looks at a clock; `how_long_they_take` prints it for whoever asks (`--nocapture`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tests::{EVERYWHERE, shown};
use super::*;
use crate::secret::Secret;

/// How one ends.
enum Ends {
    /// Refused when it is compiled, with this in the message.
    Load(&'static str),
    /// Refused when it is evaluated, with this in the message.
    Run(&'static str),
    /// Either of the two, with anything: it depends on which bound is met first.
    Refused,
    /// With this result.
    As(String),
}

use Ends::{As, Load, Refused, Run};

fn is(text: &str) -> Ends {
    As(text.to_owned())
}

fn inputs() -> Given {
    let hostile = [
        ("brace", "{{ secrets.key }}"),
        ("statement", "{% for x in range(9) %}{% endfor %}"),
        ("reference", "${env:HOME}"),
        ("quote", "\"'`"),
        ("line", "a\r\nHost: evil"),
        ("nul", "\u{0}"),
        ("cdata", "]]>"),
        ("tag", "</a><b>"),
        ("amp", "&x=1#y?z"),
        ("slash", "../../etc"),
        ("backslash", "\\"),
        ("percent", "%s%n%2e"),
        ("wide", "\u{202e}ü😀"),
        ("long", &"x".repeat(100_000)),
        ("deep", &"[".repeat(10_000)),
    ];
    let vars = hostile.iter().map(|(name, text)| (*name, Value::text(*text)));
    let many = Value::List((0..10_000).map(Value::whole).collect());
    let vars: Map = vars.chain([("many", many), ("n", Value::whole(1_000_000))]).collect();
    let secrets: Map = [("key", Value::Secret(Secret::new("hunter2hunter2".into())))].into_iter().collect();
    Given::default()
        .with(Name::Vars, Value::Map(Arc::new(vars)))
        .with(Name::Secrets, Value::Map(Arc::new(secrets)))
        .with(Name::Now, Value::Moment(Moment::from_millis(1_714_564_800_000).unwrap()))
        .with(Name::RequestQuery, Value::from_json(r#"{"q":["a","b"]}"#).unwrap())
}

fn cases() -> Vec<(String, Ends)> {
    let fixed: Vec<(&str, Ends)> = vec![
        // Statements, which do not exist.
        ("{% for x in range(1000000000) %}x{% endfor %}", Load("`{%`")),
        ("{% set x = 1 %}{{ x }}", Load("`{%`")),
        ("{% include '/etc/passwd' %}", Load("`{%`")),
        ("{% import 'x' as y %}", Load("`{%`")),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", Load("`{%`")),
        ("{% raw %}{{ x }}{% endraw %}", Load("`{%`")),
        ("{%- if true -%}x{%- endif -%}", Load("`{%`")),
        ("{# comment #}", Load("`{#`")),
        ("{{ 1 }}{# x", Load("`{#`")),
        ("{{- 'x' }}", Load("`{{-`")),
        // Giant texts.
        ("{{ 'x' * 1000000000 }}", Run("more work")),
        ("{{ 1000000000 * 'x' }}", Run("more work")),
        ("{{ 'x' * vars.n * vars.n }}", Run("more work")),
        ("{{ ('x' * 1000) * 1000 * 1000 }}", Run("more work")),
        ("{{ vars.long * 100 }}", Run("more work")),
        ("{{ vars.long | replace('x', vars.long) }}", Run("more work")),
        ("{{ vars.long | replace('', vars.long) }}", Run("more work")),
        ("{{ vars.many | join(vars.long) }}", Run("more work")),
        ("{{ '%1000000000d' | format(1) }}", Refused),
        ("{{ '%-1000000000s' | format('x') }}", Refused),
        ("{{ '%.1000000000f' | format(1.5) }}", Refused),
        ("{{ '%*d' | format(1000000000, 1) }}", Refused),
        ("{{ 'x' | center(1000000000) }}", Load("no filter `center`")),
        ("{{ 'x\n' | indent(1000000000, true, true) }}", Refused),
        ("{{ ('x\n' * 1000) | indent(10000, true) }}", Refused),
        ("{{ range(1000000000) | list }}", Refused),
        ("{{ range(100000) | list }}", Refused),
        ("{{ range(100000) | map('string') | join(vars.long) }}", Run("more work")),
        ("{{ range(9999) | sum }}", is("49985001")),
        ("{{ range(99999) | sum }}", Run("more work")),
        ("{{ [0] * 1000000000 }}", Refused),
        ("{{ ([0] * 1000000000) | length }}", Refused),
        ("{{ ([0] * 1000000000) | list | length }}", Refused),
        ("{{ ([0] * 1000000000) | last }}", Refused),
        ("{{ ([0] * 1000000000) | reverse | first }}", Refused),
        ("{{ (vars.many * 1000) | sort | first }}", Refused),
        ("{{ (vars.many * 100) | unique | list | length }}", Refused),
        ("{{ 5 in ([0] * 1000000000) }}", Refused),
        ("{{ ([0] * 1000000000) == ([0] * 1000000000) }}", Refused),
        ("{{ (vars.many | batch(1)) | list | length }}", is("10000")),
        ("{{ vars.many | slice(1000000000) | list }}", Refused),
        ("{{ vars.many | groupby('x') }}", Refused),
        ("{{ vars.many | json | length }}", is("48891")),
        (
            "{{ vars.many | json | parse_json | json | parse_json | json | parse_json | json | parse_json | json | parse_json | length }}",
            Refused,
        ),
        ("{{ 2 ** 1000000 }}", Refused),
        ("{{ 9999999999 ** 9999999999 }}", Refused),
        ("{{ 99999999999999999999999999999999999999 * 99999999999999999999999999999999999999 }}", Refused),
        ("{{ 1 // 0 }}", Refused),
        ("{{ 1 % 0 }}", Refused),
        ("{{ 1 / 0 }}", Refused),
        ("{{ 1e400 }}", Refused),
        ("{{ -170141183460469231731687303715884105728 - 1 }}", Refused),
        ("{{ vars.long | hex | hex | length }}", is("400000")),
        ("{{ vars.long | hex | hex | hex | hex | hex | hex | hex | hex | hex | hex | hex }}", Run("more work")),
        ("{{ vars.long | b64encode | urlencode | urlencode | urlencode | length }}", is("133348")),
        ("{{ vars.long | title | upper | lower | capitalize | trim | length }}", is("100000")),
        // Patterns.
        ("{{ vars.long | regex('(x+x+)+y') }}", Run("found nothing")),
        ("{{ vars.long | regex('(x|x)*$') | length }}", is("1")),
        ("{{ vars.long | regex('x{0,1000}{0,1000}') }}", Load("too large")),
        ("{{ vars.long | regex('((((((((((x*)*)*)*)*)*)*)*)*)*)y') }}", Run("found nothing")),
        ("{{ vars.long | regex(vars.long) }}", Run("longer than")),
        ("{{ vars.long | regex(vars.deep) }}", Run("longer than")),
        ("{{ (vars.long * 3) | regex('x') }}", Run("at most")),
        ("{{ 'a' | regex('(a') }}", Load("a mistake")),
        ("{{ 'a' | regex('(?P<a') }}", Load("a mistake")),
        ("{{ 'aa' | regex('(a)\\\\1') }}", Load("a mistake")),
        // Nesting.
        ("{{ vars.deep | parse_json }}", Run("nested too deeply")),
        ("{{ vars.deep | jsonpath('a') }}", Run("nested too deeply")),
        ("{{ vars.tag | xpath('//a') }}", Run("end tag")),
        ("{{ '<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>' | xpath('/a') }}", Run("document types")),
        ("{{ '<a>&#0;</a>' | xpath('/a') }}", Run("entity")),
        // Names.
        ("{{ nope }}", Load("no input `nope`")),
        ("{{ self }}", Load("no input `self`")),
        ("{{ loop.index }}", Load("no input `loop`")),
        ("{{ __class__ }}", Load("no input")),
        ("{{ env.HOME }}", Load("no input `env`")),
        ("{{ debug() }}", Load("no function `debug`")),
        ("{{ namespace() }}", Load("no function `namespace`")),
        ("{{ super() }}", Load("no function")),
        ("{{ self.x() }}", Load("no methods")),
        ("{{ vars.__class__.__mro__ }}", Run("undefined")),
        ("{{ ''.__class__ }}", Run("undefined")),
        ("{{ ''.join(vars.many) }}", Load("no methods")),
        ("{{ vars.many.append(1) }}", Load("no methods")),
        ("{{ (vars.long | attr('x')) }}", Load("no filter `attr`")),
        ("{{ vars.tag | safe }}", Load("no filter `safe`")),
        ("{{ vars.tag | e }}", Load("no filter `e`")),
        ("{{ vars | pprint }}", Load("no filter `pprint`")),
        ("{{ vars.many | map('~', 'x') | first }}", is("\"0x\"")),
        ("{{ vars.many | map('nope') | list }}", Run("does not exist")),
        ("{{ vars.many | select('nope') | list }}", Run("does not exist")),
        ("{{ vars['nope']['deeper'] }}", Run("undefined")),
        ("{{ vars.many[99999999999] }}", Run("undefined")),
        ("{{ vars.many[-99999999999] }}", Run("undefined")),
        ("{{ vars.many[::0] }}", Refused),
        ("{{ vars.many[99999999999:] }}", is("[]")),
        ("{{ secrets.nope }}", Run("undefined")),
        ("{{ request }}", Load("not a value by itself")),
        ("{{ captured.x }}", Run("undefined")),
        // Broken.
        ("{{", Load("lacks its `}}`")),
        ("{{ 'x", Load("closing quote")),
        ("{{ x }", Load("`}`")),
        ("{{ }}", Load("empty")),
        ("{{ | upper }}", Load("mistake")),
        ("{{ 'a' | }}", Load("mistake")),
        ("{{ 'a' 'b' }}", is("\"ab\"")),
        ("{{ 1 + }}", Load("mistake")),
        ("{{ ((1) }}", Load("`}`")),
        ("{{ (1)) }}", Load("mistake")),
        ("{{ a = 1 }}", Load("")),
        ("{{ for }}", Load("")),
        ("{{ lambda: 1 }}", Load("")),
        ("{{ '\\x' }}", Refused),
        ("{{ '\\ud800' }}", Refused),
        ("{{ `a` }}", Load("mistake")),
        ("{{ \u{0} }}", Load("")),
        ("{{ '${env:HOME}' }}", Load("cannot stand inside")),
        ("{{ {{ vars.n }} }}", Load("")),
        // Values that look like structure stay what they are.
        ("{{ vars.brace }}", is(r#""{{ secrets.key }}""#)),
        ("{{ vars.brace }}{{ '{{' }}", is(r#""{{ secrets.key }}{{""#)),
        ("{{ vars.statement }}", is(r#""{% for x in range(9) %}{% endfor %}""#)),
        ("{{ vars.reference }}", is(r#""${env:HOME}""#)),
        ("{{ vars.quote }}", is(r#""\"'`""#)),
        ("{{ vars.line }}", is(r#""a\r\nHost: evil""#)),
        ("{{ vars.nul }}", is(r#""\u0000""#)),
        ("{{ vars.cdata | xml_escape }}", is(r#""]]&gt;""#)),
        ("{{ vars.tag | xml_escape }}", is(r#""&lt;/a&gt;&lt;b&gt;""#)),
        ("{{ vars.nul | xml_escape }}", Run("control character")),
        ("{{ vars.amp | urlencode }}", is(r#""%26x%3D1%23y%3Fz""#)),
        ("{{ vars.slash | urlencode }}", is(r#""..%2F..%2Fetc""#)),
        ("{{ {'a': vars.quote} | json }}", is(r#""{\"a\":\"\\\"'`\"}""#)),
        ("{{ {vars.quote: 1} }}", is(r#"{"\"'`":1}"#)),
        ("{{ vars.percent | format(1) }}", Refused),
        ("{{ vars.backslash ~ vars.quote }}", is(r#""\\\"'`""#)),
        ("{{ vars.wide | length }}", is("3")),
        ("{{ vars.wide[::-1] }}", is("\"😀ü\u{202e}\"")),
        ("{{ request.query.q ~ 'x' }}", Run("puts a list into text")),
        ("{{ vars.quote | regex('[`]') }}", is(r#""`""#)),
        ("{{ vars.brace | replace('{{', '') }}", is(r#"" secrets.key }}""#)),
        ("{{ vars.brace | string | default('x') | upper | lower }}", is(r#""{{ secrets.key }}""#)),
        // Time.
        ("{{ now | plus('99999999999d') }}", Load("duration")),
        ("{{ now | plus(1e300) }}", Refused),
        ("{{ now | plus(-5) }}", Refused),
        ("{{ now | plus('3650d') | plus('3650d') | epoch }}", is("2345284800")),
        ("{{ now | date_format('%9999999999Y') }}", Load("width")),
        ("{{ now | date_format(vars.long) }}", Run("too long")),
        ("{{ '99999999999999999999' | parse_time }}", Run("no moment")),
        ("{{ vars.long | parse_time }}", Run("no moment")),
        // Signatures cost what they cost.
        ("{{ vars.long | claims }}", Refused),
        ("{{ 'a.b.c' | claims }}", Run("no JWT")),
        ("{{ {'alg': 'none'} | jwt(algorithm='none', key='') }}", Load("`algorithm`")),
        ("{{ {'a': 1} | jwt(algorithm='HS256', key='') }}", Run("key is empty")),
        ("{{ {'a': 1} | jwt(algorithm='HS256', key='k', header={'alg': 'none'}) }}", Run("another algorithm")),
        ("{{ 'm' | rsa_sha256(vars.long) | hex }}", Run("key")),
    ];
    let mut cases: Vec<(String, Ends)> = fixed.into_iter().map(|(text, ends)| (text.to_owned(), ends)).collect();
    let grown: Vec<(String, Ends)> = vec![
        (format!("{{{{ {}1{} }}}}", "(".repeat(3000), ")".repeat(3000)), Load("nested more than")),
        (format!("{{{{ {}1{} }}}}", "[".repeat(3000), "]".repeat(3000)), Load("nested more than")),
        (format!("{{{{ {}1{} }}}}", "{'a':".repeat(1000), "}".repeat(1000)), Load("nested more than")),
        (format!("{{{{ {}true }}}}", "not ".repeat(2000)), Load("words and signs")),
        (format!("{{{{ {}1 }}}}", "-".repeat(5000)), Load("")),
        (format!("{{{{ {}1 }}}}", "- ".repeat(300)), is("1")),
        (format!("{{{{ 1{} }}}}", " + 1".repeat(2000)), Load("words and signs")),
        (format!("{{{{ 1{} }}}}", " + 1".repeat(190)), is("191")),
        (format!("{{{{ 'x'{} }}}}", " | upper".repeat(1000)), Load("words and signs")),
        (format!("{{{{ 'x'{} }}}}", " | upper".repeat(190)), is("\"X\"")),
        (format!("{{{{ vars{} }}}}", ".a".repeat(4000)), Load("words and signs")),
        (format!("{{{{ vars{} }}}}", ".a".repeat(190)), Run("undefined")),
        (format!("{{{{ vars{} }}}}", "['a']".repeat(100)), Run("undefined")),
        (format!("{{{{ 1{} }}}}", " if true else 2".repeat(90)), is("1")),
        (format!("{{{{ 2{} }}}}", " ** 1".repeat(150)), is("2")),
        (format!("{{{{ 1{} }}}}", " < 2".repeat(150)), is("false")),
        (format!("{{{{ 'a'{} }}}}", " ~ 'a'".repeat(150)), As(format!("\"{}\"", "a".repeat(151)))),
        (format!("{{{{ [{}] | length }}}}", "1,".repeat(150)), is("150")),
        (format!("{{{{ 'm'{} | hex | length }}}}", " | hmac_sha512('k')".repeat(60)), is("128")),
        (
            format!(
                "{{{{ 'm'{} | hex | length }}}}",
                " | ed25519('00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff' | unhex)".repeat(30)
            ),
            Run("more work"),
        ),
        ("{{ 1 }}".repeat(65), Load("more than 64")),
        ("{{ vars.long }}".repeat(20), Run("longer than")),
        ("{{ vars.long * 2 }}".repeat(20), Run("longer than")),
        (format!("{{{{ '{}' }}}}", "x".repeat(10_000)), Load("longer than")),
        ("x".repeat(70_000), Load("longer than")),
        (format!("{{{{ {} }}}}", "'".repeat(301)), Load("")),
        ("{".repeat(1000), Load("")),
        ("}".repeat(1000), As(format!("\"{}\"", "}".repeat(1000)))),
        ("{{'{{'}}".repeat(60), As(format!("\"{}\"", "{{".repeat(60)))),
    ];
    cases.extend(grown);
    cases
}

fn run(text: &str, inputs: &Given) -> Result<Result<String, String>, String> {
    let scope = Scope::of(EVERYWHERE);
    let template = Template::compile(text, &scope).map_err(|m| m[0].message.clone())?;
    Ok(template.render(inputs).map(|r| shown(&r)).map_err(|f| f.why))
}

#[test]
fn a_hundred_hostile_templates_end_as_they_should() {
    let cases = cases();
    let inputs = inputs();
    let mut wrong = Vec::new();
    for (text, ends) in &cases {
        let result = run(text, &inputs);
        let good = match (ends, &result) {
            (Load(part), Err(message)) | (Run(part), Ok(Err(message))) => message.contains(part),
            (Refused, Err(message) | Ok(Err(message))) => !message.is_empty(),
            (As(expected), Ok(Ok(result))) => result == expected,
            _ => false,
        };
        if !good || format!("{result:?}").contains("hunter2") {
            let shown = |text: &str| text.chars().take(120).collect::<String>();
            wrong.push(format!("{}: {}", shown(text), shown(&format!("{result:?}"))));
        }
    }
    assert!(cases.len() >= 100, "{}", cases.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn how_long_they_take() {
    let inputs = inputs();
    let mut took: Vec<(Duration, String)> = cases()
        .into_iter()
        .map(|(text, _)| {
            let start = Instant::now();
            let _ = run(&text, &inputs);
            (start.elapsed(), text.chars().take(80).collect())
        })
        .collect();
    took.sort_unstable_by(|a, b| b.cmp(a));
    println!("{} templates; the slowest: {:#?}", took.len(), &took[..8]);
}
