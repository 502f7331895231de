//! Access to the API server for a person: with a kubeconfig of kubectl, with the person's own rights, and without the Lease. The command
//! line reads and watches objects, and asks the operator for actions.

use std::{io, time::Duration};

use futures::{Stream, StreamExt};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api, Client, Config,
    api::{
        ApiResource, DynamicObject, GetParams, ListParams, ObjectList, Patch, PatchParams,
        PostParams,
    },
    client::AuthError,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
    core::request::Request,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watch_object, watcher},
    },
};
use serde_json::Value;

use super::{
    connection::user_agent,
    request::{
        ClusterError, READ_DEADLINE, WRITE_DEADLINE, requests, requests_for, root_cause, send,
    },
};
use crate::{
    cli::client::Reach,
    snapshot::{Kind, redacted},
};

/// The maximum number of objects in one page of a list.
pub const PAGE: u32 = 500;
/// The maximum number of objects in one page of the list with which a watch begins. A record of a release may have 32 KiB.
const WATCHED: u32 = 100;
/// An API server that does not accept a connection within this time is unreachable.
const CONNECT: Duration = Duration::from_secs(10);

/// The API server, with the rights of a person.
#[derive(Clone)]
pub struct Person {
    pub(super) client: Client,
    pub(super) namespace: String,
}

/// The reason why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoConnection {
    /// The kubeconfig is missing or wrong.
    #[error("{0}")]
    Kubeconfig(#[from] KubeconfigError),
    /// The kubeconfig has no usable TLS or login.
    #[error("{error}")]
    Login {
        /// The error.
        error: Box<kube::Error>,
        /// The command that logs in, if the kubeconfig has one.
        command: Option<String>,
    },
}

impl NoConnection {
    /// The text of the reason. The output of a command that logs in may contain a token, so only its errors are shown.
    pub fn reason(&self) -> String {
        let (error, command) = match self {
            Self::Kubeconfig(error) => return error.to_string(),
            Self::Login { error, command } => (error.as_ref(), command.as_deref()),
        };
        match error {
            kube::Error::Auth(AuthError::AuthExecRun { cmd, out }) => {
                // The text of the command begins with its environment.
                let errors = redacted(&String::from_utf8_lossy(&out.stderr));
                let program = command.unwrap_or(cmd);
                format!("the command {program} failed ({}): {errors}", out.status)
            }
            kube::Error::Auth(AuthError::AuthExecStart(error)) => {
                let command = command.unwrap_or_default();
                format!("its command {command} cannot be started: {error}")
            }
            other => root_cause(other),
        }
    }
}

/// A kind of object, by its place in the API.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    /// The group; empty for the core group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The name in paths.
    pub plural: &'static str,
}

/// Pods.
pub const PODS: Resource = Resource {
    group: "",
    version: "v1",
    plural: "pods",
};
/// Events.
pub const EVENTS: Resource = Resource {
    group: "",
    version: "v1",
    plural: "events",
};
/// Namespaces.
pub const NAMESPACES: Resource = Resource {
    group: "",
    version: "v1",
    plural: "namespaces",
};

impl Resource {
    /// The place of a kind that the operator knows.
    pub const fn of(kind: Kind) -> Self {
        let (group, version) = kind.group_version();
        Self {
            group,
            version,
            plural: kind.plural(),
        }
    }

    fn requests(self, namespace: Option<&str>) -> Request {
        requests(self.group, self.version, self.plural, namespace)
    }
}

/// An event of a watch of several objects.
#[derive(Clone, Debug)]
pub enum Change {
    /// The objects are listed anew from here on.
    Began,
    /// All objects have been listed.
    Complete,
    /// The object is like this now.
    Is(Value),
    /// The object is gone.
    Gone(Value),
}

impl Person {
    /// Connects as kubectl does. Sends no request.
    ///
    /// # Errors
    /// The kubeconfig is missing or wrong.
    pub async fn connect(reach: &Reach) -> Result<Self, NoConnection> {
        Self::with(Self::config(reach).await?, reach)
    }

