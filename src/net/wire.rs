//! Writes few small pieces as one. A head and a small body in one `send` cost less than a vectored write of two; large
//! pieces go out as they are, without a copy.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Pieces that come to no more than this are copied together.
const SMALL: usize = 8 * 1024;

thread_local! {
    static TOGETHER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(SMALL));
}

/// Writes pieces to `io`, as one where that is cheaper.
pub fn poll_write_pieces<I: AsyncWrite + Unpin>(io: &mut I, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    if let [one] = pieces {
        return Pin::new(io).poll_write(cx, one);
    }
    let size: usize = pieces.iter().map(|piece| piece.len()).sum();
    if size > SMALL {
        return Pin::new(io).poll_write_vectored(cx, pieces);
    }
    TOGETHER.with_borrow_mut(|together| {
        together.clear();
        pieces.iter().for_each(|piece| together.extend_from_slice(piece));
        Pin::new(io).poll_write(cx, together)
    })
}

/// A connection that is written to in this way.
#[derive(Debug)]
pub struct Wire<I>(pub I);

impl<I: AsyncRead + Unpin> AsyncRead for Wire<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Wire<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        poll_write_pieces(&mut self.0, cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
