//! The files `~/.aws/config` and `~/.aws/credentials`: sections with keys, and what a profile says about where its
//! credentials come from. Asking there is the chain's affair.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::ambient::{self, Ambient};
use super::sts::Role;
use super::{Credentials, Fault};
use crate::secret::Secret;

/// Session name where nothing says one.
pub const SESSION: &str = "postern";
/// Most sections of both files together.
const SECTIONS_MAX: usize = 1024;

/// The profiles of both files.
#[derive(Debug, Default)]
pub struct Profiles {
    profiles: BTreeMap<String, Section>,
    sessions: BTreeMap<String, Section>,
}

/// The keys of one section.
#[derive(Clone, Default)]
pub struct Section(BTreeMap<String, Zeroizing<String>>);

impl std::fmt::Debug for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Where a profile's credentials come from.
#[derive(Debug)]
pub enum Origin {
    /// They are written there.
    Written(Credentials),
    /// A role, assumed with what another profile gives.
    Profile(Role, String),
    /// A role, assumed with what stands elsewhere: `Environment`, `Ec2InstanceMetadata`, `EcsContainer`.
    Elsewhere(Role, String),
    /// A role, assumed with the token in this file.
    Token(Role, String),
    /// IAM Identity Center.
    Sso(Sso),
    /// A command.
    Process(String),
}

/// What IAM Identity Center must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sso {
    /// The name of the session, or the start URL of the older form: by it the cached token is found.
    pub cache: String,
    /// Its region.
    pub region: String,
    /// `sso_account_id`.
    pub account: String,
    /// `sso_role_name`.
    pub role: String,
}

impl Section {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str()).filter(|value| !value.is_empty())
    }
}

impl Profiles {
    /// Reads both files; one that is not there is empty.
    pub async fn read(ambient: &Ambient) -> Self {
        let mut profiles = Self::default();
        let files = [
            (ambient.file("AWS_CONFIG_FILE", ".aws/config"), true),
            (ambient.file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), false),
        ];
        for (path, is_config) in files {
            let text = match path {
                Some(path) => ambient::read(path).await,
                None => None,
            };
            if let Some(text) = text {
                profiles.take(&text, is_config);
            }
        }
        profiles
    }

    /// Takes a file in. Where both say something, the credentials file wins.
    fn take(&mut self, text: &str, is_config: bool) {
        let mut section: Option<&mut Section> = None;
        for line in text.lines() {
            let nested = line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                section = self.section(name.trim(), is_config);
                continue;
            }
            // What is nested belongs to services, and says nothing about credentials.
            let Some((key, value)) = line.split_once('=').filter(|_| !nested) else { continue };
            let value = value.split([' ', '\t']).scan((), |(), word| (!word.starts_with(['#', ';'])).then_some(word));
            let value = Zeroizing::new(value.collect::<Vec<_>>().join(" ").trim().to_owned());
            if let Some(section) = &mut section {
                section.0.insert(key.trim().to_ascii_lowercase(), value);
            }
        }
    }

    fn section(&mut self, name: &str, is_config: bool) -> Option<&mut Section> {
        if self.profiles.len() + self.sessions.len() >= SECTIONS_MAX {
            return None;
        }
        let words: Vec<&str> = name.split_whitespace().collect();
        match (is_config, words.as_slice()) {
            (true, ["profile", name]) => Some(self.profiles.entry((*name).to_owned()).or_default()),
            (true, ["sso-session", name]) => Some(self.sessions.entry((*name).to_owned()).or_default()),
            (true, ["default"]) | (false, [_]) => Some(self.profiles.entry(words[0].to_owned()).or_default()),
            _ => None,
        }
    }

    /// Whether there is such a profile.
    pub fn has(&self, name: &str) -> bool {
        self.profiles.contains_key(name)
    }

    /// The region of a profile.
    pub fn region(&self, name: &str) -> Option<&str> {
        self.profiles.get(name)?.get("region")
    }

    /// Where a profile's credentials come from; `None` where it does not say. `inner` is set where another profile has led
    /// here: then keys that are written count before a role of the same profile, as it may name itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn origin(&self, name: &str, inner: bool) -> Result<Option<Origin>, Fault> {
        let wrong = |why: &str| Err(Fault::Refused(format!("the profile `{}` {why}", shown(name))));
        let Some(section) = self.profiles.get(name) else { return wrong("is in neither of AWS's files") };
        let written = match (section.get("aws_access_key_id"), section.get("aws_secret_access_key")) {
            (Some(id), Some(secret)) => Some(Credentials {
                id: id.to_owned(),
                secret: Secret::new(secret.to_owned()),
                session: section.get("aws_session_token").map(|token| Secret::new(token.to_owned())),
                expires: None,
            }),
            _ => None,
        };
        if let (Some(written), true) = (&written, inner) {
            return Ok(Some(Origin::Written(written.clone())));
        }
        if let Some(arn) = section.get("role_arn") {
            if section.get("mfa_serial").is_some() {
                return wrong("asks for a second factor, which only a person has");
            }
            let role = Role {
                arn: arn.to_owned(),
                session: section.get("role_session_name").unwrap_or(SESSION).to_owned(),
                external: section.get("external_id").map(str::to_owned),
                seconds: section.get("duration_seconds").and_then(|seconds| seconds.parse().ok()),
            };
            return match (section.get("source_profile"), section.get("credential_source"), section.get("web_identity_token_file")) {
                (Some(source), None, None) => Ok(Some(Origin::Profile(role, source.to_owned()))),
                (None, Some(source), None) => Ok(Some(Origin::Elsewhere(role, source.to_owned()))),
                (None, None, Some(file)) => Ok(Some(Origin::Token(role, file.to_owned()))),
                _ => wrong("has a `role_arn` and must say one of source_profile, credential_source and web_identity_token_file"),
            };
        }
        if section.get("sso_session").or(section.get("sso_start_url")).is_some() && section.get("sso_account_id").is_some() {
            return match self.sso(section) {
                Some(sso) => Ok(Some(Origin::Sso(sso))),
                None => wrong("lacks a part of what IAM Identity Center needs: account, role, region"),
            };
        }
        if let Some(written) = written {
            return Ok(Some(Origin::Written(written)));
        }
        Ok(section.get("credential_process").map(|command| Origin::Process(command.to_owned())))
    }

    fn sso(&self, section: &Section) -> Option<Sso> {
        let (cache, region) = match section.get("sso_session") {
            Some(session) => (session, self.sessions.get(session)?.get("sso_region")?),
            None => (section.get("sso_start_url")?, section.get("sso_region")?),
        };
        let part = |key: &str| section.get(key).map(str::to_owned);
        Some(Sso { cache: cache.to_owned(), region: region.to_owned(), account: part("sso_account_id")?, role: part("sso_role_name")? })
    }
}

