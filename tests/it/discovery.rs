//! What is found out about an issuer: its endpoints, whom the resource trusts, a client that it registers. Against
//! `oidc-provider`, and against issuers that lie.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::browser::{Browser, LANDING, Stand, given, landed, param};
use crate::support::issuer::{Issuer, answer, json_answer};
use crate::support::oidc::{Oidc, Person};
use crate::support::{Gateway, eventually, free_port};

/// An issuer that publishes what `document` makes of its address, registers clients, and gives tokens.
fn publishing(document: impl Fn(&str) -> Value + Send + Sync + 'static) -> Issuer {
    let address: Arc<Mutex<String>> = Arc::default();
    let known = address.clone();
    let issuer = Issuer::answering(move |seen, number, stream| {
        let address = known.lock().unwrap().clone();
        match seen.target() {
            "/.well-known/oauth-authorization-server" => json_answer(stream, &document(&address)),
            "/register" => {
                let body = json!({ "client_id": "registered", "client_secret": "of-the-registration", "client_secret_expires_at": 0 });
                answer(stream, "201 Created", "Content-Type: application/json\r\n", &body.to_string())
            }
            "/token" | "/revoke" => json_answer(stream, &given(number)),
            _ => answer(stream, "404 Not Found", "", ""),
        }
    });
    *address.lock().unwrap() = issuer.server.url();
    issuer
}

fn honest(address: &str) -> Value {
    json!({
        "issuer": address,
        "authorization_endpoint": format!("{address}/authorize"),
        "token_endpoint": format!("{address}/token"),
        "registration_endpoint": format!("{address}/register"),
        "revocation_endpoint": format!("{address}/revoke"),
        "authorization_response_iss_parameter_supported": true,
    })
}

fn discovering(issuer: Issuer, more: &str) -> Stand {
    let scheme = format!("issuer: \"{}\"\ndiscover: true\n{more}", issuer.server.url());
    Stand::whole(&scheme, "", "", issuer, free_port())
}

#[test]
fn endpoints_and_a_client_are_found_out_and_kept() {
    let mut stand =
        discovering(publishing(honest), "registration: { metadata: { client_name: Ours, contacts: [\"a@b.example\"] } }\nscopes: [read]");
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    assert_eq!(param(&asked, "client_id").as_deref(), Some("registered"), "{asked}");
    let sent = stand.issuer.server.seen().into_iter().find(|seen| seen.target() == "/register").unwrap();
    let sent: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!((&sent["client_name"], &sent["scope"]), (&json!("Ours"), &json!("read")));
    assert_eq!(sent["redirect_uris"], json!([format!("http://127.0.0.1:{}/connect/callback", stand.admin)]));
    let iss = stand.issuer.server.url();
    let reply = browser.come_back(&asked, &format!("code=c&iss={iss}"));
    assert!(stand.redeem(&landed(&reply)));
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
    // A second consent and a restart ask for neither again.
    stand.gateway.stop();
    stand.gateway.again();
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    assert_eq!(param(&asked, "client_id").as_deref(), Some("registered"));
    let times = |target: &str| stand.issuer.server.seen().iter().filter(|seen| seen.target() == target).count();
    assert_eq!((times("/register"), times("/.well-known/oauth-authorization-server")), (1, 1));
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
    let reply = stand.api("DELETE", "/api/connections/api/default", &json!({}));
    assert_eq!(reply.json()["revoked"], true, "{}", reply.text());
    let store = std::fs::read(stand.gateway.folder.path().join("data/postern.redb")).unwrap();
    assert!(!String::from_utf8_lossy(&store).contains("of-the-registration"));
}

#[test]
fn an_answer_that_does_not_name_an_issuer_which_always_does_is_refused() {
    let stand = discovering(publishing(honest), "client_id: id");
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    assert_eq!(browser.come_back(&asked, "code=c").status, 400);
    assert!(stand.connections().is_empty());
}

