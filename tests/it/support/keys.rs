//! Keys that openssl makes, so that no one here has had a hand in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::counterparts::program;

/// Runs openssl; `false` where it is not installed.
pub fn openssl(arguments: &[&str]) -> bool {
    let Some(program) = program("openssl") else { return false };
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

/// A private key of a kind (`ed25519`, `rsa`, or a curve by openssl's name) as PEM, and the file with its public half.
pub fn pair(folder: &Path, kind: &str) -> Option<(String, PathBuf)> {
    let (key, public) = (folder.join("key.pem"), folder.join("public.pem"));
    let (key_text, public_text) = (key.to_str().unwrap(), public.to_str().unwrap());
    let made = match kind {
        "ed25519" => openssl(&["genpkey", "-algorithm", "ed25519", "-out", key_text]),
        "rsa" => openssl(&["genrsa", "-out", key_text, "2048"]),
        curve => openssl(&["ecparam", "-name", curve, "-genkey", "-noout", "-out", key_text]),
    };
    (made && openssl(&["pkey", "-in", key_text, "-pubout", "-out", public_text])).then(|| (fs::read_to_string(&key).unwrap(), public))
}

/// A shared secret, and the file with it.
pub fn shared(folder: &Path, secret: &str) -> (String, PathBuf) {
    let file = folder.join("shared");
    fs::write(&file, secret).unwrap();
    (secret.to_owned(), file)
}
