//! `postern healthcheck`: asks the running gateway over its health or admin listener, for containers without a shell.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::{Cli, fail};
use crate::config::{self, System};

/// How long connecting, asking and answering may take, each.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of an answer that are read: its first line is what counts.
const ANSWER_MAX: u64 = 4096;

/// What `postern healthcheck` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ask here, whatever the configuration says.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<SocketAddr>,
    /// Ask whether it lives (/healthz), not whether it is ready (/readyz).
    #[arg(long)]
    live: bool,
}

/// Asks, and returns the exit code.
pub fn run(cli: &Cli, args: &Args) -> u8 {
    let address = match args.address {
        Some(address) => address,
        None => match config::health_address(&cli.options(), &System) {
            Err(error) => return fail(cli, &error.to_string()),
            Ok(None) => return fail(cli, "no listener tells about health: configure `health` or `admin`, or give --address"),
            Ok(Some(address)) => address,
        },
    };
    let path = if args.live { "/healthz" } else { "/readyz" };
    match ask(reachable(address), path) {
        Ok((200, word)) => {
            if cli.json {
                println!("{}", serde_json::json!({ "ok": true, "answer": word }));
            }
            0
        }
        Ok((status, word)) => fail(cli, &format!("http://{address}{path} answers {status}: {word}")),
        Err(error) => fail(cli, &format!("http://{address}{path}: {error}")),
    }
}

/// Whoever listens everywhere is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The status, and the first line of the body.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("what answers is no HTTP/1.1"))?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.lines().next().unwrap_or_default().to_owned()))
}
