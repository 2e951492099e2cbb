//! Keys and scopes: the signing key of a day is derived once (by the crate `aws-sigv4`) and kept until the day ends.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;

use crate::hex::push_hex;
use crate::secret::Secret;

/// What signs, and for what.
pub struct Keys {
    /// The access key id.
    pub id: String,
    /// The secret access key.
    pub secret: Secret,
    /// The region.
    pub region: String,
    /// The service.
    pub service: String,
    day: ArcSwapOption<Day>,
}

/// The key of one day.
pub struct Day {
    /// `20150830`.
    date: String,
    /// `20150830/us-east-1/s3/aws4_request`.
    pub scope: String,
    key: hmac::Key,
}

/// A moment as signatures write it: `20150830T123600Z`.
#[derive(Clone, Debug)]
pub struct Moment(String);

impl Moment {
    /// This moment.
    pub fn new(time: SystemTime) -> Self {
        let time = jiff::Timestamp::try_from(time).unwrap_or_default();
        let utc = jiff::tz::Offset::UTC.to_datetime(time);
        Self(format!("{:04}{:02}{:02}T{:02}{:02}{:02}Z", utc.year(), utc.month(), utc.day(), utc.hour(), utc.minute(), utc.second()))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }

    fn date(&self) -> &str {
        self.0.split('T').next().unwrap_or_default()
    }
}

impl Keys {
    /// Keys for a region and a service.
    pub fn new(id: String, secret: Secret, region: String, service: String) -> Self {
        Self { id, secret, region, service, day: ArcSwapOption::empty() }
    }

    /// The key for the day of this moment.
    pub fn day(&self, time: SystemTime, moment: &Moment) -> Arc<Day> {
        if let Some(day) = self.day.load_full().filter(|day| day.date == moment.date()) {
            return day;
        }
        let key = aws_sigv4::sign::v4::generate_signing_key(self.secret.expose(), time, &self.region, &self.service);
        let date = moment.date().to_owned();
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let day = Arc::new(Day { date, scope, key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()) });
        self.day.store(Some(day.clone()));
        day
    }
}

impl Day {
    /// The signature of a text, in hex.
    pub fn sign(&self, text: &str) -> String {
        let mut signature = String::with_capacity(64);
        push_hex(hmac::sign(&self.key, text.as_bytes()).as_ref(), &mut signature);
        signature
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("region", &self.region).field("service", &self.service).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Day").field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    // AWS General Reference, "Deriving a signing key".
    #[test]
    fn a_key_lasts_for_its_day_and_no_longer() {
        let keys = Keys::new(
            "AKIDEXAMPLE".into(),
            Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into()),
            "us-east-1".into(),
            "iam".into(),
        );
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        let day = |seconds: u64| keys.day(at(seconds), &Moment::new(at(seconds)));
        let first = day(1_440_938_160);
        assert_eq!(first.scope, "20150830/us-east-1/iam/aws4_request");
        let text = "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\nf536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59";
        assert_eq!(first.sign(text), "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");
        assert!(Arc::ptr_eq(&first, &day(1_440_938_161)));
        assert_eq!(day(1_440_979_200).scope, "20150831/us-east-1/iam/aws4_request");
        assert_eq!(Moment::new(at(951_782_400)).text(), "20000229T000000Z");
        assert!(!format!("{keys:?} {first:?}").contains("wJalr"));
    }
}
