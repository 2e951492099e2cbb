//! `postern connect`: has a person connect an account of a resource to the running gateway. This program is the client for
//! whom the person consents: the browser lands on a port of its own, on this machine, with the code that finishes the
//! connection. A link that is opened elsewhere lands nowhere. Where the browser is on another machine, the person carries
//! the code over.

mod landing;
mod page;

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use self::landing::{Landing, Outcome};
use self::page::Page;
use super::admin::Admin;
use super::list::columns;
use super::{Cli, fail, plan, print};

const REDEEM: &str = "/api/connect-sessions/redeem";

/// What `postern connect` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The resource.
    #[arg(required_unless_present_any = ["list", "code"])]
    resource: Option<String>,
    /// The connection, where the resource has several.
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// The client whose connection it will be.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// A variable of the connection: `--var tenant=acme`. May be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    var: Vec<String>,
    /// Open no browser: print the link, and read the code that its last page shows.
    #[arg(long)]
    no_browser: bool,
    /// Finish with the code that a page has shown.
    #[arg(long, value_name = "CODE", conflicts_with_all = ["resource", "list", "delete"])]
    code: Option<String>,
    /// With `--code`: connect without asking.
    #[arg(long, requires = "code")]
    yes: bool,
    /// List the connections.
    #[arg(long, conflicts_with = "delete")]
    list: bool,
    /// Take the connection away, and tell its issuer where that can be told.
    #[arg(long)]
    delete: bool,
}

/// Does what is asked, and returns the exit code.
pub fn run(cli: &Cli, args: &Args) -> u8 {
    let plan = match plan(cli) {
        Ok((plan, _)) => plan,
        Err(code) => return code,
    };
    let done = Admin::of(&plan).and_then(|admin| match (&args.code, &args.resource) {
        (Some(code), _) => carried(cli, &admin, code, args),
        (None, resource) if args.list => list(cli, &admin, resource.as_deref()),
        (None, Some(resource)) if args.delete => delete(cli, &admin, resource, args),
        (None, Some(resource)) => connect(cli, &admin, resource, args),
        (None, None) => Err("name the resource".into()),
    });
    done.unwrap_or_else(|why| fail(cli, &why))
}

fn connect(cli: &Cli, admin: &Admin, resource: &str, args: &Args) -> Result<u8, String> {
    let landing = if args.no_browser { None } else { Some(Landing::begin().map_err(|error| error.to_string())?) };
    let vars = args.var.iter().map(|var| var.split_once('=').ok_or_else(|| format!("--var {var}: NAME=VALUE")));
    let vars: BTreeMap<&str, &str> = vars.collect::<Result<_, String>>()?;
    let order = json!({
        "resource": resource,
        "connection": args.connection,
        "client": args.client,
        "return_url": landing.as_ref().map(|landing| landing.url().to_owned()),
        // Without any, a connection that is there keeps its own.
        "vars": (!vars.is_empty()).then_some(vars),
    });
    let begun = admin.ask(Method::POST, "/api/connect-sessions", Some(&order))?;
    let text = |name: &str| begun[name].as_str().unwrap_or_default().to_owned();
    if begun["user_code"].is_string() {
        return elsewhere(cli, admin, &begun, args);
    }
    let (link, session) = (text("connect_url"), text("session"));
    if cli.json {
        print(&format!("{begun}\n"));
    } else {
        eprintln!("The provider must know this redirect URI: {}", text("redirect_uri"));
        eprintln!("Open within ten minutes:\n\n  {link}\n");
    }
    let code = match landing {
        Some(landing) => {
            // The page is there as long as somebody may look at it.
            let _page = open(&link);
            match landing.wait(&session) {
                Outcome::Code(code) => code,
                Outcome::Error(code) => return Err(format!("nothing was connected: {code}")),
                Outcome::Nobody => return Err("nobody came back within ten minutes".into()),
            }
        }
        None => typed()?,
    };
    // The code of another session than this one would connect somebody else's account.
    redeem(cli, admin, &json!({ "code": code, "session": session }))
}

