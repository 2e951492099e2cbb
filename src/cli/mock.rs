//! `postern mock`.

use std::net::SocketAddr;
use std::sync::Arc;

use super::FAILURE;
use crate::mock::{self, Settings};

/// What `postern mock` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:8082", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// What the data grows from: the same seed, the same data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records in each collection.
    #[arg(long, default_value_t = 100)]
    items: u64,
}

/// Serves the sample API until it is told to end, and returns the exit code.
pub fn run(args: &Args) -> u8 {
    let served = (|| -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let listener = tokio::net::TcpListener::bind(args.listen).await?;
            eprintln!("the sample API listens on http://{}", listener.local_addr()?);
            let mock = Arc::new(mock::service(Settings { seed: args.seed, items: args.items }));
            mock::serve(listener, mock, async {
                tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
            })
            .await;
            Ok(())
        })
    })();
    match served {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {}: {error}", args.listen);
            FAILURE
        }
    }
}
