//! Hostile HTTP/2, probe by probe: malformed requests (RFC 9113 section 8), broken frames (section 6), broken header
//! blocks (RFC 7541). Each has a connection of its own and is judged by what the upstream received, byte for byte.

use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, request, string,
};
use crate::support::{Gateway, Upstream, eventually};

/// What may become of a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    /// Nothing of it reaches the upstream.
    Refused,
    /// It reaches the upstream as this target, once, with nothing smuggled.
    Served(&'static str),
}

use Want::{Refused, Served};

/// Fields of a whole request, which probes take apart.
const WHOLE: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/r/up/probe")];

fn whole(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, block)
}

/// A GET with one pseudo-field left out.
fn without(name: &str) -> Vec<u8> {
    whole(&block(&WHOLE.into_iter().filter(|(n, _)| *n != name).collect::<Vec<_>>()))
}

/// A GET with one pseudo-field of another value.
fn with(name: &'static str, value: &[u8]) -> Vec<u8> {
    let fields: Vec<(&[u8], &[u8])> = WHOLE.iter().map(|(n, v)| (n.as_bytes(), if *n == name { value } else { v.as_bytes() })).collect();
    whole(&block(&fields))
}

/// A GET with further fields.
fn plus(more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let pseudo: Vec<(&[u8], &[u8])> = WHOLE.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    whole(&block(&[&pseudo[..], more].concat()))
}

/// A POST with further fields, whose body the probe sends.
fn post(more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &request("POST", "/r/up/probe", more))
}

fn data(flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, 1, bytes)
}

fn trailers(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(fields))
}

fn pseudo_fields() -> Vec<(&'static str, Vec<u8>, Want)> {
    let get = request("GET", "/r/up/probe", &[]);
    let double = |name, value| whole(&[block(&[(name, value)]), get.clone()].concat());
    vec![
        ("no :method", without(":method"), Refused),
        ("no :path", without(":path"), Refused),
        ("no :scheme", without(":scheme"), Refused),
        ("neither :authority nor Host", without(":authority"), Refused),
        ("two :method", double(":method", "GET"), Refused),
        ("two :path", double(":path", "/r/up/probe"), Refused),
        ("two :authority", double(":authority", "localhost"), Refused),
        ("two :scheme", double(":scheme", "http"), Refused),
        ("an unknown pseudo-field", double(":smuggled", "1"), Refused),
        (":status in a request", double(":status", "200"), Refused),
        ("a pseudo-field behind a field", whole(&[block(&[("a", "b")]), get.clone()].concat()), Refused),
        (":protocol without CONNECT", double(":protocol", "websocket"), Refused),
        ("extended CONNECT", whole(&[block(&[(":protocol", "websocket")]), request("CONNECT", "/r/up/probe", &[])].concat()), Refused),
        ("plain CONNECT", whole(&block(&[(":method", "CONNECT"), (":authority", "localhost:80")])), Refused),
        ("TRACE", with(":method", b"TRACE"), Refused),
        ("no method", with(":method", b""), Refused),
        ("a space in the method", with(":method", b"GET /r/up/smuggled"), Refused),
        ("a line in the method", with(":method", b"GET /r/up/smuggled HTTP/1.1\r\nx: y\r\n\r\nGET"), Refused),
        ("a method without end", with(":method", &[b'A'; 64]), Refused),
        ("a method in small letters", with(":method", b"get"), Refused),
        ("a method of the client's own", with(":method", b"MKCOL"), Served("/base/probe")),
        ("an empty path", with(":path", b""), Refused),
        ("a path without slash", with(":path", b"r/up/probe"), Refused),
        ("an asterisk", with(":path", b"*"), Refused),
        ("an absolute path", with(":path", b"http://localhost/r/up/probe"), Refused),
        ("another server's path", with(":path", b"http://evil.example/r/up/probe"), Refused),
        ("a space in the path", with(":path", b"/r/up/probe HTTP/1.1"), Refused),
        ("a line in the path", with(":path", b"/r/up/probe HTTP/1.1\r\nHost: x\r\n\r\nGET /smuggled"), Refused),
        ("a NUL in the path", with(":path", b"/r/up/pro\0be"), Refused),
        ("a tab in the path", with(":path", b"/r/up/pro\tbe"), Refused),
        ("a byte above 127 in the path", with(":path", "/r/up/pröbe".as_bytes()), Refused),
        ("bytes that are no UTF-8 in the path", with(":path", b"/r/up/pro\xff\xfebe"), Refused),
        ("a quote in the path", with(":path", b"/r/up/pro\"be"), Refused),
        ("dots in the path", with(":path", b"/r/up/../../smuggled"), Refused),
        ("escaped dots in the path", with(":path", b"/r/up/%2e%2e/smuggled"), Refused),
        ("dots escaped twice", with(":path", b"/r/up/%252e%252e/smuggled"), Refused),
        ("dots behind a semicolon", with(":path", b"/r/up/..;/smuggled"), Refused),
        ("a backslash in the path", with(":path", b"/r/up\\..\\smuggled"), Refused),
        ("a bad escape in the path", with(":path", b"/r/up/%zz"), Refused),
        // The URI parser cuts it off before anyone sees it: what is forwarded is what was judged.
        ("a fragment in the path", with(":path", b"/r/up/probe#/../smuggled"), Served("/base/probe")),
        ("a user in :authority", with(":authority", b"user@localhost"), Refused),
        ("a user with a password in :authority", with(":authority", b"user:pass@localhost"), Refused),
        ("an empty :authority", with(":authority", b""), Refused),
        ("a path in :authority", with(":authority", b"localhost/r/up"), Refused),
        ("a space in :authority", with(":authority", b"localhost evil"), Refused),
        ("a line in :authority", with(":authority", b"localhost\r\nx-smuggled: 1"), Refused),
        ("another server's :authority", with(":authority", b"evil.example"), Refused),
        ("a scheme that is none of ours", with(":scheme", b"ftp"), Refused),
        ("an empty scheme", with(":scheme", b""), Refused),
        ("a line in the scheme", with(":scheme", b"http\r\nx-smuggled: 1"), Refused),
    ]
}

