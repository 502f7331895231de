//! Identities of Microsoft Entra: a service principal, a workload identity, or the managed identity of the machine.

use jiff::Timestamp;
use url::form_urlencoded;

use super::{
    environment::Environment,
    step::{IdentityError, Step, get, oauth, post},
};
use crate::{metrics::error::ServerError, snapshot::Secret};

/// The `type` of the MetricTemplates with such identities.
pub const PROVIDER: &str = "azuremonitor";
/// The metadata service of a machine.
const METADATA: &str = "http://169.254.169.254";
/// The value of the parameter for a Kubernetes token that replaces the client's secret.
const JWT: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// One of Microsoft's clouds.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Cloud {
    /// The host of the API; workspaces are below it.
    metrics: &'static str,
    /// The host of Microsoft Entra.
    login: &'static str,
}

/// The public cloud, that of the US government, and that of China.
static CLOUDS: [Cloud; 3] = [
    Cloud {
        metrics: "prometheus.monitor.azure.com",
        login: "login.microsoftonline.com",
    },
    Cloud {
        metrics: "prometheus.monitor.azure.us",
        login: "login.microsoftonline.us",
    },
    Cloud {
        metrics: "prometheus.monitor.azure.cn",
        login: "login.chinacloudapi.cn",
    },
];

/// An identity in one of Microsoft's clouds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Azure {
    cloud: &'static Cloud,
    who: Who,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Who {
    /// A service principal with a secret.
    Principal(Client, Secret),
    /// The client that trusts the ServiceAccount of the operator.
    Workload(Client),
    /// The workload identity of the operator's pod, or the managed identity of its machine.
    Pod,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Client {
    tenant: String,
    id: String,
}

impl Azure {
    /// The identity for a workspace at this host; `find` returns the values of the MetricTemplate's Secret. `None` if no workspace of Azure
    /// has such a host.
    pub fn of<'a>(
        host: &str,
        find: impl Fn(&'static str) -> Option<&'a str>,
    ) -> Option<Result<Self, ServerError>> {
        let cloud = CLOUDS.iter().find(|cloud| {
            let workspace = host.strip_suffix(cloud.metrics);
            workspace.is_some_and(|name| name.len() > 1 && name.ends_with('.'))
        })?;
        Some(Who::of(find).map(|who| Self { cloud, who }))
    }

    /// Whether this is an identity of the operator's pod, which no user chooses.
    pub const fn is_of_the_pod(&self) -> bool {
        matches!(self.who, Who::Pod)
    }

    /// The host that gets the secret of a service principal.
    pub const fn secret_host(&self) -> Option<&'static str> {
        match self.who {
            Who::Principal(..) => Some(self.cloud.login),
            Who::Workload(_) | Who::Pod => None,
        }
    }

    /// The next step of the exchange.
    pub fn next(
        &self,
        environment: &Environment,
        seen: &[String],
        now: Timestamp,
    ) -> Result<Step, IdentityError> {
        match &self.who {
            Who::Principal(client, Secret(secret)) => match seen {
                [] => {
                    let login = format!("https://{}", self.cloud.login);
                    let secret = [("client_secret", secret.as_str())];
                    Ok(self.token(&login, client, &secret))
                }
                [answer, ..] => oauth("the answer of Microsoft Entra", answer, now),
            },
            Who::Workload(client) => self.workload(client, environment, seen, now),
            Who::Pod => match client_of_the_pod(environment) {
                Some(client) => self.workload(&client, environment, seen, now),
                None => match seen {
                    [] => Ok(self.managed(environment)),
                    [answer, ..] => oauth("the answer of Azure's metadata service", answer, now),
                },
            },
        }
    }

    /// Exchanges the pod's token of Kubernetes for one of the client.
    fn workload(
        &self,
        client: &Client,
        environment: &Environment,
        seen: &[String],
        now: Timestamp,
    ) -> Result<Step, IdentityError> {
        match seen {
            [] => {
                let name = "AZURE_FEDERATED_TOKEN_FILE";
                let file = environment.get(name).ok_or(IdentityError::NotSet {
                    name,
                    advice: "enable workload identity for the operator's pod and ServiceAccount, or add clientSecret to the Secret",
                })?;
                Ok(Step::Read(file.to_owned()))
            }
            [token] => {
                let login = match environment.get("AZURE_AUTHORITY_HOST") {
                    Some(own) => own.trim_end_matches('/').to_owned(),
                    None => format!("https://{}", self.cloud.login),
                };
                let assertion = [
                    ("client_assertion_type", JWT),
                    ("client_assertion", token.trim()),
                ];
                Ok(self.token(&login, client, &assertion))
            }
            [_, answer, ..] => oauth("the answer of Microsoft Entra", answer, now),
        }
    }

    fn token(&self, login: &str, client: &Client, proof: &[(&str, &str)]) -> Step {
        let url = format!("{login}/{}/oauth2/v2.0/token", client.tenant);
        let scope = format!("https://{}/.default", self.cloud.metrics);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &client.id),
            ("scope", &scope),
        ];
        Step::Call(post(url, &[&form, proof].concat()))
    }

    /// Asks the machine for its managed identity. If the machine has several, a variable of the pod names the client.
    fn managed(&self, environment: &Environment) -> Step {
        let host = environment.get("AZURE_POD_IDENTITY_AUTHORITY_HOST");
        let host = host.unwrap_or(METADATA).trim_end_matches('/');
        let mut parameters = form_urlencoded::Serializer::new(String::new());
        let resource = format!("https://{}", self.cloud.metrics);
        parameters
            .append_pair("api-version", "2018-02-01")
            .append_pair("resource", &resource)
            .extend_pairs(
                environment
                    .get("AZURE_CLIENT_ID")
                    .map(|id| ("client_id", id)),
            );
        let parameters = parameters.finish();
        let url = format!("{host}/metadata/identity/oauth2/token?{parameters}");
        Step::Call(get(url, &[("Metadata", "true")]))
    }
}

