//! Refusals that are no matter of the session: one that a new session does not turn, as for a missing CSRF token or a page
//! without rights, must not make the gateway log in again and again, nor keep a dead session alive for anybody else. A
//! machine without I/O: it is told what was refused and the time.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher as _};

use http::StatusCode;

/// Places whose renewals in vain are remembered.
const NOTES_MAX: usize = 16;
/// So many of one kind at once, and it counts for every place that the session has not served.
const WIDE: usize = 4;
/// How long a refusal is believed to be the upstream's own after the first renewal in vain, in milliseconds; it doubles.
const WAIT: u64 = 1_000;
/// The most.
const MOST: u64 = 60_000;
/// Segments of a path that make a place.
const SEGMENTS: usize = 2;
/// Most paths of one session that are known to be served.
const SERVED_MAX: usize = 512;

/// What was asked for: the path, and whether something was to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    changing: bool,
    /// Its first segments.
    front: u64,
    whole: u64,
}

impl Place {
    /// That of a request. The path is that below the base URL.
    pub fn of(path: &str, changing: bool) -> Self {
        let front: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).take(SEGMENTS).collect();
        Self { changing, front: hash(&front), whole: hash(&(path, changing)) }
    }
}

fn hash(of: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// What a session has been let in to.
#[derive(Debug, Default)]
pub struct Served(HashSet<u64>);

impl Served {
    /// Notes a place. Beyond the bound it begins anew.
    pub fn note(&mut self, place: Place) {
        if self.0.len() >= SERVED_MAX {
            self.0.clear();
        }
        self.0.insert(place.whole);
    }

    /// Whether it was let in there.
    pub fn has(&self, place: Place) -> bool {
        self.0.contains(&place.whole)
    }
}

/// Places where a new session has made no difference.
#[derive(Debug, Default)]
pub struct Futile(Vec<Note>);

#[derive(Clone, Copy, Debug)]
struct Note {
    status: StatusCode,
    place: Place,
    times: u32,
    until: u64,
    /// The generation of the session that was ended in spite of it, as that had been let in there before.
    tried: Option<u64>,
    /// That was in vain, too: the same path is served and refused by turns.
    firm: bool,
}

impl Note {
    fn is_of(&self, status: StatusCode, place: Place) -> bool {
        (self.status, self.place.changing) == (status, place.changing)
    }
}

impl Futile {
    /// Whether a refusal is taken for the upstream's own word. `served`: whether this very session was let in there before,
    /// which tells that it has ended.
    pub fn stands(&mut self, status: StatusCode, place: Place, served: bool, generation: u64, now: u64) -> bool {
        let living = || self.0.iter().filter(|note| note.is_of(status, place) && now < note.until);
        let wide = living().count() >= WIDE;
        match self.0.iter_mut().find(|note| note.is_of(status, place) && now < note.until && note.place.front == place.front) {
            Some(note) if served && !note.firm => {
                note.tried = Some(generation);
                false
            }
            Some(_) => true,
            None => wide && !served,
        }
    }

    /// Notes that a session, the one of this generation, made no difference.
    pub fn note(&mut self, status: StatusCode, place: Place, generation: u64, now: u64) {
        // What was long ago says nothing about today.
        self.0.retain(|note| now < note.until.saturating_add(MOST));
        // Each further place is tried less often, so that there is no end of logins for a list of paths.
        let times = self.0.iter().filter(|note| note.is_of(status, place)).map(|note| note.times).max().unwrap_or(0).saturating_add(1);
        let until = now + WAIT.saturating_mul(1 << times.min(10)).min(MOST);
        let same = |note: &Note| note.is_of(status, place) && note.place.front == place.front;
        let before = self.0.iter().find(|note| same(note)).copied();
        let firm = before.is_some_and(|note| note.firm || note.tried.is_some_and(|tried| tried + 1 == generation));
        self.0.retain(|note| !same(note));
        if self.0.len() == NOTES_MAX {
            self.0.remove(0);
        }
        self.0.push(Note { status, place, times, until, tried: None, firm });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: StatusCode = StatusCode::UNAUTHORIZED;
    const SECOND: u64 = 1_000;

    fn get(path: &str) -> Place {
        Place::of(path, false)
    }

    /// What the call of this number asks for, and whether it is refused.
    type Way = fn(u64) -> (String, bool);

    /// An upstream that lets in to what it likes, and the logins that a caller causes.
    #[derive(Default)]
    struct Site {
        futile: Futile,
        served: Served,
        generation: u64,
        logins: u32,
    }

    impl Site {
        fn ask(&mut self, path: &str, refused: bool, now: u64) {
            let place = get(path);
            if !refused {
                return self.served.note(place);
            }
            if !self.futile.stands(NO, place, self.served.has(place), self.generation, now) {
                self.logins += 1;
                self.generation += 1;
                self.served = Served::default();
                self.futile.note(NO, place, self.generation, now);
            }
        }
    }

    #[test]
    fn a_renewal_in_vain_counts_for_its_place_and_for_no_other() {
        let mut futile = Futile::default();
        futile.note(NO, get("/admin/users/1"), 2, 0);
        for (status, place, served, stands) in [
            (NO, get("/admin/users/1"), false, true),
            (NO, get("/admin/users/2?x"), false, true),
            (NO, get("/admin/other"), false, false),
            (NO, get("/data"), false, false),
            (NO, Place::of("/admin/users/1", true), false, false),
            (StatusCode::FORBIDDEN, get("/admin/users/1"), false, false),
            // A session that was let in there and is not any more has ended.
            (NO, get("/admin/users/3"), true, false),
        ] {
            assert_eq!(futile.stands(status, place, served, 2, 1_999), stands, "{status} {place:?}");
        }
        assert!(!futile.stands(NO, get("/admin/users/1"), false, 2, 2_000), "it is tried again after a while");
    }

    #[test]
    fn no_caller_causes_logins_without_end() {
        // The same page, all the time; a thousand pages; one path that is served and refused by turns; many such.
        let ways: [(&str, Way); 5] = [
            ("one", |_| ("/no".into(), true)),
            ("two by turns", |n| (format!("/no{}", n % 2), true)),
            ("many", |n| (format!("/no{n}"), true)),
            ("by turns", |n| ("/search".into(), n % 2 == 0)),
            ("many by turns", |n| (format!("/a/b/{}", n / 2), n % 2 == 1)),
        ];
        for (way, ask) in ways {
            let mut site = Site::default();
            // Ten calls a second for five minutes.
            (0..3000).for_each(|n| {
                let (path, refused) = ask(n);
                site.ask(&path, refused, n * SECOND / 10);
            });
            assert!(site.logins <= 32, "{way}: {}", site.logins);
        }
    }

    #[test]
    fn the_end_of_a_session_is_seen_wherever_it_was_let_in() {
        let mut site = Site::default();
        site.ask("/a/b/no", true, 0);
        site.ask("/a/b/data", false, 1);
        assert_eq!(site.logins, 1);
        let place = get("/a/b/data");
        assert!(!site.futile.stands(NO, place, site.served.has(place), site.generation, 2));
    }

    #[test]
    fn what_a_session_has_served_is_bounded() {
        let mut served = Served::default();
        (0..5_000).for_each(|n| served.note(get(&format!("/{n}"))));
        assert!(served.0.len() <= SERVED_MAX && served.has(get("/4999")));
    }
}
