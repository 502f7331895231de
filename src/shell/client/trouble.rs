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
        let object = self.object();
        let place = self
            .namespace
            .map_or("-A".to_owned(), |namespace| format!("-n {namespace}"));
        let (verb, kubectl) = (self.verb, &self.typed.kubectl);
        match error.code() {
            Some(401) => Stop::because(
                Code::Usage,
                format!(
                    "cannot {verb} {object}: the API server does not accept the login of the kubeconfig, which may have expired: {why}\nLog in again, then try: {kubectl} auth whoami"
                ),
            ),
            Some(403) => Stop::because(
                Code::Forbidden,
                format!(
                    "cannot {verb} {object}: {why}\nSee what you may do: {kubectl} auth can-i --list {place}\nA RoleBinding to the ClusterRole {} of kustomize/actions grants what this command needs",
                    role(verb)
                ),
            ),
            Some(404)
                if self.canary.is_some()
                    && why.contains("not found")
                    && !why.contains("page not found") =>
            {
                self.missing()
            }
            Some(404) => Stop::because(
                Code::NotFound,
                format!(
                    "this cluster has no Canaries: {why}\nInstall their kind: flagger crds | {kubectl} apply --server-side -f -"
                ),
            ),
            Some(429 | 500..) => Stop::because(
                Code::Undecided,
                format!(
                    "cannot {verb} {object} now: {why}\nTry again later, or see how the API server is: {kubectl} get --raw /readyz"
                ),
            ),
            // An API server that accepts only TLS answers 400 to a request without TLS.
            Some(400) if why.contains("HTTPS server") => Stop::because(
                Code::Usage,
                format!(
                    "cannot {verb} {object}: {why}\nLook at the address of the API server: {kubectl} config view"
                ),
            ),
            Some(400) => Stop::because(Code::Usage, format!("cannot {verb} {object}: {why}")),
            None if why.contains("certificate") => Stop::because(
                Code::Usage,
                format!(
                    "cannot {verb} {object}: {why}\nLook at the certificates of the cluster and of the user: {kubectl} config view"
                ),
            ),
            Some(_) => Stop::because(Code::No, format!("cannot {verb} {object}: {why}")),
            None => Stop::because(
                Code::Undecided,
                format!(
                    "cannot {verb} {object}: {why}\nSee whether the API server answers: {kubectl} cluster-info"
                ),
            ),
        }
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
        ] {
            let message = "refused".to_owned();
            let stop = wanted.failed(&ClusterError::Refused { code, message });
            assert!(
                matches!(&stop, Stop::Trouble(trouble) if trouble.code == expected),
                "{code}: {stop:?}"
            );
        }
        let message = "denied".to_owned();
        let stop = wanted.failed(&ClusterError::Refused { code: 403, message });
        // Without the flag, the command would ask another cluster.
        let command = "kubectl --context prod auth can-i --list -n test";
        assert!(matches!(&stop, Stop::Trouble(trouble) if trouble.message.contains(command)));
    }
}
