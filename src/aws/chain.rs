//! The default chain of credentials in the order of AWS's SDKs: environment, profile, web identity (IRSA), container (ECS,
//! EKS Pod Identity), instance. The first place that is set up answers; one that is set up and fails ends the search, so that
//! nobody signs as somebody else by accident.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use super::ambient::{self, Ambient};
use super::profile::{Origin, Profiles, SESSION};
use super::sts::{Role, Sts};
use super::{Credentials, Fault, container, instance, of_json, sso};
use crate::clock::Clock;
use crate::command::{self, Circumstances};
use crate::net::tls;
use crate::secret::Secret;

/// How many profiles may lead from one to the other.
const PROFILES_MAX: usize = 5;
/// How long a `credential_process` may take.
const PROCESS_TIME: Duration = Duration::from_secs(30);
/// What of our environment it gets besides AWS's own variables.
const PROCESS_VARIABLES: [&str; 3] = ["PATH", "HOME", "LANG"];

/// Where credentials are looked for.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Variables and files.
    pub ambient: Ambient,
    /// The one profile that is meant (`profile`); none asks everywhere.
    pub profile: Option<String>,
    /// The region of STS where a profile says none.
    pub region: String,
    /// `assume_role.sts_url`.
    pub sts_url: Option<String>,
    /// What is trusted over TLS.
    pub tls: Option<tls::Config>,
    /// The folder where commands run, if they may (`allow_exec`).
    pub commands: Option<PathBuf>,
}

