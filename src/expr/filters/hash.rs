//! `md5 sha1 sha256 sha512` and `hmac_…`: text or bytes to bytes (ruling F5). The message is piped, the key is the
//! argument (ruling F6), text or bytes.

use aws_lc_rs::{digest, hmac};
use md5::{Digest as _, Md5};
use minijinja::{Environment, Error, State, Value as Engine};

use super::args::{Given, charge_bytes, message, only};
use crate::expr::bridge;

pub fn install(engine: &mut Environment<'static>) {
    engine.add_filter("md5", |state: &State, value: &Engine| {
        let bytes = message(value)?;
        charge_bytes(state, value)?;
        Ok::<_, Error>(bridge::bytes(Md5::digest(&bytes).as_slice()))
    });
    for (name, algorithm) in [("sha1", &digest::SHA1_FOR_LEGACY_USE_ONLY), ("sha256", &digest::SHA256), ("sha512", &digest::SHA512)] {
        engine.add_filter(name, move |state: &State, value: &Engine| {
            let bytes = message(value)?;
            charge_bytes(state, value)?;
            Ok::<_, Error>(bridge::bytes(digest::digest(algorithm, &bytes).as_ref()))
        });
    }
    for (name, algorithm) in
        [("hmac_sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY), ("hmac_sha256", hmac::HMAC_SHA256), ("hmac_sha512", hmac::HMAC_SHA512)]
    {
        engine.add_filter(name, move |state: &State, value: &Engine, args: Given| {
            let key = only("key", args)?;
            let (bytes, key) = (message(value)?, message(&key)?);
            charge_bytes(state, value)?;
            Ok::<_, Error>(bridge::bytes(hmac::sign(&hmac::Key::new(algorithm, &key), &bytes).as_ref()))
        });
    }
}
