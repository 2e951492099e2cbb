//! Copies both ways between two switched connections, with back-pressure, until one of them ends.

use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::Notify;

/// Bytes on the way in one direction.
const BUFFER: usize = 16 * 1024;
/// How long the other direction may take to end by itself once one has ended.
const CLOSING: Duration = Duration::from_secs(10);

/// What went through a tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes {
    /// From the client.
    pub up: u64,
    /// To the client.
    pub down: u64,
}

type Io = TokioIo<Upgraded>;

/// Copies until both directions have ended, or one has and the other does not follow, or nothing moves for `idle`.
pub async fn tunnel(client: Upgraded, upstream: Upgraded, idle: Option<Duration>) -> Bytes {
    let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
    let (upstream_read, upstream_write) = tokio::io::split(TokioIo::new(upstream));
    let mut bytes = Bytes::default();
    let moved = Notify::new();
    {
        let mut up = std::pin::pin!(copy(client_read, upstream_write, &mut bytes.up, &moved));
        let mut down = std::pin::pin!(copy(upstream_read, client_write, &mut bytes.down, &moved));
        let silence = async {
            let Some(idle) = idle else { return std::future::pending::<()>().await };
            while tokio::time::timeout(idle, moved.notified()).await.is_ok() {}
        };
        tokio::select! {
            () = up.as_mut() => { let _ = tokio::time::timeout(CLOSING, down).await; }
            () = down.as_mut() => { let _ = tokio::time::timeout(CLOSING, up).await; }
            () = silence => {}
        }
    }
    bytes
}

/// One direction. Its end is passed on, so that a half-closed connection stays one.
async fn copy(mut from: ReadHalf<Io>, mut to: WriteHalf<Io>, count: &mut u64, moved: &Notify) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                if to.write_all(&buffer[..read]).await.is_err() || to.flush().await.is_err() {
                    break;
                }
                *count += read as u64;
                moved.notify_one();
            }
        }
    }
    let _ = to.shutdown().await;
}