impl Chain {
    /// Looks for credentials.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn credentials(&self, clock: &Clock) -> Result<Credentials, Fault> {
        let profiles = Profiles::read(&self.ambient).await;
        if let Some(name) = &self.profile {
            return self
                .of_profile(&profiles, name, clock, PROFILES_MAX, false)
                .await?
                .ok_or_else(|| nothing(&format!("the profile `{name}`")));
        }
        if let Some(found) = self.environment()? {
            return Ok(found);
        }
        let named = self.ambient.get("AWS_PROFILE").or_else(|| self.ambient.get("AWS_DEFAULT_PROFILE"));
        let name = named.unwrap_or("default");
        if (named.is_some() || profiles.has(name))
            && let Some(found) = self.of_profile(&profiles, name, clock, PROFILES_MAX, false).await?
        {
            return Ok(found);
        }
        if let Some(found) = self.web_identity().await? {
            return Ok(found);
        }
        if let Some(found) = container::credentials(&self.ambient).await? {
            return Ok(found);
        }
        instance::credentials(&self.ambient).await?.ok_or_else(|| nothing("environment, profile, web identity, container and instance"))
    }

    fn environment(&self) -> Result<Option<Credentials>, Fault> {
        let secret = |name: &str| self.ambient.get(name).map(|value| Secret::new(value.to_owned()));
        let Some(id) = self.ambient.get("AWS_ACCESS_KEY_ID") else { return Ok(None) };
        // Somebody meant these: another account must not take their place.
        let half = || Fault::Refused("AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY".into());
        let key = secret("AWS_SECRET_ACCESS_KEY").ok_or_else(half)?;
        Ok(Some(Credentials { id: id.to_owned(), secret: key, session: secret("AWS_SESSION_TOKEN"), expires: None }))
    }

    async fn web_identity(&self) -> Result<Option<Credentials>, Fault> {
        let (Some(file), Some(arn)) = (self.ambient.get("AWS_WEB_IDENTITY_TOKEN_FILE"), self.ambient.get("AWS_ROLE_ARN")) else {
            return Ok(None);
        };
        let session = self.ambient.get("AWS_ROLE_SESSION_NAME").unwrap_or(SESSION);
        let role = Role { arn: arn.to_owned(), session: session.to_owned(), ..Role::default() };
        let region = self.ambient.get("AWS_REGION").or_else(|| self.ambient.get("AWS_DEFAULT_REGION")).unwrap_or(&self.region);
        self.with_token(&role, file, region).await.map(Some)
    }

    async fn with_token(&self, role: &Role, file: &str, region: &str) -> Result<Credentials, Fault> {
        // Read each time: the platform replaces it.
        let token = ambient::read(self.ambient.path(file)).await;
        let token = token.ok_or_else(|| Fault::Down("the file with the web identity token cannot be read".into()))?;
        self.sts(region)?.assume_with_token(role, token.trim()).await
    }

    /// STS in this region.
    ///
    /// # Errors
    /// What is wrong with its address.
    pub fn sts(&self, region: &str) -> Result<Sts, Fault> {
        let sts = Sts::new(region, self.sts_url.as_deref(), &self.ambient, self.tls.clone());
        sts.map_err(|why| Fault::Refused(format!("the address of STS is no good: {why}")))
    }

    /// What a profile leads to. `left` bounds how many others it may name.
    fn of_profile<'a>(
        &'a self,
        profiles: &'a Profiles,
        name: &'a str,
        clock: &'a Clock,
        left: usize,
        inner: bool,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Credentials>, Fault>> + 'a>> {
        Box::pin(async move {
            if left == 0 {
                return Err(Fault::Refused(format!("more than {PROFILES_MAX} profiles lead from one to the other")));
            }
            let region = profiles.region(name).unwrap_or(&self.region).to_owned();
            let Some(origin) = profiles.origin(name, inner)? else { return Ok(None) };
            let (role, first) = match origin {
                Origin::Written(found) => return Ok(Some(found)),
                Origin::Sso(sso) => return sso::credentials(&sso, &self.ambient, clock).await.map(Some),
                Origin::Token(role, file) => return self.with_token(&role, &file, &region).await.map(Some),
                Origin::Process(command) => return self.process(&command).await.map(Some),
                Origin::Profile(role, source) => {
                    let itself = source == name;
                    let found = self.of_profile(profiles, &source, clock, left - 1, itself).await?;
                    (role, found.ok_or_else(|| nothing(&format!("the profile `{source}`")))?)
                }
                Origin::Elsewhere(role, source) => (role, self.elsewhere(&source).await?),
            };
            self.sts(&region)?.assume(&role, &first, clock).await.map(Some)
        })
    }

    async fn elsewhere(&self, source: &str) -> Result<Credentials, Fault> {
        let found = match source {
            "Environment" => self.environment()?,
            "EcsContainer" => container::credentials(&self.ambient).await?,
            "Ec2InstanceMetadata" => instance::credentials(&self.ambient).await?,
            _ => return Err(Fault::Refused("`credential_source` is Environment, EcsContainer or Ec2InstanceMetadata".into())),
        };
        found.ok_or_else(|| nothing(source))
    }

    async fn process(&self, command: &str) -> Result<Credentials, Fault> {
        let Some(folder) = &self.commands else {
            return Err(Fault::Refused("the profile runs a command, and commands are not allowed: `allow_exec: true`".into()));
        };
        let variable = |name: &str| Some((name.to_owned(), Secret::new(self.ambient.get(name)?.to_owned())));
        let environment: Vec<(String, Secret)> =
            PROCESS_VARIABLES.iter().chain(&["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"]).filter_map(|name| variable(name)).collect();
        let said = command::run(command, Circumstances { timeout: PROCESS_TIME, folder, environment: &environment }).await;
        let said = said.map_err(|command::Failure(why, _)| Fault::Down(format!("credential_process: {why}")))?;
        let json: serde_json::Value = serde_json::from_str(said.expose()).unwrap_or_default();
        let given = Some(&json).filter(|json| json["Version"].as_u64() == Some(1));
        let found = given.and_then(|json| of_json(json, "SessionToken", "Expiration"));
        found.ok_or_else(|| Fault::Down("credential_process says no credentials of version 1".into()))
    }
}

fn nothing(place: &str) -> Fault {
    Fault::Down(format!("there are no AWS credentials in {place}"))
}
