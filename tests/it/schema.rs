//! The JSON Schema: against every sample and the contract by PyPI's `jsonschema`, and in an editor's hands by a real
//! `yaml-language-server`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{PATIENCE, postern, root, variable};

fn schema() -> String {
    let output = postern().arg("schema").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

/// A program that the test run provides, or `None` with the reason said. In CI nothing is skipped.
fn provided(name: &str) -> Option<String> {
    let found = variable(name);
    if found.is_none() {
        assert!(variable("CI").is_none(), "{name} is not set, and nothing is skipped in CI");
        eprintln!("skipped: {name} is not set; ./tests/run sets it");
    }
    found
}

/// Every sample configuration of the repository.
fn samples() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["config", "config/examples"] {
        let all = fs::read_dir(root().join(folder)).unwrap().flatten().map(|e| e.path());
        files.extend(all.filter(|p| p.extension().is_some_and(|e| e == "yaml")));
    }
    files.sort();
    assert!(files.len() > 10);
    files
}

/// The errors of each file, by the independent validator.
fn validated(files: &[PathBuf]) -> Option<Vec<Vec<String>>> {
    let python = provided("POSTERN_TEST_PYTHON")?;
    let mut command = Command::new(python);
    command.arg(root().join("tests/fixtures/validate.py")).args(files).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(schema().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "PyPI jsonschema and PyYAML are needed; ./tests/run installs them");
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    Some(lines.map(|line| line["errors"].as_array().unwrap().iter().map(|e| e.as_str().unwrap().to_owned()).collect()).collect())
}

#[test]
fn every_sample_and_the_contract_satisfy_the_schema() {
    let mut files = samples();
    files.push(root().join("tests/fixtures/contract.yaml"));
    let Some(all) = validated(&files) else { return };
    assert_eq!(all.len(), files.len());
    for (file, errors) in files.iter().zip(all) {
        assert!(errors.is_empty(), "{}: {errors:#?}", file.display());
    }
}

#[test]
fn what_the_gateway_refuses_the_schema_refuses() {
    let wrong = [
        "server: { lisen: 1 }",
        "resources: { a: { base_url: http://localhost, timeouts: { head: 10 } } }",
        "resources: { a: { base_url: http://localhost, limits: { request_body: 10MB } } }",
        "resources: { a: { base_url: http://localhost, auth: { bearer: x, basic: { username: u } } } }",
        "resources: { a: { base_url: http://localhost, auth: [] } }",
        "resources: { a: { base_url: http://localhost, auth: bearer } }",
        "resources: { a: { base_url: http://localhost, redirects: follow } }",
        "resources: { Big: { base_url: http://localhost } }",
        "resources: [a]",
        "audit: { sinks: [ { stdout: {}, file: { path: a } } ] }",
        "telemetry: { log: { level: loud } }",
        "environments: { a: { server: { lisen: 1 } } }",
    ];
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..wrong.len()).map(|i| folder.path().join(format!("{i}.yaml"))).collect();
    for (file, text) in files.iter().zip(wrong) {
        fs::write(file, text).unwrap();
        let env = if text.starts_with("environments") { "a" } else { "" };
        let mut check = postern();
        check.args(["check", "--config"]).arg(file);
        if !env.is_empty() {
            check.args(["--env", env]);
        }
        assert_eq!(check.output().unwrap().status.code(), Some(3), "{text}");
    }
    let Some(all) = validated(&files) else { return };
    for (text, errors) in wrong.iter().zip(all) {
        assert!(!errors.is_empty(), "{text}");
    }
}

#[test]
fn every_sample_names_the_schema_in_its_editor_line() {
    for file in samples() {
        let text = fs::read_to_string(&file).unwrap();
        let first = text.lines().next().unwrap();
        let named = first.strip_prefix("# yaml-language-server: $schema=").unwrap_or_else(|| panic!("{}: {first}", file.display()));
        let schema = fs::canonicalize(file.parent().unwrap().join(named)).unwrap();
        assert_eq!(schema, fs::canonicalize(root().join("config/schema.json")).unwrap(), "{}", file.display());
    }
    assert_eq!(fs::read_to_string(root().join("config/schema.json")).unwrap(), schema());
}

/// A language server on its standard streams.
struct Server {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    next: u64,
}