#[test]
fn metadata_lead_nowhere_but_to_the_issuer_and_to_hosts() {
    type Lie = fn(&str) -> Value;
    let lies: [(Lie, &str); 6] = [
        (|address| json!({ "issuer": "https://other.example", "token_endpoint": format!("{address}/token") }), "another issuer"),
        (|address| json!({ "issuer": format!("{address}/"), "token_endpoint": format!("{address}/token") }), "another issuer"),
        (
            |address| json!({ "issuer": address, "authorization_endpoint": format!("{address}/a"), "token_endpoint": "https://evil.example/token" }),
            "neither the issuer&#39;s own origin nor in `hosts`",
        ),
        (
            |address| json!({ "issuer": address, "authorization_endpoint": "https://evil.example/a", "token_endpoint": format!("{address}/token") }),
            "neither the issuer&#39;s own origin nor in `hosts`",
        ),
        (
            |address| json!({ "issuer": address, "token_endpoint": "http://169.254.169.254/token" }),
            "neither the issuer&#39;s own origin nor in `hosts`",
        ),
        (|address| json!({ "issuer": address, "token_endpoint": "nonsense" }), "is no URL"),
    ];
    for (lie, part) in lies {
        let stand = discovering(publishing(lie), "client_id: id");
        let mut browser = Browser::new();
        let link = stand.usual_link();
        let page = browser.get(&link);
        let reply = browser.post(&link, &format!("proof={}&answer=connect", crate::support::browser::proof(&page)));
        assert_eq!((reply.status, reply.field("location")), (502, None), "{}", reply.text());
        assert!(reply.text().contains(part), "{part}: {}", reply.text());
        assert!(stand.connections().is_empty());
    }
}

#[test]
fn a_redirect_of_the_metadata_is_not_followed() {
    let issuer = Issuer::answering(|_, _, stream| answer(stream, "302 Found", "Location: https://evil.example/\r\n", ""));
    let stand = discovering(issuer, "client_id: id");
    let mut browser = Browser::new();
    let link = stand.usual_link();
    let page = browser.get(&link);
    let reply = browser.post(&link, &format!("proof={}&answer=connect", crate::support::browser::proof(&page)));
    assert!(reply.status == 502 && reply.text().contains("publishes no metadata"), "{}", reply.text());
}

#[test]
fn a_resource_that_trusts_another_issuer_is_not_connected_to_this_one() {
    for (servers, resource, good) in
        [("ISSUER", "API", true), ("https://other.example", "API", false), ("ISSUER", "https://other.example", false)]
    {
        let issuer = publishing(honest);
        let (address, servers, resource) = (issuer.server.url(), servers.to_owned(), resource.to_owned());
        let api: Arc<Mutex<String>> = Arc::default();
        let own = api.clone();
        let upstream = crate::support::Upstream::answering(move |seen, stream| {
            let here = own.lock().unwrap().clone();
            let body =
                json!({ "resource": resource.replace("API", &here), "authorization_servers": [servers.replace("ISSUER", &address)] });
            if seen.target() == "/.well-known/oauth-protected-resource/mcp" {
                json_answer(stream, &body)
            } else {
                answer(stream, "200 OK", "", "")
            }
        });
        *api.lock().unwrap() = format!("{}/mcp", upstream.url());
        let admin = free_port();
        let config = format!(
            "admin: {{ listen: \"127.0.0.1:{admin}\" }}\nstore: {{ file: {{ path: data }} }}\nresources:\n  api:\n    base_url: \"{}/mcp\"\n    auth: {{ oauth2_authorization_code: {{ discover: \"{}\", registration: {{}} }} }}\n",
            upstream.url(),
            issuer.server.url()
        );
        let gateway = Gateway::start(&config);
        let stand = Stand { gateway, admin, issuer, api: upstream };
        let mut browser = Browser::new();
        let link = stand.usual_link();
        let page = browser.get(&link);
        let reply = browser.post(&link, &format!("proof={}&answer=connect", crate::support::browser::proof(&page)));
        assert_eq!(reply.status, if good { 303 } else { 502 }, "{}", reply.text());
        if good {
            // What the resource calls itself is what the token is asked for (RFC 8707).
            let asked = reply.field("location").unwrap();
            assert_eq!(param(asked, "resource"), Some(format!("{}/mcp", stand.api.url())));
        }
    }
}

/// A person goes the whole way with `oidc-provider`, and the code is redeemed.
fn connected(stand: &Stand, account: &str) {
    let link = stand.usual_link();
    let mut person = Person::default();
    let page = person.visits(&link);
    let asked = person.submits(&page, &[("answer", "connect")]);
    let back = person.consents(&asked.url, account);
    assert!(back.url.contains("/connect/callback?"), "{back:?}");
    let place = person.visits(&back.url);
    assert!(place.url.starts_with(LANDING), "{place:?}");
    assert!(stand.redeem(&param(&place.url, "connect_code").unwrap_or_else(|| panic!("{place:?}"))));
}

