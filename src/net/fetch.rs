//! The gateway's own calls: a whole request, a whole answer, both bounded. Redirects are not followed: whoever asks for a
//! token or a secret sends it nowhere else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;

use super::{Stats, Upstream, broken_body, here};
use crate::body::Body;
use crate::error::{Breach, Error, Stage};

/// What bounds a call of the gateway's own.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The whole exchange but connecting, which is bounded by the upstream's own `connect`.
    pub time: Duration,
    /// Most bytes of the answer's body.
    pub bytes: u64,
}

/// Sends a request over this thread's pool and reads the whole answer. The URI is a path with its query; `Host` and the
/// framing are set here.
///
/// # Errors
/// Why there is no answer: [`Error::Timeout`] when time ran out, [`Breach::TooLarge`] beyond `bounds.bytes`.
pub async fn fetch(upstream: &Arc<Upstream>, request: Request<Bytes>, bounds: Bounds) -> Result<Response<Bytes>, Error> {
    let (mut head, body) = request.into_parts();
    head.headers.insert(HOST, upstream.origin().authority().clone());
    head.headers.remove(TRANSFER_ENCODING);
    head.headers.remove(CONTENT_LENGTH);
    if !body.is_empty() || matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let body = if body.is_empty() { Body::Empty } else { Body::Full(body) };
    let mut limit = None;
    let mut stats = Stats::default();
    let pool = here();
    let sending = pool.send(upstream, Request::from_parts(head, body), None, None, &mut stats, |alarm, cx| {
        let limit = *limit.get_or_insert_with(|| Instant::now() + bounds.time);
        alarm.poll(limit, cx).map(|()| Error::Timeout(Stage::Head))
    });
    let (response, lease) = sending.await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::Protocol(Breach::Unasked101));
    }
    let (head, mut incoming) = response.into_parts();
    let reading = async {
        let mut all = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| broken_body(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            if all.len() as u64 + data.len() as u64 > bounds.bytes {
                return Err(Error::Protocol(Breach::TooLarge(bounds.bytes)));
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    };
    // On failure the lease is dropped, which cuts the connection.
    let body = tokio::time::timeout(bounds.time, reading).await.unwrap_or(Err(Error::Timeout(Stage::Idle)))?;
    lease.done();
    Ok(Response::from_parts(head, body))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::net::{Background, Origin, pool};
    use crate::tree::Problems;

    /// Sends one request to a server that answers with these bytes and, where told to, keeps the connection open.
    fn ask(answer: &'static [u8], hold: Duration, bounds: Bounds) -> (Result<Response<Bytes>, Error>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Origin::parse("http", &listener.local_addr().unwrap().to_string()).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            let mut part = [0; 1024];
            while !seen.ends_with(b"a=b") {
                let read = stream.read(&mut part).unwrap();
                seen.extend_from_slice(&part[..read]);
            }
            stream.write_all(answer).unwrap();
            stream.set_read_timeout(Some(hold)).unwrap();
            let _ = stream.read(&mut part);
            String::from_utf8(seen).unwrap()
        });
        let config = pool::Config::read(None, false, &Problems::default()).unwrap();
        let upstream = Arc::new(Upstream::new(origin, None, config, Duration::from_secs(5), Duration::from_secs(5)));
        let background = Background::start().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(background.run(move || async move {
            let request = Request::post("/token?x=1").header("transfer-encoding", "chunked").body(Bytes::from_static(b"a=b")).unwrap();
            fetch(&upstream, request, bounds).await
        }));
        (result, server.join().unwrap())
    }

    const AMPLE: Bounds = Bounds { time: Duration::from_secs(30), bytes: 1024 };
    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn a_whole_request_is_sent_and_a_whole_answer_read() {
        let (answer, seen) = ask(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", SHORT, AMPLE);
        let answer = answer.unwrap();
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::CREATED, &b"ok"[..]));
        assert!(
            seen.starts_with("POST /token?x=1 HTTP/1.1\r\n") && seen.contains("content-length: 3\r\n") && !seen.contains("chunked"),
            "{seen}"
        );
    }

    #[test]
    fn a_redirect_is_an_answer_and_not_an_order() {
        let (answer, _) = ask(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", SHORT, AMPLE);
        assert_eq!(answer.unwrap().status(), StatusCode::TEMPORARY_REDIRECT);
    }

    #[test]
    fn an_answer_over_the_bound_or_cut_off_is_an_error() {
        let (answer, _) = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour", SHORT, Bounds { bytes: 3, ..AMPLE });
        assert_eq!(answer.unwrap_err(), Error::Protocol(Breach::TooLarge(3)));
        let (answer, _) = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour", SHORT, AMPLE);
        assert_eq!(answer.unwrap_err(), Error::Protocol(Breach::Cut));
    }

    #[test]
    fn silence_ends_before_the_head_and_behind_it() {
        let bounds = Bounds { time: Duration::from_millis(20), ..AMPLE };
        let (answer, _) = ask(b"", AMPLE.time, bounds);
        assert_eq!(answer.unwrap_err(), Error::Timeout(Stage::Head));
        let (answer, _) = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour", AMPLE.time, bounds);
        assert_eq!(answer.unwrap_err(), Error::Timeout(Stage::Idle));
    }
}
