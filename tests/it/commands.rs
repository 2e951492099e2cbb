//! The commands beside `run` and `check`: `exec` with what its command can and cannot see, `healthcheck`, completions
//! and manual pages.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::support::{Gateway, Upstream, eventually, free_port, postern, variable};

/// A folder with this configuration.
fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("postern.yaml"), config).unwrap();
    folder
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `postern exec` on a port that is free, with these variables beside.
fn exec(folder: &tempfile::TempDir, variables: &[(&str, &str)], command: &[&str]) -> Command {
    let mut exec = postern();
    exec.current_dir(folder.path())
        .args(["exec", "--set", "server.listen=127.0.0.1:0", "--"])
        .args(command)
        .envs(variables.iter().copied());
    exec
}

fn config(upstream: &Upstream) -> String {
    format!(
        "audit: {{ sinks: [ {{ file: {{ path: audit.jsonl }} }} ] }}\nresources:\n  pay-api: {{ base_url: \"{0}\", auth: {{ bearer: \"${{env:TOKEN}}\" }}, headers: {{ X: y }} }}\n  \
         gh: {{ preset: github, base_url: \"{0}\" }}\n",
        upstream.url()
    )
}

const SECRETS: [(&str, &str); 3] =
    [("TOKEN", "secret-token-1"), ("GITHUB_TOKEN", "secret-token-2"), ("POSTERN_RESOURCES__PAY_API__HEADERS__X", "secret-token-3")];

#[test]
fn a_command_calls_its_resources_and_holds_no_secret() {
    let upstream = Upstream::ok();
    let dir = folder(&config(&upstream));
    let script = "curl -sS $POSTERN_PAY_API_URL/charges && curl -sS $GITHUB_API_URL/user && echo && env && echo $POSTERN_URL";
    let output = exec(&dir, &SECRETS, &["sh", "-c", script]).env("OTHER", "stays").output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    assert!(said.starts_with("{\"ok\":true}{\"ok\":true}\n") && said.contains("OTHER=stays"), "{said}");
    assert!(!said.contains("secret-token") && !said.contains("\nTOKEN=") && !said.contains("GITHUB_TOKEN="), "{said}");
    assert!(said.trim_end().lines().last().unwrap().starts_with("http://127.0.0.1:"), "{said}");
    let seen = upstream.seen();
    assert_eq!(
        (seen[0].target(), seen[0].field("authorization"), seen[0].field("x")),
        ("/charges", Some("Bearer secret-token-1"), Some("secret-token-3"))
    );
    assert_eq!((seen[1].target(), seen[1].field("authorization")), ("/user", Some("Bearer secret-token-2")));
}

#[test]
fn the_exit_status_is_the_commands() {
    let upstream = Upstream::ok();
    let dir = folder(&config(&upstream));
    for (command, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["no-such-command-here"], 127),
        (&["/"], 126),
    ] {
        let output = exec(&dir, &SECRETS, command).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?} {}", text(&output.stderr));
    }
    // Nothing runs on a configuration that is wrong, nor without a command.
    let output = exec(&dir, &[], &["touch", "ran"]).output().unwrap();
    assert!(output.status.code() == Some(3) && !dir.path().join("ran").exists(), "{}", text(&output.stderr));
    assert_eq!(postern().arg("exec").output().unwrap().status.code(), Some(2));
}

#[test]
fn standard_input_and_output_are_the_commands_and_records_go_to_standard_error() {
    let upstream = Upstream::ok();
    let dir = folder(&config(&upstream).replace("file: { path: audit.jsonl }", "stdout: {}"));
    let script = "cat; curl -sS $POSTERN_PAY_API_URL/x";
    let mut child =
        exec(&dir, &SECRETS, &["sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from outside ").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "from outside {\"ok\":true}");
    assert!(text(&output.stderr).contains("\"resource\":\"pay-api\""), "{}", text(&output.stderr));
}

