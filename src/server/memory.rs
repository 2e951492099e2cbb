//! Memory that was needed for a while goes back to the system. mimalloc looks for what it may give back only when it
//! makes a page, which a thread at rest never asks for.

use std::hint::black_box;
use std::time::Duration;

/// mimalloc keeps what is free for 10 ms before it gives it back.
const KEPT: Duration = Duration::from_millis(50);
/// More than it keeps pages for: whoever asks for so much gets a page of its own.
const PAGE: usize = 256 * 1024;

/// Gives back what this thread has freed a moment ago.
pub async fn give_back() {
    tokio::time::sleep(KEPT).await;
    drop(black_box(Vec::<u8>::with_capacity(PAGE)));
}
