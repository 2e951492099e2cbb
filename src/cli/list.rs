//! `postern list`: the resources as they are configured, or the presets that there are.

use serde_json::{Value, json};

use super::{Cli, plan, print};
use crate::config::preset::{self, Preset};
use crate::config::resource::Plan;

/// What `postern list` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List the presets of this version instead.
    #[arg(long)]
    presets: bool,
}

/// Lists, and returns the exit code.
pub fn run(cli: &Cli, args: &Args) -> u8 {
    if args.presets {
        let all: Vec<Preset> = preset::names().filter_map(preset::find).collect();
        return if cli.json { print(&lines(all.iter().map(preset_row).collect())) } else { print(&presets(&all)) };
    }
    let (plan, ..) = match plan(cli) {
        Ok(planned) => planned,
        Err(code) => return code,
    };
    let environment = plan.environment.as_deref();
    if cli.json {
        return print(&lines(plan.resources.iter().map(|r| row(r, environment)).collect()));
    }
    let head = environment.map(|name| format!("environment: {name}\n")).unwrap_or_default();
    print(&(head + &table(&plan.resources)))
}

fn lines(rows: Vec<Value>) -> String {
    format!("{}\n", Value::Array(rows))
}

/// What stands under `auth`, in one word or several.
fn auth(plan: &Plan) -> String {
    if plan.schemes.is_empty() { "none".into() } else { plan.schemes.join(", ") }
}

fn row(plan: &Plan, environment: Option<&str>) -> Value {
    json!({
        "name": &*plan.name,
        "base_url": plan.base_url,
        "auth": auth(plan),
        "environment": environment,
        "description": plan.description,
        "preset": plan.preset,
        "verifies_tls": plan.verifies,
        "routes": plan.branches.len(),
    })
}

fn preset_row(preset: &Preset) -> Value {
    let inputs = preset.inputs.iter().map(|i| {
        let (name, env, is) = (&i.name, &i.variable, &i.description);
        json!({ "name": name, "env": env, "secret": i.secret, "is": is, "needed": i.is_needed(), "default": i.default, "write": i.written() })
    });
    json!({
        "name": preset.name,
        "title": preset.title,
        "documentation": preset.documentation,
        "inputs": inputs.collect::<Vec<_>>(),
    })
}

fn table(resources: &[Plan]) -> String {
    let rows = resources.iter().map(|r| {
        let warning = if r.verifies { "" } else { "certificate not verified" };
        [r.name.to_string(), r.base_url.clone(), auth(r), warning.to_owned()]
    });
    columns(["NAME", "BASE URL", "AUTH", ""], rows.collect())
}

fn presets(all: &[Preset]) -> String {
    let rows = all.iter().map(|p| {
        let needs: Vec<&str> = p.inputs.iter().filter(|i| i.is_needed()).map(|i| i.variable.as_str()).collect();
        [p.name.to_owned(), p.title.clone(), needs.join(", "), p.documentation.clone()]
    });
    columns(["PRESET", "", "NEEDS", "DOCUMENTATION"], rows.collect())
}

/// Rows under a head, each column as wide as its widest entry.
pub(super) fn columns<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in std::iter::once(head.map(str::to_owned)).chain(rows.iter().cloned()) {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