/// A name as it may stand in a log.
fn shown(name: &str) -> &str {
    if name.len() <= 64 && !name.contains(char::is_control) { name } else { "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles(config: &str, credentials: &str) -> Profiles {
        let mut profiles = Profiles::default();
        profiles.take(config, true);
        profiles.take(credentials, false);
        profiles
    }

    #[test]
    fn both_files_make_one_profile_and_the_credentials_file_wins() {
        let config = "[default]\nregion = eu-west-1 # where\naws_access_key_id=A\n\n[profile dev]\nAWS_ACCESS_KEY_ID = D\naws_secret_access_key = x#y z\n\
                      s3 =\n  aws_access_key_id = nested\n[dev]\naws_access_key_id = not a profile here\n; note\n";
        let profiles = profiles(
            config,
            "[default]\naws_access_key_id = B\naws_secret_access_key = s\naws_session_token = t\n[profile dev]\nregion = x\n",
        );
        let Some(Origin::Written(keys)) = profiles.origin("default", false).unwrap() else { panic!() };
        assert_eq!((keys.id.as_str(), keys.secret.expose(), keys.session.unwrap().expose()), ("B", "s", "t"));
        let Some(Origin::Written(keys)) = profiles.origin("dev", false).unwrap() else { panic!() };
        assert_eq!((keys.id.as_str(), keys.secret.expose()), ("D", "x#y z"));
        assert_eq!((profiles.region("default"), profiles.region("dev")), (Some("eu-west-1"), None));
    }

    #[test]
    fn a_role_says_where_its_first_credentials_come_from() {
        let config = "[profile a]\nrole_arn = arn:a\nsource_profile = a\naws_access_key_id = K\naws_secret_access_key = S\nexternal_id = x\nduration_seconds = 900\n\
                      [profile b]\nrole_arn = arn:b\ncredential_source = EcsContainer\nrole_session_name = me\n[profile c]\nrole_arn = arn:c\nweb_identity_token_file = /t\n\
                      [profile d]\nrole_arn = arn:d\n[profile e]\nrole_arn = arn:e\nsource_profile = a\nmfa_serial = m\n[profile f]\ncredential_process = run me\n[profile g]\n";
        let profiles = profiles(config, "");
        let origin = |name: &str, inner| profiles.origin(name, inner);
        let Ok(Some(Origin::Profile(role, source))) = origin("a", false) else { panic!() };
        assert_eq!(
            (role.arn.as_str(), role.session.as_str(), role.external.as_deref(), role.seconds),
            ("arn:a", "postern", Some("x"), Some(900))
        );
        assert_eq!(source, "a");
        assert!(matches!(origin("a", true), Ok(Some(Origin::Written(_)))));
        assert!(
            matches!(origin("b", false), Ok(Some(Origin::Elsewhere(role, source))) if source == "EcsContainer" && role.session == "me")
        );
        assert!(matches!(origin("c", false), Ok(Some(Origin::Token(_, file))) if file == "/t"));
        assert!(matches!(origin("f", false), Ok(Some(Origin::Process(command))) if command == "run me"));
        assert!(matches!(origin("g", false), Ok(None)));
        for wrong in ["d", "e", "nope"] {
            assert!(matches!(origin(wrong, false), Err(Fault::Refused(_))), "{wrong}");
        }
    }

    #[test]
    fn identity_center_is_read_in_both_of_its_forms() {
        let config = "[profile a]\nsso_session = s\nsso_account_id = 1\nsso_role_name = R\n[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://x\n\
                      [profile b]\nsso_start_url = https://y\nsso_region = us-east-1\nsso_account_id = 2\nsso_role_name = Q\n[profile c]\nsso_session = nope\nsso_account_id = 1\n";
        let profiles = profiles(config, "");
        let Ok(Some(Origin::Sso(one))) = profiles.origin("a", false) else { panic!() };
        assert_eq!((one.cache.as_str(), one.region.as_str(), one.account.as_str(), one.role.as_str()), ("s", "eu-west-1", "1", "R"));
        let Ok(Some(Origin::Sso(other))) = profiles.origin("b", false) else { panic!() };
        assert_eq!((other.cache.as_str(), other.region.as_str()), ("https://y", "us-east-1"));
        assert!(profiles.origin("c", false).is_err());
    }
}
