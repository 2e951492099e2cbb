//! Writes few small pieces as one. A head and a small body in one `send` cost less than a vectored write of two; large
//! pieces go out as they are, without a copy.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

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
