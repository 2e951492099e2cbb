//! `postern add`: a file in `resources/` that stands on a preset. Nothing that is there is ever overwritten.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Cli, fail, print};
use crate::config::preset::{self, Input, Preset};
use crate::config::{self, System};
use crate::tree::closest;

/// Written where there is no configuration yet.
const FIRST: &str = "# The configuration of Postern. Each file of resources/ is one resource; `postern check` says what is wrong.\n";

/// What `postern add` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which; `postern list --presets` shows them.
    preset: String,
    /// The name of the resource; the preset's unless given.
    #[arg(long)]
    name: Option<String>,
    /// Print the file instead of writing it.
    #[arg(long)]
    print: bool,
}

/// Adds, and returns the exit code.
pub fn run(cli: &Cli, args: &Args) -> u8 {
    let Some(preset) = preset::find(&args.preset) else {
        let known: Vec<&str> = preset::names().collect();
        return fail(cli, &format!("there is no preset `{}`; {}", args.preset, closest(&args.preset, &known)));
    };
    let text = file(&preset);
    if args.print {
        return print(&text);
    }
    let name = args.name.as_deref().unwrap_or(preset.name);
    if !config::is_resource_name(name) {
        return fail(cli, &format!("`{name}` is no name for a resource: up to 63 of a-z, 0-9, `_` and `-`"));
    }
    match write(cli, name, &text) {
        Err(why) => fail(cli, &why),
        Ok(written) => {
            if cli.json {
                let files: Vec<String> = written.iter().map(|p| p.display().to_string()).collect();
                return print(&format!("{}\n", serde_json::json!({ "ok": true, "written": files })));
            }
            for path in &written {
                eprintln!("wrote {}", path.display());
            }
            for input in &preset.inputs {
                let (verb, usual) = takes(input);
                eprintln!("it {verb} {}{usual}: set {}, or write `{}`", input.description, input.variable, input.written());
            }
            0
        }
    }
}

/// The file of the resource, and the main file where there is none.
fn write(cli: &Cli, name: &str, text: &str) -> Result<Vec<PathBuf>, String> {
    let main = config::find(&cli.options(), &System);
    let folder = main.as_deref().map_or_else(|| PathBuf::from("."), config::folder_of).join("resources");
    let path = folder.join(format!("{name}.yaml"));
    std::fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    create(&path, text)?;
    let mut written = vec![path];
    if main.is_none() {
        let path = PathBuf::from("postern.yaml");
        create(&path, FIRST)?;
        written.push(path);
    }
    Ok(written)
}

fn create(path: &Path, text: &str) -> Result<(), String> {
    let said = |why: std::io::Error| match why.kind() {
        std::io::ErrorKind::AlreadyExists => {
            format!("{} is there already, and nothing is overwritten; --name gives another", path.display())
        }
        _ => format!("{}: {why}", path.display()),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(said)?;
    file.write_all(text.as_bytes()).map_err(said)
}

/// Whether an input is needed, and what it is where nobody says.
fn takes(input: &Input) -> (&'static str, String) {
    let usual = input.default.as_ref().map(|value| format!(" ({value} unless it is said)"));
    (if input.is_needed() { "needs" } else { "may take" }, usual.unwrap_or_default())
}

fn file(preset: &Preset) -> String {
    let mut text = format!("# {}: {}\n", preset.title, preset.documentation);
    for input in &preset.inputs {
        let (verb, usual) = takes(input);
        let line = format!("# It {verb} {}{usual}, in {}, or here instead:\n#   {}\n", input.description, input.variable, input.written());
        text.push_str(&line);
    }
    text.push_str(&format!("preset: {}\n", preset.name));
    text
}
