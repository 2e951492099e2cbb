//! Holds a call's body whole, for schemes that sign it or something in it.

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};

use crate::body::{self, Body};
use crate::call::Call;
use crate::error::Error;

/// What names the limit in errors.
const LIMIT: &str = "limits.buffer";

/// The body, which goes on with these very bytes. At most `limit` bytes are held.
///
/// # Errors
/// [`Error::BodyTooLarge`] for a longer one, and what reading it fails with.
pub async fn whole(call: &mut Call, limit: u64) -> Result<Bytes, Error> {
    if matches!(call.body, Body::Empty) {
        return Ok(Bytes::new());
    }
    let bytes = body::collect(std::mem::take(&mut call.body), limit, LIMIT).await?;
    call.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    call.headers.remove(TRANSFER_ENCODING);
    // Whoever waited for 100 has sent the body by now.
    call.headers.remove(EXPECT);
    call.expects_continue = false;
    if !bytes.is_empty() {
        call.body = Body::Full(bytes.clone());
    }
    Ok(bytes)
}