    /// The address of the API server, and the login.
    pub(super) async fn config(reach: &Reach) -> Result<Config, NoConnection> {
        let kubeconfig = match &reach.kubeconfig {
            Some(path) => Kubeconfig::read_from(path)?,
            None => match Kubeconfig::read() {
                // In a pod, for example a job of a pipeline, there is no kubeconfig but an account.
                Err(error) if has_none(&error, reach, is_named()) => match Config::incluster() {
                    Ok(config) => return Ok(config),
                    Err(_) => return Err(error.into()),
                },
                found => found?,
            },
        };
        let options = KubeConfigOptions {
            context: reach.context.clone(),
            ..KubeConfigOptions::default()
        };
        Ok(Config::from_custom_kubeconfig(kubeconfig, &options).await?)
    }

    pub(super) fn with(mut config: Config, reach: &Reach) -> Result<Self, NoConnection> {
        config.connect_timeout = Some(CONNECT);
        config
            .headers
            .push((http::header::USER_AGENT, user_agent()));
        if let Some(user) = &reach.as_user {
            config.auth_info.impersonate = Some(user.clone());
        }
        if !reach.as_groups.is_empty() {
            config.auth_info.impersonate_groups = Some(reach.as_groups.clone());
        }
        let namespace = reach.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let exec = config.auth_info.exec.as_ref();
        let command = exec.and_then(|exec| exec.command.clone());
        let client = Client::try_from(config).map_err(|error| NoConnection::Login {
            error: Box::new(error),
            command,
        })?;
        Ok(Self { client, namespace })
    }

    /// A connection by this client; for tests.
    #[cfg(test)]
    pub fn of(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
        }
    }

    /// The namespace that is meant if a command names none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Reads an object.
    ///
    /// # Errors
    /// The API server refused or is unreachable.
    pub async fn get(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Value, ClusterError> {
        let request = requests_for(kind, Some(namespace)).get(name, &GetParams::default());
        send(&self.client, READ_DEADLINE, request).await
    }

    /// Lists one page of objects. Returns the token of the next page, if there is one.
    ///
    /// # Errors
    /// The API server refused or is unreachable.
    pub async fn page(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<(Vec<Value>, Option<String>), ClusterError> {
        let request = resource.requests(namespace).list(params);
        let page: ObjectList<Value> = send(&self.client, READ_DEADLINE, request).await?;
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        Ok((page.items, next))
    }

    /// Lists all objects, page by page.
    ///
    /// # Errors
    /// The API server refused or is unreachable.
    pub async fn list(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        mut params: ListParams,
    ) -> Result<Vec<Value>, ClusterError> {
        let mut all = Vec::new();
        params.limit = Some(PAGE);
        loop {
            let (items, next) = self.page(resource, namespace, &params).await?;
            all.extend(items);
            params.continue_token = next;
            if params.continue_token.is_none() {
                return Ok(all);
            }
        }
    }

    /// The states of one object: now, and after each change; `None` if it does not exist. Goes on after errors, which it returns.
    pub fn watch(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> impl Stream<Item = Result<Option<Value>, ClusterError>> + Send + use<> {
        let api = self.api(kind, Some(namespace));
        watch_object(api, name).map(|seen| match seen {
            Ok(object) => Ok(object.map(|object| serde_json::to_value(object).unwrap_or_default())),
            Err(error) => Err(watch_error(error)),
        })
    }

    /// All objects that a label selects, and each change of them, with the begin and the end of each list. Returns errors, and goes on after
    /// each with growing pauses.
    pub fn watch_all(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        selector: Option<&str>,
    ) -> impl Stream<Item = Result<Change, ClusterError>> + Send + use<> {
        let config = watcher::Config {
            label_selector: selector.map(str::to_owned),
            page_size: Some(WATCHED),
            ..watcher::Config::default()
        };
        let changes = watcher(self.api(kind, namespace), config).default_backoff();
        changes.map(|event| {
            let value = |object: DynamicObject| serde_json::to_value(object).unwrap_or_default();
            Ok(match event.map_err(watch_error)? {
                Event::Init => Change::Began,
                Event::InitApply(object) | Event::Apply(object) => Change::Is(value(object)),
                Event::Delete(object) => Change::Gone(value(object)),
                Event::InitDone => Change::Complete,
            })
        })
    }

    pub(super) fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version) = kind.group_version();
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: kind.api_version(),
            kind: kind.name().to_owned(),
            plural: kind.plural().to_owned(),
        };
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// The name of this person, as the API server reports it.
    ///
    /// # Errors
    /// The API server refused or is unreachable.
    pub async fn who_am_i(&self) -> Result<String, ClusterError> {
        let reviews = requests("authentication.k8s.io", "v1", "selfsubjectreviews", None);
        let review = serde_json::to_vec(&SelfSubjectReview::default()).unwrap_or_default();
        let request = reviews.create(&PostParams::default(), review);
        let answer: SelfSubjectReview = send(&self.client, READ_DEADLINE, request).await?;
        let user = answer.status.and_then(|status| status.user_info);
        Ok(user.and_then(|user| user.username).unwrap_or_default())
    }

    /// Changes the metadata of a Canary by a merge patch, which names the resourceVersion that was observed.
    ///
    /// # Errors
    /// The Canary has changed, or the API server refused or is unreachable.
    pub async fn patch_canary(
        &self,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<(), ClusterError> {
        let requests = requests_for(Kind::Canary, Some(namespace));
        let request = requests.patch(name, &PatchParams::default(), &Patch::Merge(patch));
        match send::<Value>(&self.client, WRITE_DEADLINE, request).await {
            Err(ClusterError::Refused { code: 409, .. }) => {
                Err(ClusterError::Lost(format!("Canary {name}")))
            }
            other => other.map(drop),
        }
    }
}

/// Whether there is no kubeconfig, and the person asked for none. If the named kubeconfig is broken or its name is misspelt, the command
/// must not use another cluster.
fn has_none(error: &KubeconfigError, reach: &Reach, is_named: bool) -> bool {
    let is_missing = match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    };
    is_missing && !is_named && reach.context.is_none()
}

