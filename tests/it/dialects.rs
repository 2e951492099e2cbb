//! The smaller variations that real APIs ask for, each as a few lines of configuration and what then arrives; and the
//! page that names all of them, held to tests and keys that exist.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::browser::{Browser, Stand, given, landed, param};
use crate::support::issuer::{Issuer, decoded, json_answer, minted};
use crate::support::{Gateway, Seen, Upstream, eventually, free_port, root};

const KEY: &str = "k3y-0123456789";
const VARIABLES: [(&str, &str); 2] = [("KEY", KEY), ("ENCODED", "QWxhZGRpbjpvcGVuIHNlc2FtZQ==")];

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// Lines under a key, two deep.
fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// A field that arrives with this value, or not at all.
type Field = (&'static str, Option<String>);

#[test]
fn static_credentials_and_settings_arrive_as_they_are_wanted() {
    let upstream = Upstream::ok();
    let up = upstream.url();
    let base = format!("base_url: \"{up}\"\n");
    let cases: Vec<(&str, String, &str, Vec<Field>)> = vec![
        (
            "a Basic value that somebody has encoded already",
            base.clone() + "auth: { api_key: { in: header, name: Authorization, value: \"Basic ${env:ENCODED}\" } }",
            "/x",
            vec![("authorization", Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".into()))],
        ),
        (
            "the key as password of an empty user",
            base.clone() + "auth: { basic: { username: \"\", password: \"${env:KEY}\" } }",
            "/x",
            vec![("authorization", Some(basic(&format!(":{KEY}"))))],
        ),
        (
            "the key as user with a filler for a password",
            base.clone() + "auth: { basic: { username: \"${env:KEY}\", password: \"${env:FILLER:-api_token}\" } }",
            "/x",
            vec![("authorization", Some(basic(&format!("{KEY}:api_token"))))],
        ),
        (
            "a word before the secret in a header of the vendor's own",
            base.clone() + "auth: { api_key: { in: header, name: X-Auth, value: \"Key ${env:KEY}\" } }",
            "/x",
            vec![("x-auth", Some(format!("Key {KEY}"))), ("authorization", None)],
        ),
        (
            "Basic of several values by expression",
            base.clone()
                + "vars: { user: u, site: s }\nsecrets: { key: \"${env:KEY}\" }\nauth: { api_key: { in: header, name: Authorization, value: \"Basic {{ (vars.user ~ '@' ~ vars.site ~ ':' ~ secrets.key) | b64encode }}\" } }",
            "/x",
            vec![("authorization", Some(basic(&format!("u@s:{KEY}"))))],
        ),
        (
            "part of a secret, and a second one beside the main credential",
            base.clone()
                + "secrets: { key: \"${env:KEY}\" }\nauth: { bearer: \"${env:ENCODED}\" }\nheaders: { X-Part: \"{{ secrets.key[:3] }}\", X-Second: \"{{ secrets.key }}\" }",
            "/x",
            vec![
                ("x-part", Some("k3y".into())),
                ("x-second", Some(KEY.into())),
                ("authorization", Some("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==".into())),
            ],
        ),
        (
            "a header that is dropped, and one with a default, where a variable is unset",
            base.clone()
                + "headers:\n  X-Org: { value: \"{{ vars.org }}\", omit_if_unset: true }\n  X-Region: \"{{ vars.region | default('eu') }}\"",
            "/x",
            vec![("x-org", None), ("x-region", Some("eu".into()))],
        ),
        (
            "the same where they are set",
            base.clone()
                + "vars: { org: acme, region: us }\nheaders:\n  X-Org: { value: \"{{ vars.org }}\", omit_if_unset: true }\n  X-Region: \"{{ vars.region | default('eu') }}\"",
            "/x",
            vec![("x-org", Some("acme".into())), ("x-region", Some("us".into()))],
        ),
        (
            "a parameter from a variable",
            base.clone() + "vars: { site: \"a b\" }\nparams: { site: \"{{ vars.site }}\" }",
            "/x?site=a%20b",
            Vec::new(),
        ),
        (
            "a User-Agent that wins over the client's",
            base + "headers: { User-Agent: { value: acme/1.0 (ops@acme.example), locked: true } }",
            "/x",
            vec![("user-agent", Some("acme/1.0 (ops@acme.example)".into()))],
        ),
        ("a base path with a slash at its end", format!("base_url: \"{up}/base/\""), "/base/x", Vec::new()),
        ("a base path without one", format!("base_url: \"{up}/base\""), "/base/x", Vec::new()),
        ("a base path that the caller's path repeats", format!("base_url: \"{up}/x\""), "/x/x", Vec::new()),
        ("no base path but a slash", format!("base_url: \"{up}/\""), "/x", Vec::new()),
        (
            "the whole base URL in a variable",
            format!(
                "vars: {{ url: \"{up}/v2/\" }}\nbase_url: \"{{{{ vars.url }}}}\"\nhosts: [\"127.0.0.1:{}\"]\nallow_private: true",
                upstream.port
            ),
            "/v2/x",
            Vec::new(),
        ),
        (
            "a second base URL where the variable is unset",
            format!(
                "base_url: \"{{{{ vars.url | default('{up}/fallback') }}}}\"\nhosts: [\"127.0.0.1:{}\"]\nallow_private: true",
                upstream.port
            ),
            "/fallback/x",
            Vec::new(),
        ),
        (
            "an endpoint made of service and region unless it is said",
            format!(
                "vars: {{ service: api, region: eu }}\nbase_url: \"{{{{ vars.endpoint | default('{up}/' ~ vars.service ~ '/' ~ vars.region) }}}}\"\nhosts: [\"127.0.0.1:{}\"]\nallow_private: true",
                upstream.port
            ),
            "/api/eu/x",
            Vec::new(),
        ),
    ];
    let resources: String = cases.iter().enumerate().map(|(at, (_, text, ..))| format!("  r{at}:\n{}", indented(text))).collect();
    let gateway = Gateway::start_with(&format!("resources:\n{resources}"), &VARIABLES);
    for (at, (what, _, target, fields)) in cases.iter().enumerate() {
        let reply = gateway.send("GET", &format!("/r/r{at}/x"), "User-Agent: curl/8\r\nAuthorization: mine\r\n", b"");
        assert_eq!(reply.status, 200, "{what}: {}", reply.text());
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(seen.target(), *target, "{what}");
        for (name, value) in fields {
            assert_eq!(seen.fields(name), value.iter().map(String::as_str).collect::<Vec<_>>(), "{what}");
        }
        assert!(!seen.head.contains("mine"), "{what}: {}", seen.head);
    }
}

/// What an issuer must have seen, beside the token that the upstream got.
type Wanted = fn(&Seen) -> bool;

fn body(seen: &Seen) -> String {
    String::from_utf8_lossy(&seen.body).into_owned()
}

#[test]
fn odd_token_calls_arrive_as_they_are_wanted() {
    let issuer = Issuer::answering(|_, _, stream| json_answer(stream, &minted(1, 3600)));
    let api = Upstream::ok();
    let at = issuer.server.url();
    let client = format!("token_url: \"{at}/token\", client_id: id, client_secret: \"${{env:KEY}}\"");
    let cases: Vec<(&str, String, Wanted, (&str, &str))> = vec![
        (
            "the client's id repeated as a header of the API",
            format!(
                "vars: {{ id: the-id }}\nheaders: {{ Client-Id: \"{{{{ vars.id }}}}\" }}\nauth: {{ oauth2_client_credentials: {{ token_url: \"{at}/token\", client_id: \"{{{{ vars.id }}}}\", client_secret: \"${{env:KEY}}\", client_auth: post }} }}"
            ),
            |seen| body(seen).contains("client_id=the-id"),
            ("client-id", "the-id"),
        ),
        (
            "a second token URL where the variable is unset",
            format!(
                "hosts: [\"127.0.0.1:{}\"]\nallow_private: true\nauth: {{ oauth2_client_credentials: {{ token_url: \"{{{{ vars.token_url | default('{at}/fallback') }}}}\", client_id: id, client_secret: \"${{env:KEY}}\" }} }}",
                issuer.server.port
            ),
            |seen| seen.line() == "POST /fallback HTTP/1.1",
            ("authorization", "Bearer token-1"),
        ),
        (
            "headers of the token call from variables",
            format!(
                "vars: {{ tenant: acme }}\nauth: {{ oauth2_client_credentials: {{ {client}, headers: {{ X-Tenant: \"{{{{ vars.tenant }}}}\" }} }} }}"
            ),
            |seen| seen.field("x-tenant") == Some("acme"),
            ("authorization", "Bearer token-1"),
        ),
        (
            "a token call that a long-lived token authenticates",
            format!(
                "secrets: {{ key: \"${{env:KEY}}\" }}\nauth: {{ oauth2_client_credentials: {{ token_url: \"{at}/token\", headers: {{ Authorization: \"Bearer {{{{ secrets.key }}}}\" }}, params: {{ grant_type: null, scope: all }} }} }}"
            ),
            |seen| seen.fields("authorization") == ["Bearer k3y-0123456789"] && body(seen) == "scope=all",
            ("authorization", "Bearer token-1"),
        ),
        (
            "a client behind a word of the vendor's own",
            format!(
                "secrets: {{ key: \"${{env:KEY}}\" }}\nauth: {{ oauth2_client_credentials: {{ token_url: \"{at}/token\", client_id: id, client_auth: none, headers: {{ Authorization: \"Vendor {{{{ secrets.key }}}}\" }} }} }}"
            ),
            |seen| seen.fields("authorization") == ["Vendor k3y-0123456789"],
            ("authorization", "Bearer token-1"),
        ),
        (
            "the client's secret as the user of Basic, with an empty password",
            format!(
                "auth: {{ oauth2_client_credentials: {{ token_url: \"{at}/token\", client_id: \"${{env:KEY}}\", client_secret: \"\", client_auth: basic_raw }} }}"
            ),
            |seen| seen.field("authorization") == Some(&basic("k3y-0123456789:")),
            ("authorization", "Bearer token-1"),
        ),
        (
            "a redirect URI in the query of the token call",
            format!(
                "auth: {{ oauth2_client_credentials: {{ token_url: \"{at}/token?redirect_uri=https%3A%2F%2Fa.example%2Fcb\", client_id: id, client_secret: \"${{env:KEY}}\" }} }}"
            ),
            |seen| seen.target() == "/token?redirect_uri=https%3A%2F%2Fa.example%2Fcb",
            ("authorization", "Bearer token-1"),
        ),
        (
            "a login by a mutation of GraphQL, whose variables hold the password",
            format!(
                "secrets: {{ key: \"${{env:KEY}}\" }}\nauth: {{ oauth2_password: {{ token_url: \"{at}/graphql\", username: u, password: \"${{env:KEY}}\", body: json, fields: {{ username: null, password: null }}, params: {{ grant_type: null, query: \"mutation($u: String!, $p: String!) {{ login(u: $u, p: $p) {{ token }} }}\", variables: {{ u: u, p: \"{{{{ secrets.key }}}}\" }} }}, response: {{ token: json.access_token }} }} }}"
            ),
            |seen| {
                let wanted = json!({
                    "query": "mutation($u: String!, $p: String!) { login(u: $u, p: $p) { token } }",
                    "variables": { "u": "u", "p": "k3y-0123456789" },
                });
                serde_json::from_slice::<Value>(&seen.body).is_ok_and(|body| body == wanted)
            },
            ("authorization", "Bearer token-1"),
        ),
        (
            "an assertion that somebody has made once and for all",
            format!("auth: {{ oauth2_jwt_bearer: {{ token_url: \"{at}/token\", assertion: \"${{env:KEY}}\" }} }}"),
            |seen| body(seen).contains("assertion=k3y-0123456789") && body(seen).contains("jwt-bearer"),
            ("authorization", "Bearer token-1"),
        ),
        (
            "the same as the client's word",
            format!(
                "auth: {{ oauth2_client_credentials: {{ token_url: \"{at}/token\", client_id: id, client_assertion: \"${{env:KEY}}\" }} }}"
            ),
            |seen| body(seen).contains("client_assertion=k3y-0123456789") && body(seen).contains("client-assertion-type"),
            ("authorization", "Bearer token-1"),
        ),
        (
            "user and password under other names, and a session beside a developer's key",
            format!(
                "secrets: {{ key: \"${{env:KEY}}\" }}\nheaders: {{ X-Developer-Key: \"{{{{ secrets.key }}}}\" }}\nauth: {{ oauth2_password: {{ token_url: \"{at}/login\", username: u, password: \"${{env:KEY}}\", fields: {{ username: login, password: pass }}, params: {{ grant_type: null }}, place: {{ header: X-Session }} }} }}"
            ),
            |seen| body(seen) == "login=u&pass=k3y-0123456789",
            ("x-session", "token-1"),
        ),
    ];
    let resources: String = cases
        .iter()
        .enumerate()
        .map(|(at, (_, text, ..))| format!("  r{at}:\n    base_url: \"{}\"\n{}", api.url(), indented(text)))
        .collect();
    let gateway = Gateway::start_with(&format!("resources:\n{resources}"), &VARIABLES);
    for (at, (what, _, wanted, (name, value))) in cases.iter().enumerate() {
        let reply = gateway.get(&format!("/r/r{at}/x"));
        assert_eq!(reply.status, 200, "{what}: {}", reply.text());
        let asked = issuer.server.seen().pop().unwrap();
        assert!(wanted(&asked), "{what}: {} {}", asked.head, body(&asked));
        let seen = api.seen().pop().unwrap();
        assert_eq!(seen.fields(name), [*value], "{what}");
        assert_eq!(seen.field("authorization").is_some(), *name != "x-session", "{what}: {}", seen.head);
    }
    let developer = api.seen().pop().unwrap();
    assert_eq!(developer.field("x-developer-key"), Some(KEY));
}

#[test]
fn a_refresh_has_headers_and_a_client_of_its_own() {
    let issuer = Issuer::answering(|seen, number, stream| {
        let first = !body(seen).contains("grant_type=refresh_token");
        let life = if first { 2 } else { 3600 };
        json_answer(stream, &json!({ "access_token": format!("token-{number}"), "refresh_token": "r1", "expires_in": life }))
    });
    let api = Upstream::ok();
    let config = format!(
        "resources:\n  api:\n    base_url: \"{}\"\n    auth: {{ oauth2_client_credentials: {{ token_url: \"{}\", client_id: id, client_secret: \"${{env:KEY}}\", client_auth: basic_raw, refresh: {{ headers: {{ X-Refresh: again }}, client_auth: none }} }} }}\n",
        api.url(),
        issuer.url()
    );
    let gateway = Gateway::start_with(&config, &VARIABLES);
    let refresh = eventually(|| {
        assert_eq!(gateway.get("/r/api/x").status, 200);
        issuer.server.seen().into_iter().nth(1)
    });
    let (first, refresh) = (issuer.server.seen().swap_remove(0), refresh.expect("nothing was refreshed"));
    assert_eq!((first.field("authorization"), first.field("x-refresh")), (Some(basic("id:k3y-0123456789").as_str()), None));
    // The id alone, and no secret anywhere.
    assert_eq!((refresh.field("authorization"), refresh.field("x-refresh")), (None, Some("again")));
    let mut form = decoded(&body(&refresh));
    form.sort();
    let wanted = [("client_id", "id"), ("grant_type", "refresh_token"), ("refresh_token", "r1")];
    assert_eq!(form, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn two_audiences_of_one_resource_have_a_token_each() {
    let issuer = Issuer::answering(|seen, _, stream| {
        let audience = body(seen).split('&').find_map(|p| p.strip_prefix("audience=").map(str::to_owned)).unwrap();
        json_answer(stream, &json!({ "access_token": format!("for-{audience}"), "expires_in": 3600 }))
    });
    let api = Upstream::ok();
    let auth = |audience: &str| {
        format!(
            "{{ oauth2_client_credentials: {{ token_url: \"{}\", client_id: id, client_secret: \"${{env:KEY}}\", audience: {audience} }} }}",
            issuer.url()
        )
    };
    let config = format!(
        "resources:\n  api:\n    base_url: \"{}\"\n    auth: {}\n    routes: [ {{ path: \"/reports/**\", auth: {} }} ]\n",
        api.url(),
        auth("main"),
        auth("reports")
    );
    let gateway = Gateway::start_with(&config, &VARIABLES);
    for (path, token) in [("/x", "main"), ("/reports/1", "reports"), ("/y", "main"), ("/reports", "reports")] {
        assert_eq!(gateway.get(&format!("/r/api{path}")).status, 200);
        assert_eq!(api.seen().pop().unwrap().field("authorization"), Some(format!("Bearer for-{token}").as_str()), "{path}");
    }
    assert_eq!(issuer.requests(), 2);
}

#[test]
fn a_tenants_authorize_url_and_a_vendors_own_exchange_of_the_code_arrive_as_they_are_wanted() {
    let issuer = Issuer::answering(|_, number, stream| json_answer(stream, &given(number)));
    let (admin, api) = (free_port(), Upstream::ok());
    let config = format!(
        "admin: {{ listen: \"127.0.0.1:{admin}\" }}\nstore: {{ file: {{ path: data }} }}\nvars: {{ tenant: acme }}\nresources:\n  api:\n    base_url: \"{}\"\n    auth:\n      oauth2_authorization_code:\n        authorize_url: \"{at}/{{{{ vars.tenant }}}}/authorize\"\n        authorize: {{ params: {{ tenant: \"{{{{ vars.tenant }}}}\" }} }}\n        token_url: \"{at}/{{{{ vars.tenant }}}}/token\"\n        client_id: id\n        client_secret: \"${{env:KEY}}\"\n        client_auth: post\n        pkce: false\n        body: json\n        fields: {{ client_id: app_id, client_secret: secret, code: auth_code }}\n        token_params: {{ grant_type: null, redirect_uri: null, version: 2 }}\n",
        api.url(),
        at = issuer.server.url(),
    );
    let stand = Stand { gateway: Gateway::start_with(&config, &VARIABLES), admin, issuer, api };
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    assert!(asked.starts_with(&format!("{}/acme/authorize?", stand.issuer.server.url())), "{asked}");
    assert_eq!(param(&asked, "tenant").as_deref(), Some("acme"));
    assert!(stand.redeem(&landed(&browser.come_back(&asked, "code=the-code"))));
    let seen = stand.issuer.server.last();
    assert_eq!(seen.target(), "/acme/token");
    let wanted = json!({ "app_id": "id", "secret": KEY, "auth_code": "the-code", "version": 2 });
    assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap(), wanted);
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
    assert_eq!(stand.api.last().field("authorization"), Some("Bearer token-1"));
}

#[test]
fn tokens_that_take_a_step_of_their_own_are_brought_by_one() {
    let issuer = Issuer::answering(|seen, number, stream| {
        let life = if seen.target() == "/extend" { 3600 } else { 2 };
        json_answer(stream, &json!({ "access_token": format!("token-{number}"), "expires_in": life }))
    });
    let api = Upstream::ok();
    let at = issuer.server.url();
    let config = format!(
        "vars: {{ id: robot }}\nresources:\n  signed:\n    base_url: \"{up}\"\n    secrets: {{ key: \"${{env:KEY}}\" }}\n    auth:\n      flow:\n        steps:\n          - {{ name: token, method: POST, url: \"{at}/token\", headers: {{ Authorization: \"Bearer {{{{ {{'iss': vars.id, 'exp': now | plus('5m')}} | jwt('HS256', secrets.key) }}}}\" }}, capture: {{ token: json.access_token }} }}\n        apply: {{ headers: {{ Authorization: \"Bearer {{{{ captured.token }}}}\" }} }}\n  longer:\n    base_url: \"{up}\"\n    secrets: {{ key: \"${{env:KEY}}\" }}\n    auth:\n      flow:\n        steps:\n          - {{ name: login, method: POST, url: \"{at}/login\", form: {{ key: \"{{{{ secrets.key }}}}\" }}, capture: {{ token: json.access_token }} }}\n          - {{ name: extend, method: GET, url: \"{at}/extend\", headers: {{ Authorization: \"Bearer {{{{ captured.token }}}}\" }}, capture: {{ token: json.access_token, ttl: json.expires_in }} }}\n        lasts: {{ in: \"{{{{ captured.ttl }}}}\" }}\n        refresh: {{ from: extend }}\n        apply: {{ headers: {{ Authorization: \"Bearer {{{{ captured.token }}}}\" }} }}\n",
        up = api.url(),
    );
    let gateway = Gateway::start_with(&config, &VARIABLES);
    assert_eq!(gateway.get("/r/signed/x").status, 200);
    let shown = issuer.server.last();
    let jwt = shown.field("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    let key = jsonwebtoken::DecodingKey::from_secret(KEY.as_bytes());
    let claims = jsonwebtoken::decode::<Value>(jwt, &key, &jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256)).unwrap().claims;
    assert_eq!(claims["iss"], "robot");
    assert_eq!(api.last().field("authorization"), Some("Bearer token-1"));
    // A short token buys a longer one, and only that is presented.
    assert_eq!(gateway.get("/r/longer/x").status, 200);
    let asked = issuer.server.seen();
    assert_eq!((asked[1].target(), asked[2].target(), asked[2].field("authorization")), ("/login", "/extend", Some("Bearer token-2")));
    assert_eq!(api.seen().pop().unwrap().field("authorization"), Some("Bearer token-3"));
    assert_eq!(gateway.get("/r/longer/x").status, 200);
    assert_eq!(issuer.requests(), 3);
}

#[test]
fn what_the_redirect_brings_goes_into_the_call_for_the_token_and_stays_for_the_next() {
    let start = |issuer: Issuer, scheme: &str| {
        let (admin, api) = (free_port(), Upstream::ok());
        let config = format!(
            "admin: {{ listen: \"127.0.0.1:{admin}\" }}\nstore: {{ file: {{ path: data }} }}\nresources:\n  api:\n    base_url: \"{}\"\n    secrets: {{ key: \"${{env:KEY}}\" }}\n    auth:\n      oauth2_authorization_code:\n        authorize_url: \"{at}/authorize\"\n{}",
            api.url(),
            scheme.lines().map(|line| format!("        {}\n", line.replace("{at}", &issuer.server.url()))).collect::<String>(),
            at = issuer.server.url(),
        );
        Stand { gateway: Gateway::start_with(&config, &VARIABLES), admin, issuer, api }
    };
    let connect = |stand: &Stand, back: &str| {
        let mut browser = Browser::new();
        let asked = browser.agree(&stand.usual_link());
        assert!(stand.redeem(&landed(&browser.come_back(&asked, back))));
        param(&asked, "state").unwrap()
    };
    let scheme = "token_url: \"{at}/{{ captured.region }}/token\"\nclient_id: id\nclient_secret: \"${env:KEY}\"\ncallback: { capture: { region: query.region, state: query.state } }\ntoken_params: { state: \"{{ captured.state }}\" }";
    let stand = start(Issuer::answering(|_, number, stream| json_answer(stream, &given(number))), scheme);
    let state = connect(&stand, "code=c&region=eu");
    assert_eq!(stand.issuer.server.last().target(), "/eu/token");
    assert!(stand.issuer.form().contains(&("state".into(), state)));

    // An installation has an id and no code; each of its tokens is asked for at its own address, by a signed JWT.
    let scheme = "token_url: \"{at}/installations/{{ captured.installation }}/tokens\"\nclient_auth: none\nheaders: { Authorization: \"Bearer {{ {'iss': 'app', 'exp': now | plus('5m')} | jwt('HS256', secrets.key) }}\" }\nbody: json\ncallback: { code: null, capture: { installation: query.installation_id } }\ntoken_params: { grant_type: null }";
    let issuer = Issuer::answering(|_, number, stream| json_answer(stream, &minted(number, if number == 1 { 2 } else { 3600 })));
    let stand = start(issuer, scheme);
    connect(&stand, "installation_id=4711&setup_action=install");
    let again = eventually(|| {
        assert_eq!(stand.gateway.get("/r/api/x").status, 200);
        stand.issuer.server.seen().into_iter().nth(1)
    });
    let again = again.expect("nothing was renewed");
    assert_eq!(again.target(), "/installations/4711/tokens");
    assert!(again.field("authorization").unwrap().starts_with("Bearer ey"), "{}", again.head);
}

/// A row of the page: the variation, its keys and its tests.
struct Row {
    section: String,
    what: String,
    keys: Vec<String>,
    proof: String,
}

/// What stands in backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rows() -> Vec<Row> {
    let page = fs::read_to_string(root().join("docs/dialects.md")).unwrap();
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        }
        let line = line.replace("\\|", "\u{1}");
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() != 5 || cells[1] == "variation" || cells[1].starts_with("---") {
            continue;
        }
        let keys = quoted(cells[2]).into_iter().map(|key| key.replace('\u{1}', "|")).collect();
        rows.push(Row { section: section.clone(), what: cells[1].to_owned(), keys, proof: cells[3].to_owned() });
    }
    rows
}

const UNBUILT: &str = "not built into this version";

/// How many variations the survey has in each part. None may get lost.
const SURVEYED: [(&str, usize); 8] = [
    ("Static credentials", 26),
    ("Standard OAuth 2", 18),
    ("Dialects of token calls", 58),
    ("Variables and chains", 25),
    ("Signing", 42),
    ("The rest", 14),
    ("Operations", 24),
    ("Traps", 28),
];

#[test]
fn the_page_has_every_variation_of_the_survey_and_each_names_keys_and_proof() {
    let rows = rows();
    for (section, wanted) in SURVEYED {
        let found: Vec<&str> = rows.iter().filter(|row| row.section == section).map(|row| row.what.as_str()).collect();
        assert!(found.len() >= wanted, "{section} has {} of {wanted}: {found:#?}", found.len());
    }
    for row in &rows {
        assert!(row.proof.contains("::") || row.proof.starts_with(UNBUILT), "{}: no proof", row.what);
    }
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let holds = |path: &Path, name: &str| {
        fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("fn {name}(")) && text.contains("test]"))
    };
    let mut missing = Vec::new();
    for (row, name) in rows().iter().flat_map(|row| quoted(&row.proof).into_iter().map(move |name| (row, name))) {
        let (module, test) = name.rsplit_once("::").unwrap_or_default();
        let found = if module.starts_with("src/") {
            holds(&root().join(module), test)
        } else {
            let folder = fs::read_dir(root().join(format!("tests/it/{module}"))).into_iter().flatten().flatten();
            holds(&root().join(format!("tests/it/{module}.rs")), test) || folder.map(|e| e.path()).any(|path| holds(&path, test))
        };
        if !found {
            missing.push(format!("{}: {name}", row.what));
        }
    }
    assert!(missing.is_empty(), "tests that are not there: {missing:#?}");
}

