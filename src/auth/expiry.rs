//! When a token ends, in every form in which issuers say it: seconds, milliseconds, `D:HH:MM`, a moment as epoch seconds,
//! epoch milliseconds, ISO 8601 or an HTTP date, a JWT's own `exp`, nothing at all (rulings F22, F23, G9).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::auth::capture;

/// Numbers of this size and above are milliseconds since 1970, smaller ones seconds: in seconds it is the year 5138.
const MILLIS_FROM: f64 = 1e11;
/// Longest life that is believed, in milliseconds: a hundred years.
const LONGEST: f64 = 100.0 * 366.0 * 86_400_000.0;

/// What a bare number of `expires_in` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    #[default]
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
}

impl Unit {
    /// All of them by name.
    pub const ALL: [(&'static str, Self); 4] = [("s", Self::Seconds), ("ms", Self::Milliseconds), ("m", Self::Minutes), ("h", Self::Hours)];

    fn millis(self) -> f64 {
        match self {
            Self::Seconds => 1000.0,
            Self::Milliseconds => 1.0,
            Self::Minutes => 60_000.0,
            Self::Hours => 3_600_000.0,
        }
    }
}

/// A life, in milliseconds; `None` for zero and less, which mean that nobody knows. A number, numeric text, a duration
/// (`50m`), or days, hours and minutes (`0:23:59`).
///
/// # Errors
/// If it is none of these.
pub fn life(value: &Value, unit: Unit) -> Result<Option<u64>, ()> {
    let text = capture::text(value).filter(|_| !value.is_boolean()).ok_or(())?;
    let text = text.trim();
    let millis = match text.parse::<f64>() {
        Ok(number) if number.is_finite() => number * unit.millis(),
        Ok(_) => return Err(()),
        Err(_) => match crate::tree::duration(text) {
            Some(duration) => duration.as_millis() as f64,
            None => days(text).ok_or(())?,
        },
    };
    Ok((millis >= 1.0).then_some(millis.min(LONGEST) as u64))
}

fn days(text: &str) -> Option<f64> {
    let mut parts = text.split(':').map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u32>().ok())?);
    let (days, hours, minutes) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || hours > 23 || minutes > 59 {
        return None;
    }
    Some((f64::from(days) * 1440.0 + f64::from(hours) * 60.0 + f64::from(minutes)) * 60_000.0)
}

/// A moment, in milliseconds since 1970; `None` for zero and less. A time without a zone is UTC.
///
/// # Errors
/// If it is no moment in a form that is known here.
pub fn moment(value: &Value) -> Result<Option<u64>, ()> {
    let text = capture::text(value).filter(|_| !value.is_boolean()).ok_or(())?;
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        let millis = if number < MILLIS_FROM { number * 1000.0 } else { number };
        return if number.is_finite() { Ok((millis >= 1.0).then_some(millis as u64)) } else { Err(()) };
    }
    let millis = written(text).ok_or(())?;
    Ok(u64::try_from(millis).ok().filter(|m| *m > 0))
}

fn written(text: &str) -> Option<i64> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Some(moment.as_millisecond());
    }
    let utc = |civil: jiff::civil::DateTime| jiff::tz::TimeZone::UTC.to_timestamp(civil).ok().map(|t| t.as_millisecond());
    if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
        return utc(civil);
    }
    if let Ok(zoned) = jiff::fmt::rfc2822::parse(text) {
        return Some(zoned.timestamp().as_millisecond());
    }
    // The two older forms of an HTTP date (RFC 9110 section 5.6.7).
    let older = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    older.iter().find_map(|form| utc(jiff::civil::DateTime::strptime(form, text).ok()?))
}

/// The `exp` of a JWT, in milliseconds since 1970; `None` where the token is none, or has none. It is not verified: only
/// whoever the token is for can do that.
pub fn of_jwt(token: &str) -> Option<u64> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else { return None };
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?).ok()?;
    moment(claims.get("exp")?).ok().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MOMENT: u64 = 1_700_000_000_000;

    #[test]
    fn a_life_is_told_in_every_form() {
        for (value, unit, millis) in [
            (json!(3600), Unit::Seconds, Some(3_600_000)),
            (json!("3600"), Unit::Seconds, Some(3_600_000)),
            (json!(" 3600 "), Unit::Seconds, Some(3_600_000)),
            (json!(0.5), Unit::Seconds, Some(500)),
            (json!(3_600_000), Unit::Milliseconds, Some(3_600_000)),
            (json!(60), Unit::Minutes, Some(3_600_000)),
            (json!(1), Unit::Hours, Some(3_600_000)),
            (json!("1:02:03"), Unit::Seconds, Some((1440 + 120 + 3) * 60_000)),
            (json!("0:23:59"), Unit::Milliseconds, Some((23 * 60 + 59) * 60_000)),
            (json!("50m"), Unit::Seconds, Some(3_000_000)),
            (json!(0), Unit::Seconds, None),
            (json!(-1), Unit::Seconds, None),
            (json!("0"), Unit::Seconds, None),
            (json!(1e300), Unit::Seconds, Some(LONGEST as u64)),
        ] {
            assert_eq!(life(&value, unit), Ok(millis), "{value}");
        }
        for wrong in [
            json!("soon"),
            json!(""),
            json!(true),
            json!([1]),
            json!("NaN"),
            json!("inf"),
            json!("1:2"),
            json!("1:24:00"),
            json!("1:02:03:04"),
            json!("1:+2:03"),
        ] {
            assert_eq!(life(&wrong, Unit::Seconds), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_moment_is_told_in_every_form() {
        for value in [
            json!(1_700_000_000),
            json!("1700000000"),
            json!(1_700_000_000_000u64),
            json!("2023-11-14T22:13:20Z"),
            json!("2023-11-14T23:13:20.000+01:00"),
            json!("2023-11-14 22:13:20"),
            json!("2023-11-14T22:13:20"),
            json!("Tue, 14 Nov 2023 22:13:20 GMT"),
            json!("Tuesday, 14-Nov-23 22:13:20 GMT"),
            json!("Tue Nov 14 22:13:20 2023"),
        ] {
            assert_eq!(moment(&value), Ok(Some(MOMENT)), "{value}");
        }
        assert_eq!(moment(&json!("2023-11-14")), Ok(Some(1_699_920_000_000)));
        assert_eq!(moment(&json!(0)), Ok(None));
        for wrong in [json!("soon"), json!(""), json!({}), json!("2023-13-01"), json!("NaN")] {
            assert_eq!(moment(&wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_jwt_knows_its_own_end() {
        let jwt = |claims: Value| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        assert_eq!(of_jwt(&jwt(json!({ "exp": 1_700_000_000 }))), Some(MOMENT));
        assert_eq!(of_jwt(&jwt(json!({ "exp": 1_700_000_000.0 }))), Some(MOMENT));
        for none in [jwt(json!({})), jwt(json!({ "exp": "soon" })), "opaque".into(), "a.b.c".into(), "a.b.c.d".into(), String::new()] {
            assert_eq!(of_jwt(&none), None, "{none}");
        }
    }
}