fn fields() -> Vec<(&'static str, Vec<u8>, Want)> {
    let one = |name: &[u8], value: &[u8]| plus(&[(name, value)]);
    vec![
        ("Host and :authority agree", one(b"host", b"LOCALHOST:80"), Served("/base/probe")),
        ("Host and :authority differ", one(b"host", b"evil.example"), Refused),
        ("two Hosts", plus(&[(b"host", b"localhost"), (b"host", b"localhost")]), Refused),
        ("a Host that is a URL", one(b"host", b"http://localhost"), Refused),
        ("a name in capitals", one(b"X-Smuggled", b"1"), Refused),
        ("a space in a name", one(b"x smuggled", b"1"), Refused),
        ("a colon in a name", one(b"x-smuggled:a", b"1"), Refused),
        ("an empty name", one(b"", b"1"), Refused),
        ("a line in a name", one(b"a: b\r\nx-smuggled", b"1"), Refused),
        ("a NUL in a name", one(b"x-smuggled\0", b"1"), Refused),
        ("a line in a value", one(b"a", b"b\r\nx-smuggled: 1"), Refused),
        ("a line feed in a value", one(b"a", b"b\nx-smuggled: 1"), Refused),
        ("a carriage return in a value", one(b"a", b"b\rx-smuggled: 1"), Refused),
        ("a NUL in a value", one(b"a", b"b\0c"), Refused),
        ("DEL in a value", one(b"a", b"b\x7fc"), Refused),
        ("white space before a value", one(b"a", b" b"), Refused),
        ("white space behind a value", one(b"a", b"b\t"), Refused),
        ("Connection", one(b"connection", b"close"), Refused),
        ("Connection that nominates", plus(&[(b"connection", b"x-request-id"), (b"a", b"b")]), Refused),
        ("Keep-Alive", one(b"keep-alive", b"timeout=5"), Refused),
        ("Proxy-Connection", one(b"proxy-connection", b"close"), Refused),
        ("Transfer-Encoding", one(b"transfer-encoding", b"chunked"), Refused),
        ("Transfer-Encoding with a body", [post(&[("transfer-encoding", "chunked")]), data(END_STREAM, b"0\r\n\r\n")].concat(), Refused),
        ("Transfer-Encoding: identity", one(b"transfer-encoding", b"identity"), Refused),
        ("Transfer_Encoding", one(b"transfer_encoding", b"chunked"), Refused),
        ("Upgrade", one(b"upgrade", b"h2c"), Refused),
        ("HTTP2-Settings", one(b"http2-settings", b"AAMAAABkAARAAAAAAAIAAAAA"), Refused),
        ("TE that is not trailers", one(b"te", b"gzip"), Refused),
        ("TE that is more than trailers", one(b"te", b"trailers, deflate"), Refused),
        ("Content_Length", one(b"content_length", b"5"), Refused),
        ("a steering field", one(b"x-original-url", b"/smuggled"), Served("/base/probe")),
        ("a steering field in disguise", one(b"x_original_url", b"/smuggled"), Served("/base/probe")),
        ("Proxy-Authorization", one(b"proxy-authorization", b"smuggled"), Served("/base/probe")),
        ("Expect", [post(&[("expect", "100-continue")]), data(END_STREAM, b"hello")].concat(), Served("/base/probe")),
    ]
}

