//! Every preset against an upstream of its own that compares each byte that the vendor documents: as `postern add` writes
//! it, with nothing overlaid but where its hosts are.

mod judge;
mod scenarios;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::browser::{Browser, LANDING, Stand, landed, param};
use crate::support::issuer::Issuer;
use crate::support::{Gateway, Upstream, free_port, postern, root};
use judge::{Pair, serve};
use scenarios::Scenario;

/// What grants of people need: a place that lasts.
const TOP: &str = "store: { file: { path: data } }\n";
/// What a client of the gateway sends on its own, and no upstream may see.
const CLIENTS: &str = "Authorization: Bearer clients-own\r\nContent-Type: application/x-www-form-urlencoded\r\n";

fn run(folder: &Path, args: &[&str], variables: &[(String, String)]) -> Output {
    postern().args(args).current_dir(folder).envs(variables.iter().cloned()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of a preset's file that say where its hosts are, as keys to overlay.
fn overlay(preset: &str, at: &str) -> String {
    let file = fs::read_to_string(root().join(format!("config/presets/{preset}.yaml"))).unwrap();
    let line = |key: &str| file.lines().find_map(|line| line.trim_start().strip_prefix(key));
    let moved = |key: &str| {
        let line = line(key)?;
        let (_, rest) = line.trim().trim_matches('"').split_once("https://")?;
        Some(format!("{key}\"{at}{}\"", rest.find('/').map_or("", |slash| &rest[slash..])))
    };
    let scheme = file.lines().find_map(|line| line.trim().strip_suffix(':').filter(|key| key.starts_with("oauth2_")));
    // Where only the token says where it is good, the issuer says so, and it must be allowed.
    let allowed = format!("hosts: [\"{}\"], allow_private: true, allow_http: true", at.trim_start_matches("http://"));
    let base = moved("base_url: ").unwrap_or(allowed);
    let token = moved("token_url: ").map(|token| format!(", auth: {{ {}: {{ {token} }} }}", scheme.unwrap()));
    format!("      {preset}: {{ {base}{} }}\n", token.unwrap_or_default())
}

/// A folder with every preset added, and an upstream for each.
struct Stage {
    folder: tempfile::TempDir,
    upstreams: Vec<Upstream>,
    scenarios: Vec<Scenario>,
    variables: Vec<(String, String)>,
}

impl Stage {
    fn new() -> Self {
        let keys = Pair::generate();
        let scenarios = scenarios::all(&keys);
        let known: BTreeSet<&str> = scenarios.iter().map(|s| s.preset).collect();
        let files = fs::read_dir(root().join("config/presets")).unwrap().flatten().map(|e| e.path());
        let files = files.filter(|path| path.extension().is_some_and(|e| e == "yaml"));
        let stems: BTreeSet<String> = files.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(known, stems.iter().map(String::as_str).collect(), "every preset has a scenario");
        let upstreams: Vec<Upstream> = scenarios::all(&keys).into_iter().map(serve).collect();
        let of = |(s, upstream): (&Scenario, &Upstream)| {
            let issuer = upstream.url();
            s.variables.iter().map(|(name, value)| ((*name).to_owned(), value.replace("{issuer}", &issuer))).collect::<Vec<_>>()
        };
        let variables = scenarios.iter().zip(&upstreams).flat_map(of).collect();
        let folder = tempfile::tempdir().unwrap();
        for scenario in &scenarios {
            let added = run(folder.path(), &["add", scenario.preset], &[]);
            assert_eq!(added.status.code(), Some(0), "{}", text(&added.stderr));
        }
        fs::write(folder.path().join("postern.yaml"), TOP).unwrap();
        Self { folder, upstreams, scenarios, variables }
    }

    /// The same variables with every secret changed.
    fn tampered(&self) -> Vec<(String, String)> {
        let other = Pair::generate();
        let change = |(name, value): &(String, String)| {
            let mut value = value.replace("hunter2", "hunter3");
            if value.contains("private_key") {
                let mut key: Value = serde_json::from_str(&value).unwrap();
                key["private_key"] = other.private.clone().into();
                value = key.to_string();
            }
            (name.clone(), value)
        };
        self.variables.iter().map(change).collect()
    }

    /// The main file, with every host on loopback.
    fn lead_to_loopback(&self) -> String {
        let resources: String = self.scenarios.iter().zip(&self.upstreams).map(|(s, up)| overlay(s.preset, &up.url())).collect();
        let main = format!("{TOP}environment: loopback\nenvironments:\n  loopback:\n    resources:\n{resources}");
        fs::write(self.folder.path().join("postern.yaml"), &main).unwrap();
        main
    }

    /// A gateway on all of it, and what goes with it where people consent.
    fn stand(&self, variables: &[(String, String)]) -> Stand {
        let admin = free_port();
        let mut config = self.lead_to_loopback() + &format!("admin: {{ listen: \"127.0.0.1:{admin}\" }}\n");
        let presets: String = self.scenarios.iter().map(|s| format!("  {0}: {{ preset: {0} }}\n", s.preset)).collect();
        config.push_str(&format!("resources:\n{presets}"));
        let variables: Vec<(&str, &str)> = variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        Stand { gateway: Gateway::start_with(&config, &variables), admin, issuer: Issuer::minting(1), api: Upstream::ok() }
    }

    fn leaks_nothing(&self, what: &str, shown: &str) {
        for (name, value) in self.variables.iter().filter(|(_, value)| value.contains("hunter2")) {
            assert!(!shown.contains("hunter2") && !shown.contains(value.as_str()), "{what} shows {name}: {shown}");
        }
    }
}

/// Whether a person has consented, where this preset wants that.
fn consented(stand: &Stand, scenario: &Scenario) -> bool {
    let Some(consent) = &scenario.consent else { return true };
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.link(json!({ "resource": scenario.preset, "return_url": LANDING })));
    assert!(asked.starts_with(consent.authorize), "{asked}");
    for (name, value) in &consent.asks {
        assert_eq!(param(&asked, name).as_deref(), Some(*value), "{asked}");
    }
    let reply = browser.come_back(&asked, consent.back);
    reply.field("location").is_some_and(|to| to.contains("connect_code")) && stand.redeem(&landed(&reply))
}

#[test]
fn every_preset_sends_to_the_letter_what_its_vendor_documents() {
    let stage = Stage::new();
    let stand = stage.stand(&stage.variables);
    let gateway = &stand.gateway;
    for (scenario, upstream) in stage.scenarios.iter().zip(&stage.upstreams) {
        assert!(consented(&stand, scenario), "{}: {}", scenario.preset, gateway.stderr());
        let (method, target, body) = scenario.asks;
        let reply = gateway.send(method, &format!("/r/{}{target}", scenario.preset), CLIENTS, body.as_bytes());
        assert_eq!(reply.status, 200, "{}: {} {}", scenario.preset, reply.head, reply.text());
        assert!(upstream.seen().iter().all(|seen| !seen.head.contains("clients-own")), "{}", scenario.preset);
        stage.leaks_nothing(scenario.preset, &format!("{}{}", reply.head, reply.text()));
    }
    let records = gateway.records(stage.scenarios.len());
    stage.leaks_nothing("the audit log", &format!("{records:?}"));
    stage.leaks_nothing("the log", &gateway.stderr());
}

#[test]
fn with_any_other_secret_the_upstreams_refuse() {
    let stage = Stage::new();
    let stand = stage.stand(&stage.tampered());
    let gateway = &stand.gateway;
    for (scenario, upstream) in stage.scenarios.iter().zip(&stage.upstreams) {
        assert_eq!(consented(&stand, scenario), scenario.consent.is_none(), "{}", scenario.preset);
        let (method, target, body) = scenario.asks;
        let reply = gateway.send(method, &format!("/r/{}{target}", scenario.preset), CLIENTS, body.as_bytes());
        // A refused grant is the gateway's own trouble, and no 401; without consent there is no account.
        let wanted = match (&scenario.token, &scenario.consent) {
            (None, _) => [401, 401],
            (_, None) => [502, 503],
            (_, Some(_)) => [424, 424],
        };
        assert!(wanted.contains(&reply.status), "{}: {} {}", scenario.preset, reply.status, reply.text());
        assert!(!upstream.seen().is_empty(), "{}", scenario.preset);
    }
}

#[test]
fn every_preset_is_added_checked_listed_explained_and_tested() {
    let stage = Stage::new();
    let folder = stage.folder.path();
    let checked = run(folder, &["check"], &stage.variables);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let listed = run(folder, &["list", "--json"], &stage.variables);
    let all: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    for scenario in &stage.scenarios {
        let row = all.iter().find(|row| row["name"] == scenario.preset).unwrap();
        assert_eq!((&row["base_url"], &row["preset"]), (&scenario.base.into(), &scenario.preset.into()));
    }
    stage.leaks_nothing("list", &text(&listed.stdout));

    stage.lead_to_loopback();
    for scenario in &stage.scenarios {
        let explained = run(folder, &["explain", "GET", &format!("/r/{}/x", scenario.preset), "--json"], &stage.variables);
        assert_eq!(explained.status.code(), Some(0), "{}", text(&explained.stderr));
        stage.leaks_nothing("explain", &format!("{}{}", text(&explained.stdout), text(&explained.stderr)));
    }
    // Where a person must consent, nobody has: that is what the test says.
    let (people, own): (Vec<&Scenario>, Vec<&Scenario>) = stage.scenarios.iter().partition(|s| s.consent.is_some());
    let names: Vec<&str> = own.iter().map(|s| s.preset).collect();
    let tested = run(folder, &[&["test", "--json"], &names[..]].concat(), &stage.variables);
    let rows: Vec<Value> = text(&tested.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bad: Vec<&Value> = rows.iter().filter(|row| row["ok"] != true).collect();
    // A preset without a test of its own calls its base URL.
    assert_eq!(tested.status.code(), Some(0), "{bad:#?}");
    assert_eq!(rows.iter().filter(|row| row["stage"] == "call").count(), own.len());
    for scenario in people {
        let tested = text(&run(folder, &["test", "--json", scenario.preset], &stage.variables).stdout);
        let last: Value = serde_json::from_str(tested.lines().last().unwrap()).unwrap();
        assert_eq!((&last["ok"], &last["stage"]), (&false.into(), &"credential".into()), "{tested}");
        assert!(tested.contains("postern connect"), "{tested}");
    }
    stage.leaks_nothing("test", &format!("{}{}", text(&tested.stdout), text(&tested.stderr)));

    let wrong = run(folder, &["test", "--json"], &stage.tampered());
    let rows: Vec<Value> = text(&wrong.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed: BTreeSet<&str> = rows.iter().filter(|row| row["ok"] == false).map(|row| row["resource"].as_str().unwrap()).collect();
    assert_eq!((wrong.status.code(), failed), (Some(4), stage.scenarios.iter().map(|s| s.preset).collect()));
}

#[test]
fn what_is_missing_is_said_in_words_and_with_both_ways_and_all_at_once() {
    let stage = Stage::new();
    let report = text(&run(stage.folder.path(), &["check"], &[]).stderr);
    let presets: Vec<Value> = serde_json::from_slice(&run(stage.folder.path(), &["list", "--presets", "--json"], &[]).stdout).unwrap();
    let mut needed = 0;
    for (preset, input) in presets.iter().flat_map(|p| p["inputs"].as_array().unwrap().iter().map(move |i| (p, i))) {
        let said = |key: &str| input[key].as_str().unwrap_or_default();
        let message = format!("the preset `{}` needs {}: {} is not set", preset["name"].as_str().unwrap(), said("is"), said("env"));
        let hint = format!("set {}, or write `{}` in the resource", said("env"), said("write"));
        assert_eq!(report.matches(&message).count(), usize::from(input["needed"] == true), "{message}\n{report}");
        assert_eq!(report.contains(&hint), input["needed"] == true, "{hint}\n{report}");
        needed += usize::from(input["needed"] == true);
    }
    assert!(report.contains(&format!("{needed} problems")), "something else is wrong too: {report}");
}

/// The base URL of the resource `r` of this file, or the report of what is wrong.
fn base(config: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("postern.yaml"), config).unwrap();
    let variables: Vec<(String, String)> = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let output = run(folder.path(), &["list", "--json"], &variables);
    if output.status.code() != Some(0) {
        return Err(text(&output.stderr) + &text(&output.stdout));
    }
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    Ok(all.iter().find(|row| row["name"] == "r").unwrap()["base_url"].as_str().unwrap().to_owned())
}

#[test]
fn a_tenant_is_pasted_in_any_spelling_and_never_leads_to_another_host() {
    let keys = Pair::generate();
    let scenarios = scenarios::all(&keys);
    for (preset, variable, value, leads) in [
        ("zendesk", "ZENDESK_SUBDOMAIN", "https://acme.zendesk.com/", Some("https://acme.zendesk.com")),
        ("zendesk", "ZENDESK_SUBDOMAIN", "evil.example/x", None),
        ("zendesk", "ZENDESK_SUBDOMAIN", "evil.example#", None),
        ("zendesk", "ZENDESK_SUBDOMAIN", "user@evil.example?", None),
        ("okta", "OKTA_CLIENT_ORGURL", "acme.okta.com", Some("https://acme.okta.com")),
        ("okta", "OKTA_CLIENT_ORGURL", "https://acme.okta.com.evil.example", None),
        ("okta", "OKTA_CLIENT_ORGURL", "http://acme.okta.com", Some("https://acme.okta.com")),
        ("datadog", "DD_SITE", "datadoghq.eu", Some("https://api.datadoghq.eu")),
        ("datadog", "DD_SITE", "", Some("https://api.datadoghq.com")),
        ("datadog", "DD_SITE", "evil.example", None),
        ("mailgun", "MAILGUN_HOST", "api.eu.mailgun.net", Some("https://api.eu.mailgun.net")),
        ("mailgun", "MAILGUN_HOST", "localhost", None),
        ("shopify", "SHOPIFY_SHOP", "acme", Some("https://acme.myshopify.com/admin/api/2026-04")),
        ("shopify", "SHOPIFY_API_VERSION", "../x", None),
        ("netsuite", "NETSUITE_ACCOUNT_ID", "1234", Some("https://1234.suitetalk.api.netsuite.com")),
        ("aws-s3", "AWS_REGION", "us-east-1.evil.example/", None),
        ("paypal", "PAYPAL_HOST", "", Some("https://api-m.paypal.com")),
        ("paypal", "PAYPAL_HOST", "evil.example", None),
        // What a variable brings is text, whatever it looks like.
        ("zendesk", "ZENDESK_SUBDOMAIN", "{{ 'acme' }}", None),
        ("zendesk", "ZENDESK_SUBDOMAIN", "${env:ZENDESK_API_TOKEN}", None),
        ("discord", "DISCORD_BOT_URL", "${env:DISCORD_TOKEN}", Some("https://discord.com/api/v10")),
    ] {
        let scenario = scenarios.iter().find(|s| s.preset == preset).unwrap();
        let mut variables: Vec<(&str, &str)> = scenario.variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
        variables.retain(|(name, _)| *name != variable);
        variables.push((variable, value));
        let found = base(&format!("resources: {{ r: {{ preset: {preset} }} }}\n"), &variables);
        match (leads, found) {
            (Some(leads), found) => assert_eq!(found.as_deref(), Ok(leads), "{variable}={value}"),
            (None, Ok(found)) => panic!("{variable}={value} leads to {found}"),
            (None, Err(report)) => assert!(!report.contains("hunter2"), "{report}"),
        }
    }
}

#[test]
fn what_the_resource_says_in_its_place_is_not_needed() {
    for (config, variables) in [
        // A value of the resource's own, or of the top level.
        ("resources: { r: { preset: zendesk, vars: { subdomain: acme, email: a@b.example } } }", &[("ZENDESK_API_TOKEN", "x")][..]),
        ("vars: { subdomain: acme, email: a@b.example }\nresources: { r: { preset: zendesk } }", &[("ZENDESK_API_TOKEN", "x")]),
        // Another base URL and another credential: nothing names the variables any more.
        ("resources: { r: { preset: zendesk, base_url: \"https://acme.zendesk.com\", auth: none } }", &[]),
        (
            "resources: { r: { preset: zendesk, base_url: \"https://acme.zendesk.com\", auth: { bearer: \"${env:OWN}\" } } }",
            &[("OWN", "x")],
        ),
        (
            "resources: { r: { preset: zendesk, vars: { email: e }, base_url: \"https://${var:subdomain}.zendesk.com\", auth: none } }",
            &[("ZENDESK_SUBDOMAIN", "acme")],
        ),
    ] {
        assert_eq!(base(config, variables).as_deref(), Ok("https://acme.zendesk.com"), "{config}");
    }
    let unset = base("resources: { r: { preset: zendesk, base_url: \"https://${var:subdomain}.zendesk.com\", auth: none } }", &[]);
    assert!(unset.unwrap_err().contains("ZENDESK_SUBDOMAIN is not set"));
    let both = base("resources: { r: { preset: datadog, auth: none } }", &[]);
    assert_eq!(both.as_deref(), Ok("https://api.datadoghq.com"));
}

#[test]
fn the_page_on_presets_names_each_and_what_it_needs_and_may_take() {
    let page = fs::read_to_string(root().join("docs/presets.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let presets: Vec<Value> = serde_json::from_slice(&run(folder.path(), &["list", "--presets", "--json"], &[]).stdout).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 6).collect();
    assert_eq!(rows.len(), presets.len());
    for (row, preset) in rows.iter().zip(&presets) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let variables = |needed: bool| {
            let inputs = preset["inputs"].as_array().unwrap().iter().filter(|i| i["needed"] == needed);
            inputs.map(|i| format!("`{}`", i["env"].as_str().unwrap())).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(cells[1], format!("`{}`", preset["name"].as_str().unwrap()));
        assert_eq!((cells[3], cells[4]), (variables(true).as_str(), variables(false).as_str()), "{row}");
    }
}

/// Words of names that are the contract's own: the schemes `aws_sigv4` and `google_service_account`, and the service whose
/// rules of signing differ.
const OF_THE_CONTRACT: [&str; 3] = ["aws", "s3", "google"];

#[test]
fn no_vendor_has_code_of_its_own() {
    let files = fs::read_dir(root().join("config/presets")).unwrap().flatten().map(|e| e.path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    let stem = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut names: BTreeSet<String> = files.iter().map(|path| stem(path)).collect();
    let words = files.iter().map(|path| stem(path).split('-').next().unwrap().to_owned());
    names.extend(words.filter(|word| !OF_THE_CONTRACT.contains(&word.as_str())));
    // And the environment that presets read.
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        let variables = text.split("env: ").skip(1).map(|rest| rest.split([',', ' ', '}']).next().unwrap().to_ascii_lowercase());
        names.extend(variables.filter(|name| !name.starts_with("aws_")));
    }
    assert!(names.len() > 60, "{names:?}");
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().flatten().map(|e| e.path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.ends_with("tests.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
                let line = line.to_ascii_lowercase();
                let said = |name: &&String| line.contains(name.as_str()) || line.contains(&name.replace('-', "_"));
                assert_eq!(names.iter().find(said), None, "{}: {line}", path.display());
            }
        }
    }
}
