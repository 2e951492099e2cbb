//! The layers of the configuration: files, folders, environments, variables, flags, defaults and presets, and where each
//! value says that it came from.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{Gateway, Upstream, postern};

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn command(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = postern();
    command.args(args).current_dir(folder).envs(variables.iter().copied());
    command
}

fn run(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    command(folder, args, variables).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The resources as `list --json` shows them.
fn list(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Vec<Value> {
    let output = run(folder, &[&["list", "--json"], args].concat(), variables);
    assert_eq!(output.status.code(), Some(0), "{}{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The base URL of one resource.
fn base(folder: &Path, name: &str, args: &[&str], variables: &[(&str, &str)]) -> String {
    let all = list(folder, args, variables);
    let found = all.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("{name}: {all:?}"));
    found["base_url"].as_str().unwrap().to_owned()
}

/// The report of what is wrong, which it must be.
fn wrong(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(folder, &[&["check"], args].concat(), variables);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    stderr(&output)
}

const STAGES: &str = "
environments:
  staging: { resources: { a: { base_url: \"http://localhost:2\" } } }
  production: { vars: { port: 3 }, resources: { a: { base_url: \"http://localhost:${var:port}\" } } }
vars: { port: 9 }
resources: { a: { base_url: \"http://localhost:1\" } }
";

#[test]
fn each_layer_wins_over_the_one_before() {
    let dir = folder(&[
        (
            "postern.yaml",
            "environment: prod\ndefaults: { base_url: \"http://localhost:1\" }\nresources: { b: {}, c: { base_url: \"http://localhost:2\" } }\n",
        ),
        ("resources/d.yaml", "base_url: http://localhost:3\n"),
        ("resources/e.yml", "{}\n"),
        ("resources/f.json", "{\"base_url\": \"http://localhost:3\"}"),
        ("environments/prod.yaml", "resources: { d: { base_url: \"http://localhost:4\" }, c: { base_url: \"http://localhost:4\" } }\n"),
    ]);
    let at = |name: &str, args: &[&str], variables: &[(&str, &str)]| base(dir.path(), name, args, variables);
    assert_eq!(at("b", &[], &[]), "http://localhost:1", "defaults");
    assert_eq!(at("e", &[], &[]), "http://localhost:1", "defaults, under a file of resources/");
    assert_eq!(at("f", &[], &[]), "http://localhost:3", "resources/");
    assert_eq!((at("c", &[], &[]), at("d", &[], &[])), ("http://localhost:4".into(), "http://localhost:4".into()), "environment");
    let variable = [("POSTERN_RESOURCES__D__BASE_URL", "http://localhost:5")];
    assert_eq!(at("d", &[], &variable), "http://localhost:5", "variable");
    assert_eq!(at("d", &["--set", "resources.d.base_url=http://localhost:6"], &variable), "http://localhost:6", "flag");
    assert_eq!(at("g", &["--set", "resources.g={base_url: \"http://localhost:7\"}"], &[]), "http://localhost:7");
}

#[test]
fn an_environment_is_chosen_by_flag_then_variable_then_key() {
    let dir = folder(&[("postern.yaml", STAGES)]);
    let at = |args: &[&str], variables: &[(&str, &str)]| base(dir.path(), "a", args, variables);
    assert_eq!(at(&["--env", "staging"], &[("POSTERN_ENV", "production")]), "http://localhost:2");
    assert_eq!(at(&[], &[("POSTERN_ENV", "production")]), "http://localhost:3");
    assert_eq!(at(&["--set", "environment=staging"], &[]), "http://localhost:2");
    assert_eq!(at(&[], &[("POSTERN_ENVIRONMENT", "staging")]), "http://localhost:2");
    let keyed = folder(&[("postern.yaml", &format!("environment: staging\n{STAGES}"))]);
    assert_eq!(base(keyed.path(), "a", &[], &[]), "http://localhost:2");
    assert_eq!(base(keyed.path(), "a", &[], &[("POSTERN_ENV", "production")]), "http://localhost:3");
    assert_eq!(list(keyed.path(), &[], &[])[0]["environment"], "staging");
}

#[test]
fn an_environment_that_is_absent_or_not_chosen_is_an_error() {
    let dir = folder(&[("postern.yaml", STAGES), ("environments/test.yaml", "{}\n")]);
    let report = wrong(dir.path(), &[], &[]);
    assert!(report.contains("none is chosen: staging, production, test") && report.contains("--env NAME"), "{report}");
    let report = wrong(dir.path(), &["--env", "prodction"], &[]);
    assert!(
        report.contains("no environment `prodction`") && report.contains("did you mean `production`?") && report.contains("--env:1:1"),
        "{report}"
    );
    let report = wrong(dir.path(), &[], &[("POSTERN_ENV", "stagin")]);
    assert!(report.contains("did you mean `staging`?") && report.contains("environment variable POSTERN_ENV:1:13"), "{report}");
    let none = folder(&[("postern.yaml", "environment: x\nresources: { a: { base_url: \"http://localhost\" } }\n")]);
    assert!(wrong(none.path(), &[], &[]).contains("no environment `x`"));
    let twice = folder(&[("postern.yaml", STAGES), ("environments/staging.yaml", "{}\n")]);
    assert!(wrong(twice.path(), &["--env", "staging"], &[]).contains("there twice"));
    let nested = folder(&[("postern.yaml", "environment: a\nenvironments: { a: { environment: b } }\n")]);
    assert!(wrong(nested.path(), &[], &[]).contains("cannot stand inside an environment"));
}

#[test]
fn an_inactive_environment_is_not_looked_at() {
    let text = "environments: { other: { resources: { a: { auth: { bearer: \"${env:NOT_SET}\" } }, nonsense: 1 }, zzz: 1 }, here: {} }\n\
                resources: { a: { base_url: \"http://localhost:1\" } }\n";
    let dir = folder(&[("postern.yaml", text), ("environments/broken.yaml", "a: [\n")]);
    assert_eq!(base(dir.path(), "a", &["--env", "here"], &[]), "http://localhost:1");
    let report = wrong(dir.path(), &["--env", "other"], &[]);
    assert!(report.contains("NOT_SET is not set") && report.contains("unknown key `zzz`") && report.contains("found `1`"), "{report}");
    assert!(wrong(dir.path(), &["--env", "broken"], &[]).contains("environments/broken.yaml:2:1"));
}

#[test]
fn variables_fold_to_the_names_that_are_there() {
    let dir = folder(&[("postern.yaml", "resources: { pay-api: { base_url: \"http://localhost:1\", headers: { X-Tenant: a } } }\n")]);
    let at = |name: &str, value: &str| base(dir.path(), "pay-api", &[], &[(name, value)]);
    assert_eq!(at("POSTERN_RESOURCES__PAY_API__BASE_URL", "http://localhost:2"), "http://localhost:2");
    assert_eq!(at("POSTERN_resources__pay_api__base_url", "'http://localhost:3'"), "http://localhost:3");
    // What is no layer: reserved names, names without levels, names that a reference reads.
    for name in ["POSTERN_TOKEN", "POSTERN_SERVER", "OTHER_A__B"] {
        assert_eq!(at(name, "x"), "http://localhost:1", "{name}");
    }
    let named = folder(&[(
        "postern.yaml",
        "resources: { a: { base_url: \"http://localhost:1\", auth: { bearer: \"${env:POSTERN_MY__TOKEN}\" } } }\n",
    )]);
    assert_eq!(base(named.path(), "a", &[], &[("POSTERN_MY__TOKEN", "x")]), "http://localhost:1");
    for (name, value, said, hint) in [
        ("POSTERN_RESOURCES__PAI_API__BASE_URL", "x", "`PAI_API` matches nothing", "did you mean `pay-api`?"),
        ("POSTERN_SERVER__LISEN", "x", "`LISEN` matches nothing", "did you mean `listen`?"),
        ("POSTERN_RESOURCES__PAY_API__HEADERS__X_NEW", "x", "`X_NEW` matches nothing", "X-Tenant"),
        ("POSTERN_RESOURCES__PAY_API__BASE_URL__X", "x", "`X` matches nothing", "nothing can stand below"),
        ("POSTERN_RESOURCES__PAY_API__TIMEOUTS__HEAD", "10", "expected a duration, found `10`", "did you mean `10s`?"),
        ("POSTERN_ALLOW_LITERAL_SECRETS", "yes", "expected true or false", ""),
        ("POSTERN_MASTER_KEY", "hunter2hunter2", "32 bytes", "openssl rand"),
    ] {
        let report = wrong(dir.path(), &[], &[(name, value)]);
        assert!(report.contains(said) && report.contains(hint) && report.contains(&format!("environment variable {name}:1:")), "{report}");
        assert!(!report.contains("hunter2"), "{report}");
    }
    let twins =
        folder(&[("postern.yaml", "resources: { a-b: { base_url: \"http://localhost\" }, a_b: { base_url: \"http://localhost\" } }\n")]);
    assert!(wrong(twins.path(), &[], &[("POSTERN_RESOURCES__A_B__BASE_URL", "x")]).contains("may be `a-b` or `a_b`"));
}

#[test]
fn a_secret_may_come_by_a_variable_and_is_never_shown() {
    let upstream = Upstream::ok();
    let config = format!("resources: {{ a: {{ base_url: \"{}\", auth: {{ bearer: {{ scheme: Token }} }} }} }}\n", upstream.url());
    let gateway = Gateway::start_with(&config, &[("POSTERN_RESOURCES__A__AUTH__BEARER__TOKEN", "by-a-variable")]);
    assert_eq!(gateway.get("/r/a/x").status, 200);
    assert_eq!(upstream.last().fields("authorization"), ["Token by-a-variable"]);
    let dir = folder(&[("postern.yaml", "resources: { a: { base_url: \"http://localhost\", auth: { bearer: { scheme: \"a b\" } } } }\n")]);
    let variables = [("POSTERN_RESOURCES__A__AUTH__BEARER__TOKEN", "by-a-variable\u{7f}")];
    for more in [&[][..], &["--json"]] {
        let output = run(dir.path(), &[&["check"], more].concat(), &variables);
        let said = format!("{}{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
        assert!(output.status.code() == Some(3) && !said.contains("by-a-variable"), "{said}");
    }
}

#[test]
fn what_is_wrong_with_a_flag_is_shown_in_the_flag() {
    let dir = folder(&[("postern.yaml", "resources: { a: { base_url: \"http://localhost:1\" } }\n")]);
    for (flag, said) in [
        ("server.workers=none", "expected a whole number"),
        ("server.lisen=1", "unknown key `lisen`"),
        ("resources.a.timeouts.head=10", "did you mean `10s`?"),
        ("resources.a.auth.bearer=hunter2hunter2", "must be a reference"),
        ("server.workers", "a key and a value"),
        ("server..workers=1", "no way to a key"),
        ("resources.a.headers={X: [", "not YAML"),
    ] {
        let report = wrong(dir.path(), &["--set", flag], &[]);
        assert!(report.contains(said) && report.contains("--> --set:1:") && !report.contains("hunter2"), "{flag}: {report}");
    }
    let json = run(dir.path(), &["check", "--json", "--set", "resources.a.timeouts.head=10"], &[]);
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&report["problems"][0]["file"], &report["problems"][0]["path"]), (&"--set".into(), &"resources.a.timeouts.head".into()));
}

#[test]
fn a_problem_names_the_file_that_said_it_and_all_files_are_reported_at_once() {
    let dir = folder(&[
        (
            "postern.yaml",
            "environment: prod\nserver: { lisen: 1 }\nresources: { a: { base_url: \"http://localhost\" } }\ndefaults: { timeouts: { haed: 1s } }\n",
        ),
        ("resources/b.yaml", "base_url: http://localhost\ntimeouts: { idle: 10 }\n"),
        ("resources/Bad.yaml", "base_url: http://localhost\n"),
        ("resources/c.yaml", "base_url: [\n"),
        ("resources/d.toml", "base_url = 1\n"),
        ("environments/prod.yaml", "resources:\n  a:\n    websocket: maybe\n"),
    ]);
    let output = run(dir.path(), &["check", "--json"], &[("POSTERN_SERVER__WORKERS", "0")]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<String> = report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            format!("{}:{} {} {}", p["file"].as_str().unwrap(), p["line"], p["path"].as_str().unwrap(), p["message"].as_str().unwrap())
        })
        .collect();
    for part in [
        "postern.yaml:2 server.lisen unknown key `lisen`",
        "postern.yaml:4 defaults.timeouts.haed unknown key `haed`",
        "resources/b.yaml:2 resources.b.timeouts.idle expected a duration",
        "resources/Bad.yaml:1 resources.Bad",
        "resources/c.yaml:2 resources.c this is not YAML",
        "resources/d.toml is TOML",
        "environments/prod.yaml:3 environments.prod.resources.a.websocket expected true or false",
        "environment variable POSTERN_SERVER__WORKERS:1 server.workers",
    ] {
        assert!(rows.iter().any(|row| row.contains(part)), "{part}: {rows:#?}");
    }
    // What stands once in `defaults` is reported once, however many resources lie over it.
    assert_eq!(rows.iter().filter(|row| row.contains("haed")).count(), 1, "{rows:#?}");
}

#[test]
fn a_resource_of_a_file_cannot_be_one_of_another() {
    let dir = folder(&[
        ("postern.yaml", "resources: { a: { base_url: \"http://localhost\" } }\n"),
        ("resources/a.yaml", "base_url: http://localhost\n"),
        ("resources/b.yaml", "base_url: http://localhost\n"),
        ("resources/b.json", "{\"base_url\": \"http://localhost\"}\n"),
        ("resources/.hidden.yaml", "nonsense: 1\n"),
        ("resources/README.md", "nothing\n"),
    ]);
    let report = wrong(dir.path(), &[], &[]);
    assert!(report.contains("`a` is there twice: in line 1 of the main file"), "{report}");
    assert!(report.contains("`b` is there twice: in ./resources/b.json") && report.contains("2 problems"), "{report}");
}

#[test]
fn relative_paths_begin_at_the_folder_of_the_file_that_says_them() {
    let secret = |name: &str| format!("auth: {{ bearer: \"${{file:{name}}}\" }}");
    let dir = folder(&[
        (
            "conf/postern.yaml",
            &format!(
                "environment: e\nresources: {{ a: {{ base_url: \"http://localhost\", {} }}, c: {{ base_url: \"http://localhost\" }} }}\n",
                secret("token")
            ),
        ),
        ("conf/token", "1"),
        ("conf/resources/b.yaml", &format!("base_url: http://localhost\n{}\n", secret("near"))),
        ("conf/resources/near", "2"),
        ("conf/environments/e.yaml", &format!("resources: {{ c: {{ {} }} }}\n", secret("here"))),
        ("conf/environments/here", "3"),
        ("flag", "4"),
    ]);
    let args = ["--config", "conf/postern.yaml", "--set", "resources.d={base_url: \"http://localhost\", auth: {bearer: \"${file:flag}\"}}"];
    assert_eq!(list(dir.path(), &args, &[]).len(), 4);
    fs::remove_file(dir.path().join("conf/environments/here")).unwrap();
    assert!(wrong(dir.path(), &args, &[]).contains("the file here cannot be read"));
}

#[test]
fn an_overlay_may_change_one_field_of_a_scheme_or_the_scheme() {
    let upstream = Upstream::ok();
    let config = format!(
        "environment: e\nresources:\n  same: {{ base_url: \"{0}\", auth: {{ basic: {{ username: \"${{env:U}}\", password: \"${{env:P}}\" }} }} }}\n  \
         other: {{ base_url: \"{0}\", auth: {{ basic: {{ username: \"${{env:U}}\" }} }}, headers: {{ X-A: \"1\", X-B: \"1\" }} }}\n\
         environments: {{ e: {{ resources: {{ same: {{ auth: {{ basic: {{ password: \"${{env:Q}}\" }} }} }}, other: {{ auth: {{ bearer: \"${{env:Q}}\" }}, headers: {{ X-A: ~ }} }} }} }} }}\n",
        upstream.url()
    );
    let gateway = Gateway::start_with(&config, &[("U", "u"), ("P", "p"), ("Q", "q")]);
    gateway.get("/r/same/x");
    assert_eq!(upstream.last().fields("authorization"), ["Basic dTpx"]);
    gateway.send("GET", "/r/other/x", "X-A: mine\r\n", b"");
    let seen = upstream.seen().pop().unwrap();
    assert_eq!((seen.fields("authorization"), seen.fields("x-a"), seen.fields("x-b")), (vec!["Bearer q"], vec![], vec!["1"]));
    assert_eq!(gateway.records(2)[0]["environment"], "e");
    // Nothing grants another environment, or this one, by its name in the path.
    for path in ["/r/other@e/x", "/r/other@f/x", "/r/other%40e/x"] {
        let reply = gateway.get(path);
        assert_eq!((reply.status, reply.code().as_str()), (404, "unknown-resource"), "{path}");
    }
}

#[test]
fn defaults_lie_under_every_resource_and_routes_over_it() {
    let upstream = Upstream::ok();
    let config = format!(
        "defaults: {{ headers: {{ X-All: d, X-Own: d }}, auth: {{ bearer: \"${{env:T}}\" }} }}\nresources:\n  a:\n    base_url: \"{}\"\n    headers: {{ X-Own: own }}\n    \
         routes: [ {{ path: /open/**, auth: none, headers: {{ X-All: route }} }} ]\n",
        upstream.url()
    );
    let gateway = Gateway::start_with(&config, &[("T", "t")]);
    gateway.get("/r/a/x");
    let seen = upstream.last();
    assert_eq!((seen.fields("x-all"), seen.fields("x-own"), seen.fields("authorization")), (vec!["d"], vec!["own"], vec!["Bearer t"]));
    gateway.get("/r/a/open/x");
    let seen = upstream.seen().pop().unwrap();
    assert_eq!((seen.fields("x-all"), seen.fields("x-own"), seen.fields("authorization")), (vec!["route"], vec!["own"], vec![]));
}

#[test]
fn a_preset_suffices_once_its_variable_is_set_and_the_error_names_both_ways() {
    let dir = folder(&[("postern.yaml", "resources: { gh: { preset: github }, pay: { preset: stripe, auth: none } }\n")]);
    let report = wrong(dir.path(), &[], &[]);
    for part in [
        "needs a personal access token",
        "set GITHUB_TOKEN",
        "auth: { bearer: { token: \"${env:GITHUB_TOKEN}\" } }",
        "postern.yaml:1:28",
        "1 problem",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    let all = list(dir.path(), &[], &[("GITHUB_TOKEN", "x")]);
    assert_eq!(
        (&all[0]["base_url"], &all[0]["auth"], &all[0]["preset"]),
        (&"https://api.github.com".into(), &"bearer".into(), &"github".into())
    );
    assert_eq!(all[1]["auth"], "none");
    let typo = folder(&[("postern.yaml", "resources: { gh: { preset: githb } }\n")]);
    assert!(wrong(typo.path(), &[], &[]).contains("did you mean `github`?"));
}

#[test]
fn a_preset_lies_under_what_the_resource_says() {
    let upstream = Upstream::ok();
    let config = format!(
        "defaults: {{ headers: {{ Accept: text/plain, X-Default: d }} }}\nresources:\n  gh: {{ preset: github, base_url: \"{0}/v3\", auth: {{ bearer: \"${{env:MINE}}\" }}, headers: {{ X-GitHub-Api-Version: \"2026-03-10\" }} }}\n  \
         pay: {{ preset: stripe, base_url: \"{0}\" }}\n",
        upstream.url()
    );
    let gateway = Gateway::start_with(&config, &[("MINE", "my-own"), ("STRIPE_SECRET_KEY", "sk_test_1")]);
    gateway.get("/r/gh/user");
    let seen = upstream.last();
    assert_eq!(seen.target(), "/v3/user");
    for (name, value) in [
        ("authorization", "Bearer my-own"),
        ("accept", "application/vnd.github+json"),
        ("x-github-api-version", "2026-03-10"),
        ("x-default", "d"),
    ] {
        assert_eq!(seen.fields(name), [value]);
    }
    gateway.get("/r/pay/v1/balance");
    assert_eq!(upstream.seen().pop().unwrap().fields("authorization"), ["Basic c2tfdGVzdF8xOg=="]);
}

#[test]
fn presets_are_listed_and_added_and_nothing_is_overwritten() {
    let dir = folder(&[]);
    let output = run(dir.path(), &["list", "--presets", "--json"], &[]);
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(all.len() >= 3 && all.iter().all(|p| p["inputs"][0]["env"].is_string()), "{all:?}");
    let added = run(dir.path(), &["add", "github"], &[]);
    assert_eq!(added.status.code(), Some(0), "{}", stderr(&added));
    assert!(
        stderr(&added).contains("wrote ./resources/github.yaml") && stderr(&added).contains("wrote postern.yaml"),
        "{}",
        stderr(&added)
    );
    assert!(stderr(&added).contains("set GITHUB_TOKEN"));
    assert_eq!(base(dir.path(), "github", &[], &[("GITHUB_TOKEN", "x")]), "https://api.github.com");
    assert!(wrong(dir.path(), &[], &[]).contains("GITHUB_TOKEN is not set"));
    fs::write(dir.path().join("resources/github.yaml"), "mine: 1\n").unwrap();
    let again = run(dir.path(), &["add", "github"], &[]);
    assert!(again.status.code() == Some(1) && stderr(&again).contains("nothing is overwritten"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(dir.path().join("resources/github.yaml")).unwrap(), "mine: 1\n");
    assert_eq!(run(dir.path(), &["add", "github", "--name", "Bad"], &[]).status.code(), Some(1));
    let printed = run(dir.path(), &["add", "openai", "--print"], &[]);
    assert!(String::from_utf8_lossy(&printed.stdout).contains("preset: openai") && !dir.path().join("resources/openai.yaml").exists());
    assert!(stderr(&run(dir.path(), &["add", "opena"], &[])).contains("did you mean `openai`?"));
}

#[test]
fn ten_thousand_files_of_resources_and_defaults_load() {
    let dir = folder(&[("postern.yaml", "defaults: { headers: { X-A: a }, timeouts: { head: 10s } }\n")]);
    fs::create_dir(dir.path().join("resources")).unwrap();
    for i in 0..10_000 {
        fs::write(dir.path().join(format!("resources/r{i}.yaml")), format!("base_url: http://localhost:9/{i}\n")).unwrap();
    }
    let output = run(dir.path(), &["check"], &[("POSTERN_RESOURCES__R5__TIMEOUTS__HEAD", "5s")]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("ok: 10000 resources"), "{}", stderr(&output));
}