/// The schema of the configuration, to be asked for keys.
struct Schema(Value);

impl Schema {
    fn read() -> Self {
        Self(serde_json::from_str(&fs::read_to_string(root().join("config/schema.json")).unwrap()).unwrap())
    }

    /// Whether a way of keys that may begin anywhere is built; none where there is no such way.
    fn built(&self, way: &[&str]) -> Option<bool> {
        let (first, rest) = way.split_first()?;
        let mut spots = Vec::new();
        self.named(first, &self.0, true, &mut spots);
        for step in rest {
            spots = spots.iter().flat_map(|(spot, built)| self.under(step, spot, *built)).collect();
        }
        spots.iter().map(|(_, built)| *built).reduce(|a, b| a || b)
    }

    /// Every key of this name; what stands below an unbuilt one is not built either.
    fn named<'s>(&'s self, name: &str, node: &'s Value, built: bool, into: &mut Vec<(&'s Value, bool)>) {
        let built = built && node["x-unbuilt"] != true;
        if let Some(found) = node.get("properties").and_then(|properties| properties.get(name)) {
            into.push((found, built && found["x-unbuilt"] != true));
        }
        match node {
            Value::Object(map) => map.values().for_each(|inner| self.named(name, inner, built, into)),
            Value::Array(items) => items.iter().for_each(|inner| self.named(name, inner, built, into)),
            _ => {}
        }
    }

    /// The key of this name directly under a spot, in each form that the spot may have.
    fn under<'s>(&'s self, name: &str, spot: &'s Value, built: bool) -> Vec<(&'s Value, bool)> {
        let built = built && spot["x-unbuilt"] != true;
        let mut all: Vec<(&Value, bool)> =
            spot.get("properties").and_then(|p| p.get(name)).map(|found| (found, built)).into_iter().collect();
        let named = spot["$ref"].as_str().map(|to| &self.0["definitions"][to.trim_start_matches("#/definitions/")]);
        let forms = spot["anyOf"].as_array().into_iter().flatten().chain(spot.get("items")).chain(named);
        all.extend(forms.flat_map(|form| self.under(name, form, built)));
        all.into_iter().map(|(found, built)| (found, built && found["x-unbuilt"] != true)).collect()
    }
}