/// Shows the code that a person types in elsewhere, and waits until they have.
fn elsewhere(cli: &Cli, admin: &Admin, begun: &Value, args: &Args) -> Result<u8, String> {
    /// How often is asked, and how many times: a code lives half an hour at most.
    const PAUSE: Duration = Duration::from_secs(1);
    const ROUNDS: u32 = 2000;
    let text = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
    let uri = text(begun, "verification_uri");
    if cli.json {
        print(&format!("{begun}\n"));
    } else {
        eprintln!("Open on any device:\n\n  {uri}\n\nand type in:\n\n  {}\n", text(begun, "user_code"));
        eprintln!("The code is good until {}.", text(begun, "expires"));
    }
    let link = begun["verification_uri_complete"].as_str().unwrap_or(&uri);
    let _page = if args.no_browser { None } else { open(link) };
    let path = format!("/api/connect-sessions/{}", text(begun, "session"));
    for _ in 0..ROUNDS {
        std::thread::sleep(PAUSE);
        let session = admin.ask(Method::GET, &path, None)?;
        let (state, detail) = (text(&session, "state"), text(&session, "detail"));
        match state.as_str() {
            "pending" => {}
            "connected" if cli.json => return Ok(print(&format!("{session}\n"))),
            "connected" => return Ok(print(&format!("connected: {} {}\n", text(&session, "resource"), text(&session, "connection")))),
            _ => return Err(format!("nothing was connected: {state}: {detail}")),
        }
    }
    Err("nobody typed the code in".into())
}

/// Finishes what this command has not begun: whoever carries the code over is shown first what it would connect.
fn carried(cli: &Cli, admin: &Admin, code: &str, args: &Args) -> Result<u8, String> {
    let shown = admin.ask(Method::POST, REDEEM, Some(&json!({ "code": code, "look": true })))?;
    let text = |name: &str| shown[name].as_str().unwrap_or_default();
    let whose = shown["client"].as_str().map_or_else(|| "for every client".to_owned(), |client| format!("for client {client}"));
    eprintln!(
        "This code connects {} {} {whose}: the account of whoever has consented in the browser.",
        text("resource"),
        text("connection")
    );
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err("nothing was connected: --yes says that this is meant, where nobody can be asked".into());
        }
        if !matches!(line("Connect it? [y/N] ")?.as_str(), "y" | "Y" | "yes") {
            return Err("nothing was connected".into());
        }
    }
    redeem(cli, admin, &json!({ "code": code }))
}

/// The code from the terminal.
fn typed() -> Result<String, String> {
    line("The code that the last page shows: ").and_then(|code| if code.is_empty() { Err("there was no code".into()) } else { Ok(code) })
}

/// A line from the terminal; empty where there is none.
fn line(question: &str) -> Result<String, String> {
    const LINE_MAX: usize = 256;
    eprint!("{question}");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let read = std::io::Read::take(std::io::stdin().lock(), LINE_MAX as u64).read_line(&mut line);
    read.map(|_| line.trim().to_owned()).map_err(|error| format!("the input cannot be read: {error}"))
}

fn redeem(cli: &Cli, admin: &Admin, order: &Value) -> Result<u8, String> {
    let connected = admin.ask(Method::POST, REDEEM, Some(order))?;
    let text = |name: &str| connected[name].as_str().unwrap_or_default();
    Ok(if cli.json {
        print(&format!("{connected}\n"))
    } else {
        print(&format!("connected: {} {}\n", text("resource"), text("connection")))
    })
}

fn list(cli: &Cli, admin: &Admin, resource: Option<&str>) -> Result<u8, String> {
    let mut body = admin.ask(Method::GET, "/api/connections", None)?;
    let all = body.as_object_mut().and_then(|body| body.remove("connections"));
    let Some(Value::Array(mut all)) = all else { return Err("the answer holds no connections".into()) };
    if let Some(resource) = resource {
        all.retain(|one| one["resource"] == resource);
    }
    if cli.json {
        return Ok(print(&format!("{}\n", Value::Array(all))));
    }
    let rows = all
        .iter()
        .map(|one| ["resource", "connection", "client", "state", "since"].map(|name| one[name].as_str().unwrap_or_default().to_owned()));
    Ok(print(&columns(["RESOURCE", "CONNECTION", "CLIENT", "STATE", "SINCE"], rows.collect())))
}

fn delete(cli: &Cli, admin: &Admin, resource: &str, args: &Args) -> Result<u8, String> {
    let name = args.connection.as_deref().unwrap_or("default");
    let path = format!("/api/connections/{}/{}", crate::uri::encode_segment(resource), crate::uri::encode_segment(name));
    let gone = admin.ask(Method::DELETE, &path, None)?;
    if cli.json {
        return Ok(print(&format!("{gone}\n")));
    }
    let told = if gone["revoked"] == true { ", and its issuer was told" } else { "; its issuer was not told" };
    Ok(print(&format!("deleted: {resource} {name}{told}\n")))
}

/// Opens a browser, if there is one: the link stands on the screen anyway. Returns the page that leads it there.
fn open(link: &str) -> Option<Page> {
    let page = Page::to(link).inspect_err(|error| eprintln!("(no page could be written that leads a browser there: {error})")).ok()?;
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let opened = Command::new(program).arg(page.file()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if opened.is_err() {
        eprintln!("(no browser was found to open it)");
    }
    Some(page)
}
