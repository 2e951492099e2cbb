//! What AWS's tools take from around them: variables, and files under the home folder. The home of the variables that begin
//! with `AWS_`; they are read once, the files each time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Largest file that is read.
const FILE_MAX: u64 = 1 << 20;

/// The variables that play a part.
const NAMES: [&str; 27] = [
    "HOME",
    "PATH",
    "LANG",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_STS",
    "AWS_ENDPOINT_URL_SSO",
    "AWS_ENDPOINT_URL_SSO_OIDC",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
];

/// The variables.
#[derive(Clone, Default)]
pub struct Ambient(BTreeMap<String, Zeroizing<String>>);

impl std::fmt::Debug for Ambient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Ambient {
    /// Those of this process.
    #[expect(clippy::disallowed_methods, reason = "this is the home of AWS's own variables")]
    pub fn of_process() -> Self {
        Self::of(NAMES.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?))))
    }

    /// These.
    pub fn of<'n>(variables: impl IntoIterator<Item = (&'n str, String)>) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), Zeroizing::new(value))).collect())
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every name and value, to tell one environment from another.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(|(name, _)| name.starts_with("AWS_")).flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()])
    }

    /// A file under the home folder, or where a variable says.
    pub fn file(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        match self.get(variable) {
            Some(path) => Some(self.path(path)),
            None => self.get("HOME").map(|home| Path::new(home).join(below_home)),
        }
    }

    /// A path, with `~` read as the home folder.
    pub fn path(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), self.get("HOME")) {
            (Some(rest), Some(home)) => Path::new(home).join(rest),
            _ => PathBuf::from(path),
        }
    }
}

/// The text of a file, wiped when it is dropped; `None` where there is none that can be read. The disk is waited for
/// elsewhere.
pub async fn read(path: PathBuf) -> Option<Zeroizing<String>> {
    let text = tokio::task::spawn_blocking(move || crate::file::read(&path, FILE_MAX).1.ok()).await.ok()??;
    String::from_utf8(text).ok().map(Zeroizing::new)
}
