//! The time of day. The only place that asks the system for it; everything else is given a [`Clock`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time of day.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `millis` since 1970 until it is moved by [`Clock::advance`].
    pub fn manual(millis: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(millis))))
    }

    /// Moves a manual clock; the system's cannot be moved.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            manual.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Now.
    #[expect(clippy::disallowed_methods, reason = "this is the home of the wall clock")]
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            None => SystemTime::now(),
            Some(manual) => UNIX_EPOCH + Duration::from_millis(manual.load(Ordering::Relaxed)),
        }
    }

    /// Milliseconds since 1970.
    pub fn millis(&self) -> u64 {
        self.wall().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Writes moments as RFC 3339 in UTC with milliseconds. The second is formatted once and kept.
#[derive(Debug, Default)]
pub struct Stamp {
    second: u64,
    text: String,
}

impl Stamp {
    /// Appends the moment to `into`.
    pub fn write(&mut self, time: SystemTime, into: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.text.is_empty() || self.second != since.as_secs() {
            self.second = since.as_secs();
            let moment = jiff::Timestamp::from_second(i64::try_from(self.second).unwrap_or(0)).unwrap_or_default();
            self.text = moment.to_string();
            self.text.truncate(self.text.trim_end_matches('Z').len());
        }
        let millis = since.subsec_millis();
        into.extend_from_slice(self.text.as_bytes());
        into.extend_from_slice(&[b'.', b'0' + (millis / 100) as u8, b'0' + (millis / 10 % 10) as u8, b'0' + (millis % 10) as u8, b'Z']);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_until_it_is_moved() {
        let clock = Clock::manual(1_000);
        assert_eq!(clock.millis(), 1_000);
        clock.clone().advance(Duration::from_secs(2));
        assert_eq!(clock.millis(), 3_000);
    }

    #[test]
    fn a_moment_is_written_with_milliseconds() {
        let mut stamp = Stamp::default();
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_700_000_000_007, "2023-11-14T22:13:20.007Z"),
            (1_700_000_001_999, "2023-11-14T22:13:21.999Z"),
        ] {
            let mut out = Vec::new();
            stamp.write(UNIX_EPOCH + Duration::from_millis(millis), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