/// What is wrong with the keys of a row.
fn judge(row: &Row, schema: &Schema, expressions: &str) -> Vec<String> {
    let (mut wrong, mut unbuilt) = (Vec::new(), Vec::new());
    for key in &row.keys {
        let known = if let Some(filter) = key.strip_prefix("| ") {
            expressions.contains(filter)
        } else if let Some(expression) = key.strip_prefix("{{ ") {
            expressions.contains(&format!("`{}`", expression.split(['.', ' ', '[']).next().unwrap()))
        } else {
            let way = key.split([':', ' ', '[']).next().unwrap();
            // A step in capitals is a name of the operator's own.
            let steps: Vec<&str> = way.split('.').filter(|step| !step.contains(char::is_uppercase)).collect();
            let built = schema.built(&steps);
            if built == Some(false) {
                unbuilt.push(key);
            }
            built.is_some()
        };
        if !known {
            wrong.push(format!("{}: `{key}` is not known", row.what));
        }
    }
    match (row.proof.starts_with(UNBUILT), unbuilt.is_empty()) {
        // What no key is there for at all has none to mark.
        (true, true) if row.keys.is_empty() => {}
        (true, true) => wrong.push(format!("{}: nothing of {:?} is marked as unbuilt in the schema", row.what, row.keys)),
        (false, false) => wrong.push(format!("{}: {unbuilt:?} are not built, says the schema", row.what)),
        _ => {}
    }
    wrong
}

#[test]
fn every_key_that_the_page_names_is_in_the_schema_and_marked_there_as_the_page_says() {
    let schema = Schema::read();
    let expressions = fs::read_to_string(root().join("docs/expressions.md")).unwrap();
    let wrong: Vec<String> = rows().iter().flat_map(|row| judge(row, &schema, &expressions)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // And the judge is no friend of what is wrong.
    let row = |keys: &[&str], proof: &str| Row {
        section: String::new(),
        what: String::new(),
        keys: keys.iter().map(|k| (*k).to_owned()).collect(),
        proof: proof.into(),
    };
    for (keys, proof) in [
        (&["no_such_key"][..], "a::b"),
        (&["bearer.token"], UNBUILT),
        (&["quota.headers"], "a::b"),
        (&["bearer.scopes"], "a::b"),
        (&["| no_such"], "a::b"),
    ] {
        assert!(!judge(&row(keys, proof), &schema, &expressions).is_empty(), "{keys:?}");
    }
}