/// Whether the environment names a kubeconfig.
fn is_named() -> bool {
    std::env::var_os("KUBECONFIG").is_some_and(|paths| !paths.is_empty())
}

/// The error of a watch as the error of any other request, with the API server's message.
pub(super) fn watch_error(error: watcher::Error) -> ClusterError {
    let status = match &error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        other => return ClusterError::Unreachable(root_cause(other)),
    };
    match status.code {
        401 | 403 | 404 => ClusterError::Refused {
            code: status.code,
            message: status.message.clone(),
        },
        _ => ClusterError::Unreachable(status.message.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_a_pod_is_used_only_if_no_kubeconfig_is_meant() {
        let read = |kind| KubeconfigError::ReadConfig(io::Error::from(kind), "config".into());
        let missing = read(io::ErrorKind::NotFound);
        let nothing = Reach::default();
        let context = Reach {
            context: Some("prod".to_owned()),
            ..Reach::default()
        };
        assert!(has_none(&missing, &nothing, false));
        assert!(has_none(&KubeconfigError::FindPath, &nothing, false));
        assert!(!has_none(&missing, &nothing, true));
        assert!(!has_none(&missing, &context, false));
        let denied = read(io::ErrorKind::PermissionDenied);
        assert!(!has_none(&denied, &nothing, false));
        assert!(!has_none(
            &KubeconfigError::CurrentContextNotSet,
            &nothing,
            false
        ));
    }

    #[tokio::test]
    async fn each_request_names_the_user_and_all_groups_that_are_impersonated() {
        let server = wiremock::MockServer::start().await;
        let cases: [(Option<&str>, &[&str]); 4] = [
            (None, &[]),
            (Some("kim"), &[]),
            (Some("kim"), &["on-call"]),
            (Some("kim"), &["on-call", "dev ops", "system:authenticated"]),
        ];
        for (user, groups) in cases {
            let reach = Reach {
                as_user: user.map(str::to_owned),
                as_groups: groups.iter().map(ToString::to_string).collect(),
                ..Reach::default()
            };
            let config = Config::new(server.uri().parse().unwrap());
            let person = Person::with(config, &reach).unwrap();
            server.reset().await;
            let refused = person.get(Kind::Canary, "shop", "web").await;
            assert_eq!(refused.unwrap_err().code(), Some(404));
            let request = server.received_requests().await.unwrap().remove(0);
            let sent = |name: &str| {
                let values = request.headers.get_all(name).iter();
                values
                    .map(|value| value.to_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
            };
            assert_eq!(sent("impersonate-user"), Vec::from_iter(user), "{groups:?}");
            assert_eq!(sent("impersonate-group"), groups);
            assert!(sent("user-agent")[0].starts_with("flagger"), "{request:?}");
        }
    }
}
