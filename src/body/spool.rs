//! A body on disk, where its hash or its length must be known before it is sent. The file has no name from the moment it
//! is there, so that nothing is left behind however the process ends, and nobody else can open it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::task::JoinHandle;

use super::Body;
use crate::error::Error;

/// Most bytes that all bodies on disk may come to: the folder may be in memory, and is not the gateway's alone.
const ALL_MOST: u64 = 8 << 30;
/// Bytes of bodies that are on disk now.
static ON_DISK: AtomicU64 = AtomicU64::new(0);
/// Bytes that are written or read at once.
const PIECE: usize = 256 * 1024;
/// How often another name is tried where one is taken.
const NAMES_MOST: u32 = 8;

/// Reads `body` to its end into a file in `folder`, shows every piece to `look`, and returns it as a body of known length.
///
/// # Errors
/// [`Error::BodyTooLarge`] beyond `limit` bytes, [`Error::Overloaded`] where others have filled the room that all share,
/// [`Error::Internal`] where the disk fails, or what the body fails with.
pub async fn spool(
    mut body: Body,
    folder: &Path,
    limit: u64,
    name: &'static str,
    mut look: impl FnMut(&[u8]),
) -> Result<(Body, u64), Error> {
    let folder = folder.to_path_buf();
    let mut file = work(move || nameless(&folder)).await?;
    let (mut pending, mut length, mut room) = (BytesMut::with_capacity(PIECE), 0u64, Room(0));
    loop {
        let frame = body.frame().await.transpose()?;
        let ended = frame.is_none();
        let data = frame.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
        length += data.len() as u64;
        if length > limit {
            return Err(Error::BodyTooLarge(limit, name.into()));
        }
        room.take(data.len() as u64)?;
        look(&data);
        pending.extend_from_slice(&data);
        if pending.len() >= PIECE || (ended && !pending.is_empty()) {
            // The buffer comes back: what one thread allocates and another frees is slow to be used again.
            (file, pending) = work(move || file.write_all(&pending).map(|()| (file, pending))).await?;
            pending.clear();
        }
        if ended {
            break;
        }
    }
    let file = work(move || file.seek(SeekFrom::Start(0)).map(|_| file)).await?;
    Ok((Body::Stream(Box::pin(Spooled { reading: Reading::At(file), left: length, _room: room })), length))
}

/// A file that only this process has, and only while it is open.
fn nameless(folder: &Path) -> io::Result<File> {
    for _ in 0..NAMES_MOST {
        let path = folder.join(format!("postern-{:016x}", fastrand::u64(..)));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Disks block, so this is done on a thread that may.
async fn work<T: Send + 'static>(what: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(what).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(Error::Internal("the spool ended early".into())),
    }
}

fn failed(error: &io::Error) -> Error {
    Error::Internal(format!("a body cannot be kept on disk: {error}"))
}

/// A body that is read from its file.
#[derive(Debug)]
struct Spooled {
    reading: Reading,
    left: u64,
    _room: Room,
}

/// What a body takes of the room for all; given back when it goes.
#[derive(Debug)]
struct Room(u64);

impl Room {
    fn take(&mut self, bytes: u64) -> Result<(), Error> {
        let fits = |all: u64| all.checked_add(bytes).filter(|all| *all <= ALL_MOST);
        if ON_DISK.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return Err(Error::Overloaded("The room for bodies on disk".into()));
        }
        self.0 += bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        ON_DISK.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Reading {
    At(File),
    Under(JoinHandle<io::Result<(File, Bytes)>>),
    Done,
}

impl http_body::Body for Spooled {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        loop {
            match std::mem::replace(&mut this.reading, Reading::Done) {
                Reading::Done => return Poll::Ready(None),
                Reading::At(_) if this.left == 0 => return Poll::Ready(None),
                Reading::At(mut file) => {
                    // No more than a piece, so it fits.
                    let size = usize::try_from(this.left).unwrap_or(usize::MAX).min(PIECE);
                    let mut piece = BytesMut::zeroed(size);
                    this.reading = Reading::Under(tokio::task::spawn_blocking(move || {
                        file.read_exact(&mut piece)?;
                        Ok((file, piece.freeze()))
                    }));
                }
                Reading::Under(mut task) => {
                    let Poll::Ready(result) = Pin::new(&mut task).poll(cx) else {
                        this.reading = Reading::Under(task);
                        return Poll::Pending;
                    };
                    return Poll::Ready(Some(match result {
                        Ok(Ok((file, piece))) => {
                            this.left -= piece.len() as u64;
                            this.reading = Reading::At(file);
                            Ok(Frame::data(piece))
                        }
                        Ok(Err(error)) => Err(failed(&error)),
                        Err(_) => Err(Error::Internal("the spool ended early".into())),
                    }));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::collect;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_body_comes_back_from_disk_as_it_was_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1, PIECE - 1, PIECE, 3 * PIECE + 7] {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let mut seen = Vec::new();
            run(async {
                let body = Body::Full(bytes.clone().into());
                let (body, spooled) = spool(body, folder.path(), 1 << 30, "x", |piece| seen.extend_from_slice(piece)).await.unwrap();
                assert_eq!((spooled, http_body::Body::size_hint(&body).exact()), (length as u64, Some(length as u64)));
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
                assert!(collect(body, u64::MAX, "x").await.unwrap() == bytes);
            });
            assert!(seen == bytes);
        }
    }

    #[test]
    fn a_body_beyond_the_limit_and_a_disk_that_is_not_there_are_errors() {
        run(async {
            let body = || Body::Full(vec![0; 11].into());
            let error = spool(body(), Path::new("/tmp"), 10, "limits.request_body", |_| {}).await.unwrap_err();
            assert_eq!(error, Error::BodyTooLarge(10, "limits.request_body".into()));
            let error = spool(body(), Path::new("/nowhere"), 20, "x", |_| {}).await.unwrap_err();
            assert!(matches!(error, Error::Internal(_)));
        });
    }

    #[test]
    fn what_all_bodies_take_together_is_bounded_and_given_back() {
        let mut most = Room(0);
        most.take(ALL_MOST / 2).unwrap();
        assert!(matches!(Room(0).take(ALL_MOST / 2 + 1), Err(Error::Overloaded(_))));
        drop(most);
        Room(0).take(ALL_MOST / 2 + 1).unwrap();
    }
}