#[test]
fn signals_reach_the_command_and_the_gateway_stays_until_it_ends() {
    let upstream = Upstream::ok();
    let dir = folder(&config(&upstream));
    let script = "trap 'curl -sS -o answer $POSTERN_PAY_API_URL/last; exit 5' TERM; touch up; while :; do sleep 0.05; done";
    let mut child = exec(&dir, &SECRETS, &["sh", "-c", script]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually(|| dir.path().join("up").exists().then_some(())).unwrap();
    let sent = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(fs::read_to_string(dir.path().join("answer")).unwrap(), "{\"ok\":true}");
}

/// The command tries to read the gateway's environment and memory. Under root it could, so it runs as somebody else.
#[test]
fn a_command_cannot_look_into_the_gateway() {
    let upstream = Upstream::ok();
    let dir = folder(&config(&upstream));
    let script = "cat /proc/$PPID/environ; cat /proc/$PPID/maps; stat -c %U /proc/$PPID/environ";
    let root = text(&Command::new("id").arg("-u").output().unwrap().stdout).trim() == "0";
    let output = if root {
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        Command::new("chmod").args(["-R", "a+rwX"]).arg(dir.path()).status().unwrap();
        // The program itself may stand where nobody else can look.
        let copy = dir.path().join("postern");
        fs::copy(env!("CARGO_BIN_EXE_postern"), &copy).unwrap();
        let mut command = Command::new(nobody[0]);
        command.args(&nobody[1..]).arg(&copy).args(["exec", "--set", "server.listen=127.0.0.1:0", "--", "sh", "-c", script]);
        command.env_clear().env("PATH", variable("PATH").unwrap_or_default()).envs(SECRETS).current_dir(dir.path()).output().unwrap()
    } else {
        exec(&dir, &SECRETS, &["sh", "-c", script]).output().unwrap()
    };
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(said.trim(), "root", "{said}{errors}");
    assert!(errors.matches("Permission denied").count() >= 2, "{errors}");
}

fn healthcheck(config: &std::path::Path, args: &[&str]) -> Output {
    postern().args(["healthcheck", "--config"]).arg(config).args(args).output().unwrap()
}

#[test]
fn health_is_asked_where_the_configuration_says_and_a_broken_one_does_not_end_it() {
    let (upstream, health) = (Upstream::ok(), free_port());
    let config = format!("health: {{ listen: \"0.0.0.0:{health}\" }}\nresources: {{ a: {{ base_url: \"{}\" }} }}\n", upstream.url());
    let mut gateway = Gateway::start(&config);
    let file = gateway.folder.path().join("postern.yaml");
    for args in [&[][..], &["--live"], &["--json"], &["--address", &format!("127.0.0.1:{health}")]] {
        let output = healthcheck(&file, args);
        assert_eq!(output.status.code(), Some(0), "{args:?} {}", text(&output.stderr));
    }
    // A secret that is not there for the check, and a mistake in the file, do not make a running gateway ill.
    let broken = fs::read_to_string(&file).unwrap().replace("resources:", "nonsense: \"${env:NOT_HERE}\"\nresources:");
    fs::write(&file, broken).unwrap();
    assert_eq!(healthcheck(&file, &[]).status.code(), Some(0));
    gateway.stop();
    let output = healthcheck(&file, &[]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("refused"), "{}", text(&output.stderr));
    let none = folder("resources: {}\n");
    let output = healthcheck(&none.path().join("postern.yaml"), &[]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("configure `health` or `admin`"), "{}", text(&output.stderr));
}

#[test]
fn shells_complete_and_pages_are_readable() {
    for shell in ["bash", "zsh", "fish"] {
        let output = postern().args(["completions", shell]).output().unwrap();
        let script = text(&output.stdout);
        assert!(
            output.status.success() && ["healthcheck", "exec", "--set"].iter().all(|w| script.contains(w.trim_start_matches('-'))),
            "{shell}"
        );
    }
    let mut bash = Command::new("bash");
    let script = "eval \"$1\"; COMP_WORDS=(postern heal); COMP_CWORD=1; _postern postern heal postern; echo \"${COMPREPLY[@]}\"";
    let completions = text(&postern().args(["completions", "bash"]).output().unwrap().stdout);
    let output = bash.args(["-c", script, "bash", &completions]).output().unwrap();
    assert_eq!(text(&output.stdout).trim(), "healthcheck", "{}", text(&output.stderr));
    for (args, part) in [(&["man"][..], "postern"), (&["man", "exec"], "postern\\-exec")] {
        let page = text(&postern().args(args).output().unwrap().stdout);
        assert!(page.contains(".TH ") && page.contains(part) && page.contains(".SH OPTIONS"), "{page}");
    }
    assert_eq!(postern().args(["man", "nope"]).output().unwrap().status.code(), Some(1));
    assert_eq!(postern().args(["completions", "nope"]).output().unwrap().status.code(), Some(2));
}
