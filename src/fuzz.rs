//! What the fuzz targets of `fuzz/` run, one function a target, each with what must hold for any bytes. The seeds are
//! replayed by an ordinary test, and mutated a little.

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue, WWW_AUTHENTICATE};

use crate::expr::{Name, Names, Scope, Template};
use crate::http1::Chunks;
use crate::server::head::{Bounds, Judged, Reader, judge};
use crate::tree::{Fields, Folders, Problems};

/// A target: its name, which is also that of its seeds' folder, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 8] = [
    ("target", target),
    ("request_head", request_head),
    ("answer", answer),
    ("chunks", chunks),
    ("challenge", challenge),
    ("cookies", cookies),
    ("config", config),
    ("expression", expression),
];

/// A request target: what is carried and passes is below its base in every reading.
pub fn target(bytes: &[u8]) {
    if crate::path::carriable(bytes).is_err() {
        return;
    }
    let text = String::from_utf8_lossy(bytes);
    let path = text.split('?').next().unwrap_or_default();
    if crate::path::check(path).is_err() || !path.starts_with('/') {
        return;
    }
    for reading in crate::path::readings(path) {
        let mut depth = 0;
        for segment in reading.split(|b| matches!(b, b'/' | b'\\')) {
            match segment.split(|b| *b == b';').next().unwrap_or_default() {
                b".." => depth -= 1,
                b"." | b"" => {}
                _ => depth += 1,
            }
            assert!(depth >= 0, "{path} leads above its base");
        }
    }
}

/// The head of a request: the same verdict however it arrives, and one reading of its framing.
pub fn request_head(bytes: &[u8]) {
    let bounds = Bounds { bytes: 8192, fields: 100 };
    let whole = judge(bytes, bounds);
    let mut reader = Reader::default();
    let mut slow = Judged::Partial;
    for end in 0..=bytes.len() {
        slow = reader.judge(&bytes[..end], bounds);
        if slow != Judged::Partial {
            break;
        }
    }
    match (&whole, &slow) {
        (Judged::Head { .. }, _) | (_, Judged::Head { .. }) => assert_eq!(whole, slow),
        (Judged::Refused(_), other) | (other, Judged::Refused(_)) => assert!(matches!(other, Judged::Refused(_)), "{whole:?} {slow:?}"),
        _ => {}
    }
    let Judged::Head { start, end, .. } = whole else { return };
    let head = String::from_utf8_lossy(&bytes[start..end]).into_owned();
    assert!(head.ends_with("\r\n\r\n") && head.matches(['\r', '\n']).count() == 2 * head.matches("\r\n").count());
    let names = head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_ascii_lowercase().replace('_', "-")));
    let framing = names.clone().filter(|n| matches!(n.as_str(), "content-length" | "transfer-encoding")).count();
    assert!(framing <= 1 && names.filter(|n| n == "host").count() <= 1, "{head:?}");
}

/// The answer of an upstream: the same bytes pass however they arrive, and they are a beginning of it.
pub fn answer(bytes: &[u8]) {
    let (whole, clean) = crate::net::passed(bytes, usize::MAX);
    assert!(bytes.starts_with(&whole));
    for piece in [1, 3] {
        let (slow, slowly) = crate::net::passed(bytes, piece);
        assert_eq!((slow.len(), slowly), (whole.len(), clean));
    }
}

/// Chunks: the same end however they arrive.
pub fn chunks(bytes: &[u8]) {
    let read = |piece: usize| {
        let mut chunks = Chunks::default();
        let mut all = 0;
        for part in bytes.chunks(piece) {
            let mut part = part;
            while !part.is_empty() && !chunks.done() {
                match chunks.read(part) {
                    Ok(read) => {
                        all += read;
                        part = &part[read..];
                    }
                    Err(_) => return (all, false, true),
                }
            }
        }
        (all, chunks.done(), false)
    };
    assert_eq!(read(1), read(bytes.len().max(1)));
}

/// `WWW-Authenticate` and `Authentication-Info`: nothing panics.
pub fn challenge(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::new();
    headers.append(WWW_AUTHENTICATE, value.clone());
    headers.insert("authentication-info", value);
    crate::auth::read_challenges(&headers);
}

/// The cookies of a client: the gateway's own is there once, and no other of its name.
pub fn cookies(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::new();
    headers.append(COOKIE, value.clone());
    headers.append(COOKIE, value);
    if crate::auth::put_cookie(&mut headers, "sid", "sid=own").is_err() {
        return;
    }
    let all: Vec<&HeaderValue> = headers.get_all(COOKIE).iter().collect();
    let pairs: Vec<&[u8]> = all.iter().flat_map(|line| line.as_bytes().split(|b| *b == b';')).map(<[u8]>::trim_ascii).collect();
    let own = pairs.iter().filter(|pair| pair.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii() == b"sid");
    assert_eq!((all.len(), own.count(), pairs.last()), (1, 1, Some(&&b"sid=own"[..])));
}

/// The text of a configuration: read or reported, never a panic.
pub fn config(bytes: &[u8]) {
    let problems = Problems::default();
    let Some(tree) = crate::config::parse(&String::from_utf8_lossy(bytes), &problems) else {
        assert!(problems.any_error());
        return;
    };
    if let Some(fields) = Fields::of(&tree, "a map", &problems) {
        crate::config::listen::read(&fields, &Folders::one("/"), &problems);
    }
}

/// An expression: compiled or refused, never a panic.
pub fn expression(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = Template::compile(&text, &Scope::of(Names::FIXED.with(Names::of(&[Name::Now, Name::Uuid]))));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each seed is changed a little.
    const MUTATIONS: usize = 300;

    #[test]
    fn every_seed_holds_and_so_do_its_mutations() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (name, run) in TARGETS {
            let seeds: Vec<Vec<u8>> =
                std::fs::read_dir(folder.join(name)).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
            assert!(seeds.len() >= 3, "{name} has {} seeds", seeds.len());
            let mut random = fastrand::Rng::with_seed(1);
            for seed in &seeds {
                run(seed);
                for _ in 0..MUTATIONS {
                    run(&mutated(seed, &seeds, &mut random));
                }
            }
        }
    }

    fn mutated(seed: &[u8], seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..=bytes.len());
            match random.u8(..5) {
                0 => bytes.insert(at, b"\r\n\0 :;%.&=\"\\/{}\xff"[random.usize(..16)]),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 if at < bytes.len() => bytes[at] = random.u8(..),
                3 => bytes.truncate(at),
                _ => {
                    let other = &seeds[random.usize(..seeds.len())];
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[random.usize(..=other.len())..]);
                }
            }
        }
        bytes
    }

    #[test]
    fn every_target_has_its_program() {
        let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
    }
}