impl Server {
    fn start(program: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(program).arg("--stdio").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("node is needed; ./tests/run installs it");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, messages) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            while let Some(message) = read(&mut output) {
                if send.send(message).is_err() {
                    return;
                }
            }
        });
        let mut server = Self { child, input, messages, next: 0 };
        server.ask("initialize", json!({ "processId": null, "rootUri": null, "capabilities": {} }));
        server.tell("initialized", json!({}));
        let settings = json!({ "yaml": { "schemaStore": { "enable": false }, "validate": true, "completion": true } });
        server.tell("workspace/didChangeConfiguration", json!({ "settings": settings }));
        server
    }

    fn send(&mut self, message: &Value) {
        let text = message.to_string();
        write!(self.input, "Content-Length: {}\r\n\r\n{text}", text.len()).unwrap();
        self.input.flush().unwrap();
    }

    fn tell(&mut self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        self.until(|m| (m["id"] == id && m.get("method").is_none()).then(|| m["result"].clone()))
    }

    /// Waits for a message; what the server asks is answered by nothing.
    fn until<T>(&mut self, mut look: impl FnMut(&Value) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).expect("the language server says nothing");
            if let Some(found) = look(&message) {
                return found;
            }
            if message.get("method").is_some() && message.get("id").is_some() {
                self.send(&json!({ "jsonrpc": "2.0", "id": message["id"], "result": null }));
            }
        }
    }

    fn open(&mut self, path: &Path, text: &str) -> String {
        let uri = format!("file://{}", path.display());
        let document = json!({ "uri": uri, "languageId": "yaml", "version": 1, "text": text });
        self.tell("textDocument/didOpen", json!({ "textDocument": document }));
        uri
    }

    /// The diagnostics of a document, once there are any that `enough` accepts.
    fn diagnostics(&mut self, uri: &str, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        self.until(|m| {
            let ours = m["method"] == "textDocument/publishDiagnostics" && m["params"]["uri"] == uri;
            let all = m["params"]["diagnostics"].as_array().filter(|_| ours)?;
            let all: Vec<String> =
                all.iter().map(|d| format!("{}: {}", d["range"]["start"]["line"], d["message"].as_str().unwrap())).collect();
            enough(&all).then_some(all)
        })
    }

    /// What is offered at a place.
    fn offered(&mut self, uri: &str, line: usize, character: usize) -> Vec<String> {
        let place = json!({ "textDocument": { "uri": uri }, "position": { "line": line, "character": character } });
        let answer = self.ask("textDocument/completion", place);
        let items = answer["items"].as_array().or(answer.as_array()).cloned().unwrap_or_default();
        items.iter().map(|i| i["label"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(output: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    output.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

#[test]
fn an_editor_marks_what_is_wrong_and_offers_what_is_right() {
    let Some(program) = provided("POSTERN_TEST_YAML_LS") else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("schema.json"), schema()).unwrap();
    let line = "# yaml-language-server: $schema=schema.json\n";
    let mut server = Server::start(&program);

    let wrong = format!("{line}server:\n  lisen: 1\nresources:\n  a:\n    base_url: http://localhost\n    timeouts: {{ head: 10 }}\n");
    let uri = server.open(&folder.path().join("wrong.yaml"), &wrong);
    let found = server.diagnostics(&uri, |all| !all.is_empty());
    assert!(found.iter().any(|d| d.starts_with("2: ") && d.contains("lisen")), "{found:?}");
    assert!(found.iter().any(|d| d.starts_with("6: ")), "{found:?}");

    // The schema is known by now, so an empty list means that nothing is wrong.
    for sample in samples() {
        let text = fs::read_to_string(&sample).unwrap();
        let uri = server.open(&sample, &text);
        let found = server.diagnostics(&uri, |_| true);
        assert!(found.is_empty(), "{}: {found:?}", sample.display());
    }

    for (name, text, place, keys) in [
        ("resource", "resources:\n  a:\n    base_url: http://localhost\n    ", (4, 4), &["headers", "timeouts", "preset", "routes"][..]),
        ("scheme", "resources:\n  a:\n    auth:\n      b", (4, 7), &["bearer", "basic", "api_key"]),
        ("root", "", (1, 0), &["resources", "server", "audit"]),
    ] {
        let uri = server.open(&folder.path().join(format!("{name}.yaml")), &format!("{line}{text}"));
        server.diagnostics(&uri, |_| true);
        let offered = server.offered(&uri, place.0, place.1);
        assert!(keys.iter().all(|key| offered.iter().any(|k| k == key)), "{name}: {offered:?}");
    }
}