fn bodies() -> Vec<(&'static str, Vec<u8>, Want)> {
    let sized = |length: &str, frames: Vec<Vec<u8>>| [post(&[("content-length", length)]), frames.concat()].concat();
    let hello = || vec![data(END_STREAM, b"hello")];
    vec![
        ("a body of unknown length", [post(&[]), data(0, b"hel"), data(END_STREAM, b"lo")].concat(), Served("/base/probe")),
        ("a body of known length", sized("5", hello()), Served("/base/probe")),
        ("two equal lengths", [post(&[("content-length", "5"), ("content-length", "5")]), hello().concat()].concat(), Refused),
        ("two lengths", [post(&[("content-length", "5"), ("content-length", "6")]), hello().concat()].concat(), Refused),
        ("a list of lengths", sized("5, 5", hello()), Refused),
        ("a length with a sign", sized("+5", hello()), Refused),
        ("a length in hex", sized("0x5", hello()), Refused),
        ("an empty length", sized("", hello()), Refused),
        ("a length without end", sized("99999999999999999999", hello()), Refused),
        (
            "a length and no body",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &request("POST", "/r/up/probe", &[("content-length", "5")])),
            Refused,
        ),
        ("less than the length", sized("5", vec![data(END_STREAM, b"hel")]), Refused),
        ("more than the length", sized("3", hello()), Refused),
        (
            "more than the length, a request in itself",
            sized("5", vec![data(0, b"hello"), data(END_STREAM, b"GET /smuggled HTTP/1.1\r\n\r\n")]),
            Refused,
        ),
        ("a body behind length zero", sized("0", hello()), Refused),
        ("less than the length, then trailers", sized("5", vec![data(0, b"hel"), trailers(&[("a", "b")])]), Refused),
        ("chunks in a body", [post(&[]), data(END_STREAM, b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")].concat(), Served("/base/probe")),
        ("trailers", [post(&[]), data(0, b"hello"), trailers(&[("x-sum", "1")])].concat(), Served("/base/probe")),
        (
            "trailers that frame",
            [post(&[("trailer", "content-length")]), data(0, b"hello"), trailers(&[("content-length", "99")])].concat(),
            Served("/base/probe"),
        ),
        ("trailers of the connection", [post(&[]), data(0, b"hello"), trailers(&[("transfer-encoding", "chunked")])].concat(), Refused),
        // The library takes them out of the trailers before anyone sees them.
        (
            "pseudo-fields in trailers",
            [post(&[]), data(0, b"hello"), trailers(&[(":path", "/smuggled"), ("x-sum", "1")])].concat(),
            Served("/base/probe"),
        ),
        ("trailers in capitals", [post(&[]), data(0, b"hello"), trailers(&[("X-Smuggled", "1")])].concat(), Refused),
        (
            "a second head that does not end",
            [post(&[]), frame(HEADERS, END_HEADERS, 1, &request("GET", "/r/up/smuggled", &[]))].concat(),
            Refused,
        ),
        ("padding longer than the frame", [post(&[]), frame(DATA, END_STREAM | PADDED, 1, &[200, 1, 2])].concat(), Refused),
        ("a padded body", [post(&[]), frame(DATA, END_STREAM | PADDED, 1, &[2, b'h', b'i', 0, 0])].concat(), Served("/base/probe")),
    ]
}

fn frames() -> Vec<(&'static str, Vec<u8>, Want)> {
    let get = request("GET", "/r/up/probe", &[]);
    let first = |bad: Vec<u8>| [bad, whole(&request("GET", "/r/up/probe", &[]))].concat();
    let setting = |id: u8, value: u32| frame(SETTINGS, 0, 0, &[&[0, id], &value.to_be_bytes()[..]].concat());
    let priority = |stream: u32, on: u32| frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[16]].concat());
    vec![
        ("DATA on the connection", first(frame(DATA, 0, 0, b"x")), Refused),
        ("DATA on a stream that is not open", first(frame(DATA, 0, 5, b"x")), Refused),
        ("HEADERS on the connection", first(frame(HEADERS, END_STREAM | END_HEADERS, 0, &get)), Refused),
        ("a stream of the server's", frame(HEADERS, END_STREAM | END_HEADERS, 2, &get), Refused),
        ("CONTINUATION without HEADERS", first(frame(CONTINUATION, END_HEADERS, 1, &get)), Refused),
        (
            "CONTINUATION of another stream",
            [frame(HEADERS, END_STREAM, 1, &get[..9]), frame(CONTINUATION, END_HEADERS, 3, &get[9..])].concat(),
            Refused,
        ),
        (
            "PING inside a header block",
            [frame(HEADERS, END_STREAM, 1, &get[..9]), frame(PING, 0, 0, &[0; 8]), frame(CONTINUATION, END_HEADERS, 1, &get[9..])].concat(),
            Refused,
        ),
        (
            "DATA inside a header block",
            [frame(HEADERS, 0, 1, &get[..9]), data(END_STREAM, b"x"), frame(CONTINUATION, END_HEADERS, 1, &get[9..])].concat(),
            Refused,
        ),
        (
            "an unknown frame inside a header block",
            [frame(HEADERS, END_STREAM, 1, &get[..9]), frame(99, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, &get[9..])].concat(),
            Refused,
        ),
        ("PUSH_PROMISE of a client", first(frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &get].concat())), Refused),
        ("SETTINGS on a stream", first(frame(SETTINGS, 0, 1, &[])), Refused),
        ("SETTINGS of five bytes", first(frame(SETTINGS, 0, 0, &[0; 5])), Refused),
        ("an acknowledgement with settings", first(frame(SETTINGS, ACK, 0, &[0; 6])), Refused),
        ("a window over its bound in SETTINGS", first(setting(4, 1 << 31)), Refused),
        ("frames that may be too small", first(setting(5, 100)), Refused),
        ("frames that may be too large", first(setting(5, 1 << 24)), Refused),
        ("push that is neither on nor off", first(setting(2, 2)), Refused),
        ("an unknown setting", first(setting(77, 1)), Served("/base/probe")),
        ("PING on a stream", first(frame(PING, 0, 1, &[0; 8])), Refused),
        ("PING of seven bytes", first(frame(PING, 0, 0, &[0; 7])), Refused),
        ("GOAWAY on a stream", first(frame(GOAWAY, 0, 1, &[0; 8])), Refused),
        ("GOAWAY of seven bytes", first(frame(GOAWAY, 0, 0, &[0; 7])), Refused),
        ("a window that opens by nothing", first(frame(WINDOW_UPDATE, 0, 0, &[0; 4])), Refused),
        ("a window that opens beyond its bound", first(frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes())), Refused),
        ("WINDOW_UPDATE of three bytes", first(frame(WINDOW_UPDATE, 0, 0, &[0; 3])), Refused),
        ("WINDOW_UPDATE on a stream that is not open", first(frame(WINDOW_UPDATE, 0, 9, &[0, 0, 0, 1])), Refused),
        ("RST_STREAM on the connection", first(frame(RST_STREAM, 0, 0, &[0; 4])), Refused),
        ("RST_STREAM of a stream that is not open", first(frame(RST_STREAM, 0, 9, &[0; 4])), Refused),
        ("RST_STREAM of three bytes", first(frame(RST_STREAM, 0, 1, &[0; 3])), Refused),
        ("PRIORITY on the connection", first(priority(0, 1)), Refused),
        ("PRIORITY of four bytes", first(frame(PRIORITY, 0, 1, &[0; 4])), Refused),
        (
            "HEADERS that depend on themselves",
            frame(HEADERS, END_STREAM | END_HEADERS | 0x20, 1, &[&[0, 0, 0, 1, 16][..], &get].concat()),
            Refused,
        ),
        (
            "HEADERS padded beyond their end",
            frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[&[255][..], &get[..20]].concat()),
            Refused,
        ),
        ("a frame over the bound", first(frame(99, 0, 0, &vec![0; 16_385])), Refused),
        ("an unknown frame", first(frame(99, 0, 0, b"x")), Served("/base/probe")),
        ("unknown flags", frame(HEADERS, 0xd5 & !0x28 | END_STREAM | END_HEADERS, 1, &get), Served("/base/probe")),
        ("the reserved bit of a stream", frame(HEADERS, END_STREAM | END_HEADERS, 0x8000_0001, &get), Served("/base/probe")),
    ]
}