impl Who {
    /// All three keys make a service principal, the first two make a workload identity, and none makes the pod's own identity.
    fn of<'a>(find: impl Fn(&'static str) -> Option<&'a str>) -> Result<Self, ServerError> {
        let find = |key| find(key).map(str::to_owned);
        let missing = |key| ServerError::MissingCredential {
            provider: PROVIDER,
            key,
        };
        let secret = find("clientSecret").map(Secret);
        let client = match (find("clientId"), find("tenantId"), &secret) {
            (Some(id), Some(tenant), _) => Client { tenant, id },
            (None, None, None) => return Ok(Self::Pod),
            (None, _, _) => return Err(missing("a clientId")),
            (_, None, _) => return Err(missing("a tenantId")),
        };
        if !is_tenant(&client.tenant) {
            let why = "tenantId in its Secret is neither the ID nor the domain of a tenant";
            return Err(ServerError::not_allowed(PROVIDER, why));
        }
        Ok(match secret {
            Some(secret) => Self::Principal(client, secret),
            None => Self::Workload(client),
        })
    }
}

/// The client of the pod's workload identity, which the webhook of AKS writes into its environment.
fn client_of_the_pod(environment: &Environment) -> Option<Client> {
    environment.get("AZURE_FEDERATED_TOKEN_FILE")?;
    Some(Client {
        tenant: environment.get("AZURE_TENANT_ID")?.to_owned(),
        id: environment.get("AZURE_CLIENT_ID")?.to_owned(),
    })
}

/// Whether a text can be a tenant. The tenant is a part of a path, so it must not lead to another path.
fn is_tenant(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    text.bytes().all(is_part) && !text.starts_with('.') && !text.contains("..")
}

#[cfg(test)]
mod tests;
