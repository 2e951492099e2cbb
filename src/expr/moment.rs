//! Moments: how they are read, moved and written. Always UTC; the clock is nobody's business here.

use std::time::{Duration, SystemTime};

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, fmt::strtime};

/// Numbers of at least this size are milliseconds since 1970: as seconds they would lie 3,000 years ahead.
const MILLIS_FROM: i128 = 100_000_000_000;
/// Longest text of a `date_format`, and the longest that it may result in.
const FORMAT_MAX: usize = 256;
/// RFC 9110 section 5.6.7, IMF-fixdate.
const HTTP_DATE: &str = "%a, %d %b %Y %H:%M:%S GMT";

/// A moment in time, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Timestamp);

impl Moment {
    /// The moment of a clock.
    pub fn of(time: SystemTime) -> Self {
        Self(Timestamp::try_from(time).unwrap_or_default())
    }

    /// So many milliseconds after 1970; `None` beyond the year 9999.
    pub fn from_millis(millis: i128) -> Option<Self> {
        Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok().map(Self)
    }

    /// Reads a moment as issuers and upstreams write it (ruling F23): RFC 3339, with or without a zone (none is UTC), a
    /// date, an HTTP date, or seconds or milliseconds since 1970.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(moment) = Self::of_number(text) {
            return Some(moment);
        }
        if let Ok(timestamp) = text.parse::<Timestamp>() {
            return Some(Self(timestamp));
        }
        if let Ok(timestamp) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text) {
            return Some(Self(timestamp));
        }
        let civil = text.parse::<DateTime>().ok().or_else(|| text.parse::<Date>().ok().map(|d| d.at(0, 0, 0, 0)))?;
        TimeZone::UTC.to_timestamp(civil).ok().map(Self)
    }

    fn of_number(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let number: i128 = whole.parse().ok()?;
        if !fraction.bytes().all(|b| b.is_ascii_digit()) || (text.contains('.') && fraction.is_empty()) {
            return None;
        }
        if number.abs() >= MILLIS_FROM {
            return Self::from_millis(number);
        }
        let millis: i128 = format!("{fraction:0<3}")[..3].parse().ok()?;
        Self::from_millis(number * 1000 + if whole.starts_with('-') { -millis } else { millis })
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Later by this much; `None` beyond the year 9999.
    pub fn plus(self, by: Duration) -> Option<Self> {
        self.0.checked_add(SignedDuration::try_from(by).ok()?).ok().map(Self)
    }

    /// Earlier by this much; `None` before the year -9999.
    pub fn minus(self, by: Duration) -> Option<Self> {
        self.0.checked_sub(SignedDuration::try_from(by).ok()?).ok().map(Self)
    }

    /// RFC 3339 in UTC, with as many decimals as needed: `2024-05-01T12:00:00Z`.
    pub fn rfc3339(self) -> String {
        self.0.to_string()
    }

    /// As in a `Date` field: `Wed, 01 May 2024 12:00:00 GMT`.
    pub fn http_date(self) -> String {
        self.format(HTTP_DATE).unwrap_or_default()
    }

    /// By a strftime format, in UTC; `%3f` is milliseconds.
    ///
    /// # Errors
    /// Where the format is none.
    pub fn format(self, format: &str) -> Result<String, &'static str> {
        if format.len() > FORMAT_MAX {
            return Err("the format is too long");
        }
        // Widths are bounded by nothing in the library: `%99999999d`.
        let mut digits = 0;
        for byte in format.bytes() {
            digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
            if digits > 2 {
                return Err("the format asks for a width of more than 99");
            }
        }
        let text = strtime::format(format, self.0).map_err(|_| "it is no strftime format")?;
        Ok(text)
    }

    /// Whether the format is one, for the report when the configuration is loaded.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_format(format: &str) -> Result<(), &'static str> {
        Self(Timestamp::UNIX_EPOCH).format(format).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: i128 = 1_714_564_800_000;

    #[test]
    fn a_moment_is_read_in_every_spelling() {
        for text in [
            "2024-05-01T12:00:00Z",
            "2024-05-01T14:00:00+02:00",
            "2024-05-01 12:00:00Z",
            "2024-05-01T12:00:00",
            "2024-05-01T12:00:00.000",
            "Wed, 01 May 2024 12:00:00 GMT",
            "1714564800",
            "1714564800.0",
            "1714564800000",
            " 1714564800 ",
        ] {
            assert_eq!(Moment::parse(text), Moment::from_millis(WRITTEN), "{text}");
        }
        assert_eq!(Moment::parse("2024-05-01"), Moment::from_millis(WRITTEN - 43_200_000));
        assert_eq!(Moment::parse("0.25").unwrap().millis(), 250);
        assert_eq!(Moment::parse("-1.5").unwrap().millis(), -1500);
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in ["", "soon", "2024-13-01", "12:00", "1.", "1.x", "99999999999999999999", "0x10", "2024-05-01T25:00:00Z"] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_moment_is_written_in_every_spelling() {
        let moment = Moment::from_millis(1_714_564_800_007).unwrap();
        assert_eq!(moment.rfc3339(), "2024-05-01T12:00:00.007Z");
        assert_eq!(moment.http_date(), "Wed, 01 May 2024 12:00:00 GMT");
        assert_eq!(moment.format("%Y%m%dT%H%M%S.%3fZ").unwrap(), "20240501T120000.007Z");
        assert_eq!((moment.seconds(), moment.millis()), (1_714_564_800, 1_714_564_800_007));
    }

    #[test]
    fn a_format_is_bounded_and_judged() {
        assert!(Moment::check_format("%Y-%m-%d").is_ok());
        for wrong in ["%", "%!", "%999999999d", &"%Y".repeat(200)] {
            assert!(Moment::check_format(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_moment_moves_and_never_beyond_the_calendar() {
        let moment = Moment::from_millis(WRITTEN).unwrap();
        assert_eq!(moment.plus(Duration::from_secs(300)).unwrap().seconds(), 1_714_565_100);
        assert_eq!(moment.minus(Duration::from_millis(1)).unwrap().millis(), 1_714_564_799_999);
        assert_eq!(moment.plus(Duration::MAX), None);
    }
}
