//! The reasons why a command cannot be carried out. Each names the error, the object, and the command to type next.

use std::io;

use crate::{
    cli::client::Code,
    shell::api_server::{ClusterError, person::NoConnection},
    view::{Typed, text::clean},
};

/// The reason why a command ends early.
#[derive(Debug)]
pub enum Stop {
    /// The command cannot be carried out.
    Trouble(Trouble),
    /// The reader of its output has closed the pipe.
    BrokenPipe,
}

/// A command that cannot be carried out.
#[derive(Debug)]
pub struct Trouble {
    /// The exit code.
    pub code: Code,
    /// The reason, and what to do.
    pub message: String,
}

impl Stop {
    /// A command that cannot be carried out, for this reason.
    pub fn because(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Trouble(Trouble { code, message })
    }

    /// A command that cannot connect to the API server.
    pub fn unconnected(error: &NoConnection, Typed { kubectl, .. }: &Typed) -> Self {
        let (what, next) = match error {
            NoConnection::Kubeconfig(_) => ("the kubeconfig cannot be used", "config view"),
            NoConnection::Login { .. } => ("the login of the kubeconfig fails", "auth whoami"),
        };
        let why = clean(&error.reason());
        Self::because(
            Code::Usage,
            format!("{what}: {why}\nLook at it: {kubectl} {next}"),
        )
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::because(
            Code::Undecided,
            format!("the output cannot be written: {error}"),
        )
    }
}

/// The request that a command sent to the API server.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The verb of RBAC.
    pub verb: &'a str,
    /// The namespace; `None` means all.
    pub namespace: Option<&'a str>,
    /// The Canary; `None` means all.
    pub canary: Option<&'a str>,
    /// The beginnings of the commands that a message tells to type.
    pub typed: &'a Typed,
}

impl Wanted<'_> {
    /// The reason why a command ends, after this answer.
    pub fn failed(&self, error: &ClusterError) -> Stop {
        let why = clean(&error.to_string());
        let (verb, kubectl) = (self.verb, &self.typed.kubectl);
        let is_missing = why.contains("not found") && !why.contains("page not found");
        let config = format!("Look at it: {kubectl} config view");
        let (code, why, next) = match error.code() {
            Some(401) => (
                Code::Usage,
                format!(
                    "the API server does not accept the login of the kubeconfig, which may have expired: {why}"
                ),
                format!("Log in again, then try: {kubectl} auth whoami"),
            ),
            Some(403) => {
                let next = self.rights(&why);
                (Code::Forbidden, why, next)
            }
            Some(404) if self.canary.is_some() && is_missing => return self.missing(),
            Some(404) => (
                Code::NotFound,
                format!("this cluster has no Canaries: {why}"),
                format!("Install their kind: flagger crds | {kubectl} apply --server-side -f -"),
            ),
            Some(429 | 500..) => (
                Code::Undecided,
                why,
                format!(
                    "Try again later, or see how the API server is: {kubectl} get --raw /readyz"
                ),
            ),
            // An API server that accepts only TLS answers 400 to a request without TLS.
            Some(400) if why.contains("HTTPS server") => (
                Code::Usage,
                format!("the address of the kubeconfig is wrong: {why}"),
                config,
            ),
            Some(400) => (Code::Usage, why, String::new()),
            Some(_) => (Code::No, why, String::new()),
            None if why.contains("certificate") => (
                Code::Usage,
                format!("the certificates of the kubeconfig do not fit: {why}"),
                config,
            ),
            None => (
                Code::Undecided,
                why,
                format!("See whether the API server answers: {kubectl} cluster-info"),
            ),
        };
        let text = format!("cannot {verb} {}: {why}\n{next}", self.object());
        Stop::because(code, text.trim_end())
    }

    /// The advice after a refusal for lack of rights.
    fn rights(&self, why: &str) -> String {
        if why.contains("impersonate") {
            return "You may not act as another user. Leave out --as, --as-group and --as-uid, and see who you are: kubectl auth whoami".to_owned();
        }
        let kubectl = &self.typed.kubectl;
        let place = self
            .namespace
            .map_or("-A".to_owned(), |namespace| format!("-n {namespace}"));
        format!(
            "See what you may do: {kubectl} auth can-i --list {place}\nA RoleBinding to the ClusterRole {} of kustomize/actions grants what this command needs",
            role(self.verb)
        )
    }

    /// There is no such Canary.
    pub fn missing(&self) -> Stop {
        let object = self.object();
        let program = &self.typed.flagger;
        Stop::because(
            Code::NotFound,
            format!("{object} does not exist\nSee which there are: {program} list -A"),
        )
    }

    fn object(&self) -> String {
        match (self.namespace, self.canary) {
            (Some(namespace), Some(canary)) => format!("canary {namespace}/{canary}"),
            (Some(namespace), None) => format!("the canaries of namespace {namespace}"),
            (None, _) => "the canaries of all namespaces".to_owned(),
        }
    }
}

/// The role that grants a verb.
fn role(verb: &str) -> &'static str {
    if ["promote", "skip", "retry"].contains(&verb) {
        "flagger-release-manager"
    } else {
        "flagger-on-call"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_that_cannot_answer_now_decides_nothing() {
        let flags = ["--context prod".to_owned()];
        let typed = Typed::new("kubectl flagger", &flags);
        let wanted = Wanted {
            verb: "get",
            namespace: Some("test"),
            canary: Some("podinfo"),
            typed: &typed,
        };
        for (code, expected) in [
            (401, Code::Usage),
            (403, Code::Forbidden),
            (422, Code::No),
            (429, Code::Undecided),
            (500, Code::Undecided),
            (503, Code::Undecided),
            (400, Code::Usage),
        ] {
            let message = "refused".to_owned();
            let stop = wanted.failed(&ClusterError::Refused { code, message });
            assert!(
                matches!(&stop, Stop::Trouble(trouble) if trouble.code == expected),
                "{code}: {stop:?}"
            );
        }
        let message = "users \"bob\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope".to_owned();
        let stop = wanted.failed(&ClusterError::Refused { code: 403, message });
        assert!(
            matches!(&stop, Stop::Trouble(trouble) if trouble.message.ends_with("kubectl auth whoami") && !trouble.message.contains("RoleBinding")),
            "{stop:?}"
        );
        for (why, expected) in [
            ("invalid peer certificate: UnknownIssuer", Code::Usage),
            ("connection refused", Code::Undecided),
        ] {
            let stop = wanted.failed(&ClusterError::Unreachable(why.to_owned()));
            assert!(
                matches!(&stop, Stop::Trouble(trouble) if trouble.code == expected),
                "{why}: {stop:?}"
            );
        }
        let message = "denied".to_owned();
        let stop = wanted.failed(&ClusterError::Refused { code: 403, message });
        // Without the flag, the command would ask another cluster.
        let command = "kubectl --context prod auth can-i --list -n test";
        assert!(matches!(&stop, Stop::Trouble(trouble) if trouble.message.contains(command)));
    }
}