/// A gateway in front of `oidc-provider`'s own API.
fn before(oidc: &Oidc, scheme: &str, admin: u16) -> Stand {
    let config = format!(
        "admin: {{ listen: \"127.0.0.1:{admin}\" }}\nstore: {{ file: {{ path: data }} }}\nresources:\n  api:\n    base_url: \"{}/api\"\n    auth:\n      oauth2_authorization_code:\n{}",
        oidc.url(),
        scheme.lines().map(|line| format!("        {line}\n")).collect::<String>()
    );
    let gateway = Gateway::start_with(&config, &oidc.variables());
    Stand { gateway, admin, issuer: Issuer::minting(1), api: crate::support::Upstream::ok() }
}

#[test]
fn oidc_provider_registers_a_client_and_a_person_connects_with_it() {
    let Some(oidc) = Oidc::start() else { return };
    let scheme = format!(
        "discover: true\nissuer: \"{}\"\nregistration: {{}}\nscopes: [openid, offline_access]\nparams: {{ prompt: consent }}",
        oidc.url()
    );
    let stand = before(&oidc, &scheme, free_port());
    connected(&stand, "alice");
    let reply = stand.gateway.get("/r/api/me");
    assert_eq!((reply.status, reply.json()["account"].as_str()), (200, Some("alice")), "{}", reply.text());
}

#[test]
fn oidc_provider_rotates_and_a_spent_refresh_token_ends_the_connection_with_a_link() {
    let admin = free_port();
    let callback = format!("http://127.0.0.1:{admin}/connect/callback");
    let Some(oidc) = Oidc::start_with(&json!({ "redirect_uris": [callback], "life": 2 })) else { return };
    let scheme = format!(
        "authorize_url: \"{0}/auth\"\ntoken_url: \"{0}/token\"\nrevoke_url: \"{0}/token/revocation\"\nissuer: \"{0}\"\nclient_id: web\nclient_secret: \"${{env:SECRET}}\"\nscopes: [openid, offline_access]\nparams: {{ prompt: consent }}",
        oidc.url()
    );
    let stand = before(&oidc, &scheme, admin);
    connected(&stand, "bob");
    // Through several lives of a token, over a restart, without a gap.
    let mut stand = stand;
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_secs(5) {
        let reply = stand.gateway.get("/r/api/me");
        assert_eq!((reply.status, reply.json()["account"].as_str()), (200, Some("bob")), "{}", reply.text());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    stand.gateway.stop();
    stand.gateway.again();
    assert_eq!(stand.gateway.get("/r/api/me").status, 200);
    // Told that it is over, the provider takes the grant's tokens no more.
    let reply = stand.api("DELETE", "/api/connections/api/default", &json!({}));
    assert_eq!(reply.json()["revoked"], true, "{}", reply.text());
    assert_eq!(stand.gateway.get("/r/api/me").status, 424);
    connected(&stand, "carol");
    assert!(eventually(|| (stand.gateway.get("/r/api/me").json()["account"] == "carol").then_some(())).is_some());
}

#[test]
fn a_person_who_declines_at_oidc_provider_connects_nothing() {
    let admin = free_port();
    let callback = format!("http://127.0.0.1:{admin}/connect/callback");
    let Some(oidc) = Oidc::start_with(&json!({ "redirect_uris": [callback] })) else { return };
    let scheme = format!(
        "authorize_url: \"{0}/auth\"\ntoken_url: \"{0}/token\"\nissuer: \"{0}\"\nclient_id: public\nclient_auth: none\nscopes: [openid]\nparams: {{ prompt: none }}",
        oidc.url()
    );
    let stand = before(&oidc, &scheme, admin);
    let mut person = Person::default();
    let page = person.visits(&stand.usual_link());
    let asked = person.submits(&page, &[("answer", "connect")]);
    // Nobody is signed in, and the provider may not ask.
    let back = person.visits(&asked.url);
    let place = person.visits(&back.url);
    assert_eq!(param(&place.url, "connect_error").as_deref(), Some("login_required"), "{place:?}");
    assert!(stand.connections().is_empty());
}
