//! Wrong configurations: each ends with exit 3, and the report names the place and the cure.

use std::fs;
use std::process::Output;

use crate::support::{free_port, postern, root, sample_variables};

/// `postern check` on this text.
fn check(text: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    fs::write(&file, text).unwrap();
    postern().arg("check").arg("--config").arg(&file).args(more).env("SET", "value-of-set").output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Text, what the report must say, what it must advise.
const WRONG: &[(&str, &str, &str)] = &[
    ("resuorces: {}", "unknown key `resuorces`", "did you mean `resources`?"),
    ("server: { lisen: \"127.0.0.1:1\" }", "unknown key `lisen`", "did you mean `listen`?"),
    ("resources: { a: { base_url: http://localhost, auht: none } }", "unknown key `auht`", "did you mean `auth`?"),
    (
        "resources: { a: { base_url: http://localhost, auth: { bearer: { tokn: \"${env:SET}\" } } } }",
        "unknown key `tokn`",
        "did you mean `token`?",
    ),
    ("resources: { a: { base_url: http://localhost, timeouts: { haed: 1s } } }", "unknown key `haed`", "did you mean `head`?"),
    ("resources: { a: { base_url: http://localhost, reflection: on } }", "one of", "mask"),
    ("resources: { a: { base_url: http://localhost, reflection: maks } }", "one of", "did you mean `mask`?"),
    ("server: { cors: { origins: \"*\" } }", "every page of the world", "name the origins"),
    ("server: { cors: { origins: [app.example] } }", "no origin", "https://name.example"),
    ("resources: { a: {} }", "`base_url` is missing", "add `base_url"),
    ("resources: { a: { base_url: localhost } }", "needs a scheme", "https://api.example.com/v1"),
    ("resources: { a: { base_url: \"ftp://localhost\" } }", "neither http nor https", "https://"),
    ("resources: { a: { base_url: \"http://localhost?a=b\" } }", "holds a query", "https://"),
    ("resources: { a: { base_url: \"http://u:p@localhost\" } }", "holds a user", "https://"),
    ("resources: { a: { base_url: \"http://localhost#x\" } }", "holds a fragment", "https://"),
    ("resources: { a: { base_url: \"http://localhost:99999\" } }", "port", "https://"),
    ("resources: { a: { base_url: \"http://localhost/../x\" } }", "path of `base_url`", "path that you mean"),
    ("resources: { a: { base_url: [\"http://localhost\", \"http://b\"] } }", "not built", "one URL"),
    ("resources: { Big: { base_url: http://localhost } }", "no name for a resource", "a-z"),
    ("resources: [a]", "expected a map", ""),
    ("resources: { a: { base_url: http://localhost, timeouts: { head: 10 } } }", "expected a duration", "did you mean `10s`?"),
    ("resources: { a: { base_url: http://localhost, timeouts: { head: 1.5s } } }", "expected a duration", "integer and a unit"),
    ("resources: { a: { base_url: http://localhost, limits: { request_body: 10MB } } }", "expected a size", "did you mean `10MiB`?"),
    ("resources: { a: { base_url: http://localhost, limits: { in_flight: 0 } } }", "at least 1", ""),
    ("resources: { a: { base_url: http://localhost, websocket: yes } }", "expected true or false", ""),
    ("resources: { a: { base_url: http://localhost, rewrite_links: { json: next } } }", "no path to a link", "$.next"),
    ("resources: { a: { base_url: http://localhost, rewrite_links: { json: [] } } }", "no path", "$.next"),
    ("resources: { a: { base_url: http://localhost, rewrite_links: {} } }", "`json` is missing", ""),
    ("resources: { a: { base_url: http://localhost, redirects: { to: [a.example] } } }", "`follow` is missing", ""),
    ("resources: { a: { base_url: http://localhost, redirects: { follow: 11 } } }", "`follow` is at most 10", ""),
    ("resources: { a: { base_url: http://localhost, redirects: { follow: 0 } } }", "at least 1", ""),
    ("resources: { a: { base_url: http://localhost, redirects: { follow: 1, to: \"*\" } } }", "no pattern for hosts", "*.example.com"),
    (
        "vars: { d: \"evil.example/x?\" }\nresources: { a: { base_url: \"https://a.example\", auth: { oauth2_client_credentials: { token_url: \"https://{{ vars.d }}.issuer.example/t\", client_id: i, client_secret: \"${env:SET}\" } } } }",
        "no part of a host name",
        "",
    ),
    (
        "vars: { d: evil }\nresources: { a: { base_url: \"https://a.example\", auth: { oauth2_client_credentials: { token_url: \"https://{{ vars.d }}.issuer.example/t\", client_id: i, client_secret: \"${env:SET}\" } } } }",
        "`hosts` does not allow it",
        "hosts: [\"*.example.com\"]",
    ),
    ("resources: { a: { base_url: http://localhost, redirects: follow } }", "one of: rewrite, pass", ""),
    ("resources: { a: { base_url: http://localhost, auth: [] } }", "", "`auth: none`"),
    ("resources: { a: { base_url: http://localhost, auth: { bearer: \"${env:SET}\", basic: { username: u } } } }", "basic", "list"),
    ("resources: { a: { base_url: http://localhost, auth: bearr } }", "bearr", "bearer"),
    ("resources: { a: { base_url: http://localhost, auth: { oauth2_device: {} } } }", "`device_url` is missing", "add `device_url"),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_device: { device_url: https://i.example/d, token_url: https://i.example/t, client_id: i } } } }",
        "`store: memory` would lose it",
        "store: { file",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_device: { device_url: http://i.example/d, token_url: https://i.example/t, client_id: i } } } }",
        "plain http",
        "use https",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: {} } } }",
        "`token_url` is missing",
        "add `token_url",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: { token_url: http://issuer.example/t, client_id: i, client_secret: \"${env:SET}\" } } } }",
        "plain http",
        "use https",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: { token_url: https://i.example/t, client_id: i, client_secret: literal-secret } } } }",
        "not a literal",
        "${env:NAME}",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: { token_url: https://i.example/t, client_id: i, private_key: \"${env:SET}\" } } } }",
        "the key is damaged",
        "RSA of 2048",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: { token_url: https://i.example/t, client_id: i, client_secret: \"${env:SET}\", algorithm: RS256 } } } }",
        "`algorithm` says nothing here",
        "private_key_jwt",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: { token_url: https://i.example/t, client_id: i, client_auth: private_key_jwt, key: \"${env:SET}\", algorithm: RS256 } } } }",
        "cannot sign by RS256",
        "RSA key",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: { token_url: https://i.example/t, client_id: i, client_auth: tls } } } }",
        "which is not in this list",
        "mtls",
    ),
    ("resources: { a: { base_url: https://localhost, auth: { mtls: { key: \"${env:SET}\" } } } }", "`cert` is missing", "add `cert"),
    (
        "resources: { a: { base_url: https://localhost, auth: { mtls: { cert: nowhere.pem, key: \"${env:SET}\" } } } }",
        "cannot be read",
        "paths begin",
    ),
    (
        "resources: { a: { base_url: https://localhost, auth: { mtls: { cert: \"-----BEGIN X\", key: \"${env:SET}\" } } } }",
        "not a PEM certificate",
        "BEGIN CERTIFICATE",
    ),
    ("resources: { a: { base_url: http://a.example, auth: { mtls: { cert: c.pem, key: \"${env:SET}\" } } } }", "over TLS only", "https"),
    (
        "resources: { a: { base_url: https://localhost, auth: [ { mtls: { cert: c.pem, key: \"${env:SET}\" } }, { mtls: { cert: d.pem, key: \"${env:SET}\" } } ] } }",
        "two members of this list are a client certificate",
        "one of them",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: { token_url: \"https://u:p@i.example/t\", client_id: i } } } }",
        "no user",
        "https://",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: { token_url: https://i.example/t, client_id: i, method: GET, body: json } } } }",
        "a GET has no body",
        "body: query",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: { token_url: https://i.example/t, client_id: i, params: { a: { b: c } } } } } }",
        "a map has no place in a form",
        "body: json",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: { token_url: https://i.example/t, client_id: i, response: { token: access_token } } } } }",
        "a path is json.a.b",
        "json.access_token",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_client_credentials: { token_url: https://i.example/t, client_id: i, place: { heeder: X } } } } }",
        "unknown key `heeder`",
        "did you mean `header`?",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i } } } }",
        "nobody can be asked",
        "refresh_token",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, refresh_token: \"${env:SET}\" } } } }",
        "`store: memory` would lose it",
        "store: { file",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a } } } }",
        "`store: memory` would lose it",
        "store: { file",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, scopes: [a], refresh_token: \"${env:SET}\" } } } }",
        "`scopes` says how a person consents",
        "authorize_url",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: \"http://i.example/a\" } } } }",
        "plain http",
        "allow_http",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: \"https://i.example/a#b\" } } } }",
        "it holds a fragment",
        "fragment: true",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: \"https://i.example/{{ captured.regoin }}\", client_id: i, authorize_url: https://i.example/a, callback: { capture: { region: query.region } } } } } }",
        "`captured.regoin`, and no redirect brings it",
        "did you mean `region`?",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: i.example } } } }",
        "no authorize URL",
        "https://issuer.example",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a, params: { state: null } } } } }",
        "`state` ties the answer",
        "leave `state`",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a, authorize: { rename: { state: s } } } } } }",
        "`state` ties the answer",
        "leave `state`",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a, authorize: { encode: odd } } } } }",
        "encode",
        "strict",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a, callback: { capture: { r: json.a } } } } } }",
        "a callback has parameters only",
        "query.",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { discover: true, client_id: i } } } }",
        "`discover` needs `issuer`",
        "issuer: https://",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { discover: \"https://a.example\", issuer: \"https://b.example\", client_id: i } } } }",
        "two issuers",
        "discover: true",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { discover: true, issuer: \"https://b.example\" } } } }",
        "`client_id` is missing",
        "client_id",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { discover: true, issuer: \"https://b.example\", registration: {}, client_id: i } } } }",
        "`client_id` says nothing",
        "remove one",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { registration: {}, authorize_url: \"https://b.example/a\", token_url: \"https://b.example/t\" } } } }",
        "nobody says where clients are registered",
        "discover: true",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { discover: true, issuer: \"http://b.example\", client_id: i } } } }",
        "plain http",
        "allow_http",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a, callback: { optional: [x] } } } } }",
        "`x` is not captured",
        "capture",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a, issuer: nonsense } } } }",
        "no issuer",
        "https://issuer.example",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a, redirect_uri: \"http://gw.example/connect/callback\" } } } }",
        "a code would come back over plain http",
        "https",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a, redirect_uri: \"https://gw.example/cb?x=1\" } } } }",
        "no redirect URI",
        "/connect/callback",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a, revoke_url: nonsense } } } }",
        "no token URL",
        "https://",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, connections: { by: name }, auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a } } } }",
        "by",
        "header",
    ),
    (
        "resources: { a: { base_url: http://localhost, connections: { by: header }, auth: none } }",
        "nothing here has accounts",
        "authorize_url",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, routes: [{ path: /x, auth: { oauth2_authorization_code: { authorize_url: https://j.example/a, token_url: https://j.example/t, client_id: j } } }], auth: { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a } } } }",
        "two schemes of this resource ask a person",
        "two resources",
    ),
    (
        "store: { file: { path: d } }\nresources: { a: { base_url: http://localhost, auth: [{ oauth2_authorization_code: { authorize_url: https://j.example/a, token_url: https://j.example/t, client_id: j, place: { header: X-B } } }, { oauth2_authorization_code: { token_url: https://i.example/t, client_id: i, authorize_url: https://i.example/a } }] } }",
        "two schemes of this resource ask a person",
        "two resources",
    ),
    ("connect: { listen: \"127.0.0.1:8081\" }\nadmin: { listen: \"127.0.0.1:8081\" }", "taken already", "port of its own"),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_jwt_bearer: { token_url: https://i.example/t } } } }",
        "`private_key` is missing",
        "private_key:",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { auth0: { domain: \"a/b\", client_id: i } } } }",
        "host of the tenant",
        "auth0.com",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { google_service_account: { key: \"${env:SET}\", scopes: [a] } } } }",
        "not the JSON key file",
        "service-account.json",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { google_service_account: { mode: self_signed_jwt } } } }",
        "ambient identity",
        "key:",
    ),
    ("master_key: \"${env:SET}\"", "32 bytes", "openssl rand"),
    ("store: { flie: {} }", "unknown kind of store", "memory, or"),
    ("store: 5", "expected a kind of store", "memory, or"),
    ("resources: { a: { base_url: http://localhost, auth: { session: {} } } }", "`login` is missing", ""),
    ("resources: { a: { base_url: http://localhost, cache: { mode: standard } } }", "`cache` is not built", "remove it"),
    ("resources: { a: { base_url: http://localhost, retry: { attempts: 3 } } }", "`retry` is not built", "remove it"),
    ("resources: { a: { base_url: http://localhost, preset: githb } }", "no preset `githb`", "did you mean `github`?"),
    ("defaults: [1]\nresources: { a: { base_url: http://localhost } }", "expected the shape of a resource", ""),
    ("environments: [a]", "expected a map of environments", ""),
    ("clients: { a: { unix: { uid: 1 } } }", "`clients` is not built", "remove it"),
    (
        "resources: { a: { base_url: http://localhost, auth: { jwt: { key: \"${env:SET}\", claims: { exp: \"{{ now | plus('5 m') }}\" } } } } }",
        "plus",
        "",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { jwt: { key: \"${env:SET}\", algorithm: RS256, claims: { exp: 1 } } } } }",
        "cannot sign by RS256",
        "RS and PS need an RSA key",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { jwt: { key: \"${env:SET}\", claims: { exp: 1 }, place: { header: X, value: abc } } } } }",
        "does not hold `token`",
        "{{ token }}",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { hmac: { key: \"${env:SET}\", message: \"{{ request.body_sha256 }}\", place: { header: X } } } } }",
        "bytes",
        "",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { hmac: { key: \"${env:SET}\", message: \"{{ request.path }}\" } } } }",
        "`place` is missing",
        "place: …",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { http_signature: { key_id: k, key: \"${env:SET}\", components: [\"@method;req\"] } } } }",
        "signature of an answer",
        "a request is signed here",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { aws_sigv4: { service: s3, region: eu-west-1, assume_role: { role_arn: x } } } } }",
        "no ARN of a role",
        "arn:aws:iam::123456789012:role/name",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { aws_sigv4: { service: s3, region: eu-west-1, assume_role: { role_arn: \"arn:aws:iam::1:role/x\", sts_url: \"http://sts.example\" } } } } }",
        "plain http",
        "sts_url: https://",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { oauth2_saml_bearer: { token_url: https://i.example/t, client_id: i, subject: u, audience: a, private_key: \"${env:SET}\" } } } }",
        "`issuer` is missing",
        "issuer: …",
    ),
    ("store: { redis: { url: x } }", "`redis` is not built", "memory, or"),
    ("audit: { chain: true }", "`chain` is not built", "remove it"),
    ("resources: { a: { base_url: http://localhost, auth: { bearer: literal-secret-text } } }", "not a literal", "${env:NAME}"),
    ("resources: { a: { base_url: http://localhost, auth: { bearer: $SET } } }", "not a reference", "did you mean \"${env:SET}\"?"),
    ("resources: { a: { base_url: http://localhost, auth: { bearer: \"${SET}\" } } }", "no reference", "did you mean \"${env:SET}\"?"),
    ("resources: { a: { base_url: http://localhost, auth: { bearer: /run/secrets/t } } }", "not a literal", "${file:PATH}"),
    (
        "resources: { a: { base_url: http://localhost, auth: { bearer: { token: ${env:SET} } } } }",
        "must be quoted",
        "quote it: \"${env:SET}\"",
    ),
    ("resources: { a: { base_url: http://localhost, headers: { X: {{ vars.x }} } } }", "`{{`", "in quotes"),
    ("resources: { a: { base_url: http://localhost, headers: { X: \"{{ vars.x }}\" } } }", "`vars.x` is undefined", "default"),
    ("resources: { a: { base_url: http://localhost, headers: { X: \"{{ vars.x | uper }}\" } } }", "no filter `uper`", "`upper`"),
    ("resources: { a: { base_url: http://localhost, headers: { X: \"{{ var.x }}\" } } }", "no input `var`", "`vars`"),
    ("resources: { a: { base_url: http://localhost, headers: { X: \"{% if x %}\" } } }", "`{%` begins a statement", "{{ '{%' }}"),
    ("resources: { a: { base_url: http://localhost, headers: { X: \"{{ 'a' | sha256 }}\" } } }", "bytes into text", ""),
    ("resources: { a: { base_url: http://localhost, headers: { X: \"{{ '${env:SET}' }}\" } } }", "cannot stand inside", "`secrets`"),
    ("resources: { a: { base_url: http://localhost, headers: { X: \"{{ secrets.k }}\" } } }", "no secret `k`", "secrets: { k:"),
    ("resources: { a: { base_url: http://localhost, secrets: { k: literal-secret-text } } }", "not a literal", "${env:NAME}"),
    (
        "resources: { a: { base_url: http://localhost, headers: { X: \"{{ captured.x }}\" } } }",
        "nothing under `auth` has a token",
        "oauth2_",
    ),
    (
        "resources: { a: { base_url: http://localhost, auth: { bearer: \"{{ vars.t }}\" } } }\nvars: { t: literal-secret-text }",
        "not a literal",
        "${env:NAME}",
    ),
    ("resources: { a: { base_url: http://localhost, redirects: \"{{ vars.x }}\" } }\nvars: { x: pass }", "redirects", "rewrite"),
    ("resources: { a: { base_url: \"http://{{ vars.h }}\" } }\nvars: { h: localhost }", "there are no `hosts`", "*.example.com"),
    (
        "resources: { a: { base_url: \"http://{{ vars.h }}\", hosts: [\"*.example.com\"] } }\nvars: { h: localhost }",
        "`hosts` does not allow",
        "check",
    ),
    (
        "resources: { a: { base_url: \"http://{{ vars.h }}/\", hosts: [localhost] } }\nvars: { h: user@localhost }",
        "no part of a host name",
        "letters",
    ),
    ("resources: { a: { base_url: \"http://localhost/{{ vars.p }}\" } }\nvars: { p: .. }", "path of `base_url` is refused", ""),
    ("resources: { a: { base_url: \"http://localhost/{{ request.path }}\" } }", "does not exist at this place", "vars"),
    ("resources: { a: { base_url: http://localhost, hosts: [\"*\"] } }", "no pattern for hosts", "*.example.com"),
    ("resources: { a: { base_url: http://localhost, auth: { bearer: \"${env:NOT_THERE}\" } } }", "NOT_THERE is not set", "set it"),
    ("resources: { a: { base_url: http://localhost, auth: { bearer: \"${file:nope}\" } } }", "file nope cannot be read", "folder"),
    ("resources: { a: { base_url: http://localhost, auth: { bearer: \"${vault:a#b}\" } } }", "by its mount", "${vault:secret/app/x#token}"),
    ("resources: { a: { base_url: http://localhost, auth: { bearer: \"${vault:a/b#c}\" } } }", "no Vault is set up", "VAULT_ADDR"),
    ("resources: { a: { base_url: http://localhost, auth: { bearer: \"${aws-sm:a}\" } } }", "no region", "AWS_REGION"),
    ("resources: { a: { base_url: http://localhost, auth: { bearer: \"${exec:true}\" } } }", "not allowed", "allow_exec: true"),
    ("vault: { adress: \"https://a\" }", "unknown key `adress`", "did you mean `address`?"),
    ("vault: { address: \"http://a\", token: \"${env:SET}\" }", "plain http", "allow_http: true"),
    ("vault: { token: \"${env:SET}\", kubernetes: { role: a } }", "two ways to log in", "remove one"),
    ("vault: { token: literal-secret-text }", "not a literal", "${env:NAME}"),
    ("aws_sm: { region: \"a/b\" }", "no region", "eu-west-1"),
    ("exec: { refresh: 10ms }", "at least a second", "5m"),
    ("resources: { a: { base_url: \"http://${var:hots}\" } }\nvars: { host: x }", "no variable hots", "did you mean `host`?"),
    ("resources: { a: { base_url: http://api.example, auth: { bearer: \"${env:SET}\" } } }", "plain http", "allow_http: true"),
    ("resources: { a: { base_url: http://localhost, headers: { Host: x } } }", "cannot be set", ""),
    ("resources: { a: { base_url: http://localhost, headers: { \"A B\": x } } }", "no name of a header", ""),
    ("resources: { a: { base_url: http://localhost, headers: { X: \"a\\nb\" } } }", "control character", ""),
    (
        "resources: { a: { base_url: http://localhost, headers: { Authorization: x }, auth: { bearer: \"${env:SET}\" } } }",
        "belongs to the scheme",
        "remove it",
    ),
    ("resources: { a: { base_url: http://localhost, cookies: { a: \"b c\" } } }", "cookie", "encode"),
    ("resources: { a: { base_url: http://localhost, forward: { headers: [Connection] } } }", "never forwarded", ""),
    ("resources: { a: { base_url: http://localhost, tls: { ca: nope.pem } } }", "cannot be read", "PEM"),
    ("resources: { a: { base_url: http://localhost, tls: { pin_sha256: [abc] } } }", "32 bytes", "openssl"),
    ("resources: { a: { base_url: http://localhost, tls: { min_version: 1.1 } } }", "one of: 1.2, 1.3", ""),
    ("resources: { a: { base_url: http://localhost, http: { versions: [3] } } }", "`versions` is a list", "1.1"),
    ("resources: { a: { base_url: http://localhost, routes: [ { path: x } ] } }", "does not begin with `/`", ""),
    ("resources: { a: { base_url: http://localhost, routes: [ { path: /x, methods: [get] } ] } }", "not a method", "capitals"),
    ("server: { listen: \"0.0.0.0:8080\" }", "anyone who reaches", "allow_anonymous: true"),
    ("server: { listen: 8080 }", "no address", "127.0.0.1:8080"),
    ("server: { limits: { headers: 128 } }", "cannot exceed 100", "headers: 100"),
    ("admin: { listen: \"127.0.0.1:8080\" }", "taken already", "port of its own"),
    ("audit: { sinks: [ { file: {} } ] }", "`path` is missing", "path"),
    ("a: 1\na: 2", "is there twice", ""),
    ("a: [1, 2", "not YAML", ""),
    ("a: 1\n---\nb: 2", "more than one document", ""),
];

#[test]
fn each_mistake_ends_with_exit_3_and_names_its_place_and_its_cure() {
    assert!(WRONG.len() >= 40);
    let mut failed = Vec::new();
    for (text, message, hint) in WRONG {
        let output = check(text, &[]);
        let report = stderr(&output);
        let placed = report.contains("postern.yaml:1:") || report.contains("postern.yaml:2:");
        let leaked = report.contains("literal-secret-text") || report.contains("value-of-set");
        if output.status.code() != Some(3) || !report.contains(message) || !report.contains(hint) || !placed || leaked {
            failed.push(format!("{text}\n  wanted `{message}` and `{hint}`, found {:?}\n{report}", output.status.code()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn six_mistakes_in_one_file_are_shown_all_six() {
    let text = "server:\n  lisen: 1\nresources:\n  a:\n    base_url: nope\n    timeouts: { head: 10 }\n    auth: { bearer: { token: literal-secret-text, schem: x } }\n  B:\n    base_url: http://localhost\n  c:\n    base_url: http://localhost\n    cache: {}\n";
    let output = check(text, &[]);
    let report = stderr(&output);
    for part in ["`lisen`", "needs a scheme", "did you mean `10s`?", "not a literal", "`schem`", "`B`", "`cache`"] {
        assert!(report.contains(part), "{part} in\n{report}");
    }
    assert!(!report.contains("literal-secret-text"), "{report}");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn the_report_is_there_for_programs_too() {
    let output = check("resources:\n  a:\n    base_url: http://localhost\n    auth: { bearer: { tokn: \"${env:SET}\" } }\n", &["--json"]);
    assert_eq!(output.status.code(), Some(3));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let unknown = report["problems"].as_array().unwrap().iter().find(|p| p["message"].as_str().unwrap().contains("tokn")).unwrap();
    assert_eq!(
        (unknown["line"].as_u64(), unknown["column"].as_u64(), unknown["path"].as_str()),
        (Some(4), Some(23), Some("resources.a.auth.bearer.tokn"))
    );
    assert_eq!((unknown["severity"].as_str(), unknown["hint"].as_str()), (Some("error"), Some("did you mean `token`?")));
    assert!(unknown["file"].as_str().unwrap().ends_with("postern.yaml"));
}

#[test]
fn a_literal_that_is_allowed_is_warned_about_and_never_shown() {
    let output =
        check("allow_literal_secrets: true\nresources: { a: { base_url: http://localhost, auth: { bearer: literal-secret-text } } }", &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("warning: a secret is written into the file"));
    assert!(!stderr(&output).contains("literal-secret-text"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("ok: 1 resource"));
}

#[test]
fn run_refuses_what_check_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "nope: 1\n").unwrap();
    let output = postern().arg("run").arg("--config").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("unknown key `nope`"));
}

#[test]
fn a_missing_file_is_3_a_wrong_command_line_is_2_and_a_port_in_use_is_1() {
    assert_eq!(postern().args(["check", "--config", "/nonexistent/x.yaml"]).output().unwrap().status.code(), Some(3));
    assert_eq!(postern().arg("chekc").output().unwrap().status.code(), Some(2));
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, format!("server: {{ listen: \"127.0.0.1:{port}\" }}\naudit: {{ sinks: [ {{ file: {{ path: a.jsonl }} }} ] }}\n"))
        .unwrap();
    let output = postern().arg("run").arg("--config").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("127.0.0.1:{port}: the address is in use")), "{}", stderr(&output));
}

#[test]
fn every_file_under_config_passes() {
    let mut files = vec![root().join("config/postern.yaml"), root().join("config/reference.yaml")];
    files.extend(
        fs::read_dir(root().join("config/examples"))
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "yaml")),
    );
    assert!(files.len() > 5);
    for file in files {
        let variables = sample_variables(&fs::read_to_string(&file).unwrap());
        let output = postern().arg("check").arg("--config").arg(&file).envs(variables).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}\n{}", file.display(), stderr(&output));
    }
}

#[test]
fn ten_thousand_resources_are_checked() {
    let mut text = "resources:\n".to_owned();
    for i in 0..10_000 {
        text.push_str(&format!(
            "  r{i}:\n    base_url: http://localhost:9/base{i}\n    headers: {{ X-A: a }}\n    auth: {{ bearer: \"${{env:SET}}\" }}\n"
        ));
    }
    let output = check(&text, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("ok: 10000 resources"));
}