fn header_blocks() -> Vec<(&'static str, Vec<u8>, Want)> {
    let get = request("GET", "/r/up/probe", &[]);
    let behind = |bad: &[u8]| whole(&[get.clone(), bad.to_vec()].concat());
    vec![
        ("index zero", behind(&[0x80]), Refused),
        ("an index beyond the table", behind(&[0xfe]), Refused),
        ("a block that breaks off", whole(&get[..get.len() - 3]), Refused),
        ("a string longer than the block", behind(&[0x10, 0x7f, 0xff, 0xff, 0x03, b'a']), Refused),
        ("an integer without end", behind(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), Refused),
        ("a table larger than allowed", whole(&[&[0x3f, 0xff, 0xff, 0x03][..], &get].concat()), Refused),
        ("a size of the table in the middle", behind(&[0x20]), Refused),
        ("Huffman coding of EOS", behind(&[&[0x10][..], &string(b"a"), &[0x84, 0xff, 0xff, 0xff, 0xff]].concat()), Refused),
        ("Huffman coding with wrong padding", behind(&[&[0x10][..], &string(b"a"), &[0x81, 0x00]].concat()), Refused),
        ("a line inside Huffman coding", behind(&[&[0x10][..], &string(b"a"), &[0x84, 0xff, 0xff, 0xff, 0xf6 >> 1]].concat()), Refused),
        (
            "the static table",
            whole(&[&[0x82, 0x86][..], &block(&[(":authority", "localhost"), (":path", "/r/up/probe")])].concat()),
            Served("/base/probe"),
        ),
    ]
}

fn prefaces() -> Vec<(&'static str, Vec<u8>, Want)> {
    let rest = [frame(SETTINGS, 0, 0, &[]), whole(&request("GET", "/r/up/probe", &[]))].concat();
    vec![
        ("a preface with a wrong end", [b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n", &rest[..]].concat(), Refused),
        ("a preface in small letters", [b"pri * http/2.0\r\n\r\nsm\r\n\r\n", &rest[..]].concat(), Refused),
        ("a preface behind a request", [b"GET /r/none HTTP/1.1\r\nHost: localhost\r\n\r\n", PREFACE, &rest[..]].concat(), Refused),
        ("a preface of HTTP/3", [b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n", &rest[..]].concat(), Refused),
        ("PRI with a target", [b"PRI /r/up/probe HTTP/2.0\r\n\r\nSM\r\n\r\n", &rest[..]].concat(), Refused),
        ("a preface and nothing that is a frame", [PREFACE, b"GET /r/up/probe HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat(), Refused),
    ]
}

/// Sends a probe and says what is wrong with what came of it.
fn judge(gateway: &Gateway, upstream: &Upstream, bytes: &[u8], want: Want) -> Result<(), String> {
    let before = upstream.seen().len();
    let mut client = Http2::silent(gateway.port);
    client.send(bytes);
    let over = |h: &Http2| h.answers.values().any(crate::support::frames::Answer::over) || h.goaway.is_some_and(|(code, _)| code != 0);
    if !client.until(over) {
        return Err(format!("it hangs: {:?} {:?}", client.answers, client.goaway));
    }
    let ok = client.answers.values().any(|a| a.status == Some(200) && a.ended);
    let seen = if ok { eventually(|| Some(upstream.seen()).filter(|s| s.len() > before)).unwrap_or_default() } else { upstream.seen() };
    let reached: Vec<&str> = seen[before..].iter().map(|s| s.target()).collect();
    if let Some(bad) = seen[before..].iter().find(|s| {
        format!("{}{}", s.head, String::from_utf8_lossy(&s.raw_body)).contains("smuggled") && !s.head.contains("transfer-encoding: chunked")
    }) {
        return Err(format!("smuggled: {bad:?}"));
    }
    match want {
        Refused if ok || !reached.is_empty() => Err(format!("it was served: {reached:?} {:?}", client.answers)),
        Served(target) if !ok || reached != [target] => {
            Err(format!("it was not served: {reached:?} {:?} {:?}", client.answers, client.goaway))
        }
        _ => Ok(()),
    }
}

#[test]
fn no_hostile_message_over_http_2_reaches_the_upstream_or_hangs() {
    let upstream = Upstream::ok();
    let gateway = crate::forwarding::gateway(&upstream, "");
    let framed = [pseudo_fields(), fields(), bodies(), frames(), header_blocks()].concat();
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let framed = framed.into_iter().map(|(name, bytes, want)| (name, [opening.clone(), bytes].concat(), want));
    let probes: Vec<_> = framed.chain(prefaces()).collect();
    assert!(probes.len() >= 80, "{}", probes.len());
    let wrong: Vec<String> = probes
        .iter()
        .filter_map(|(name, bytes, want)| Some(format!("{name}: {}", judge(&gateway, &upstream, bytes, *want).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), probes.len(), wrong.join("\n"));
    // And it still serves.
    assert_eq!(gateway.get("/r/up/a").status, 200);
}
