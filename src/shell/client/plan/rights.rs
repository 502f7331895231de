//! The rights of the person, and of the operator's account.

use k8s_openapi::api::authorization::v1::ResourceAttributes;

use super::Planning;
use crate::{
    check::{Scope, rights},
    plan::{MissingRight, YOU},
    shell::check::{attributes, missing_rights, subject},
    snapshot::{Kind, ObjectRef, Snapshot},
};

impl Planning<'_> {
    /// Whether the person has a right. Without an answer the right counts as missing, because the API server has already refused a request.
    pub(super) async fn may(&self, verb: &str, object: &ObjectRef) -> bool {
        let (group, _) = object.kind.group_version();
        let right = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(object.kind.plural().to_owned()),
            name: Some(object.name.clone()).filter(|_| verb != "create"),
            namespace: Some(object.namespace.clone()),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        self.context.person.i_may(right).await.unwrap_or(false)
    }

    /// A right about Canaries that the person lacks.
    pub(super) fn right_of_person(&self, verb: &str, resource: &str) -> MissingRight {
        let (group, _) = Kind::Canary.group_version();
        MissingRight {
            who: YOU.to_owned(),
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: Some(self.canary.namespace.clone()),
        }
    }

    /// Asks which rights the operator's account lacks.
    pub(super) async fn account(&mut self, snapshot: &Snapshot) {
        let Some(account) = &self.args.account else {
            return;
        };
        let watched = self.config.watched.namespace.clone();
        let watched = watched.map_or(Scope::All, Scope::Namespace);
        let needed = rights(
            &[subject(snapshot)],
            &watched,
            None,
            self.config.release_history > 0,
        );
        let (namespace, name) = (account.namespace.as_str(), account.name.as_str());
        let person = &self.context.person;
        let missing = missing_rights(needed, async |right, scope| {
            person
                .may((namespace, name), attributes(right, scope))
                .await
        });
        match missing.await {
            Ok(missing) => {
                let who = format!("system:serviceaccount:{namespace}:{name}");
                let missing = missing.iter();
                let missing = missing.map(|(right, scope)| MissingRight::of(&who, right, scope));
                self.plan.missing_rights.extend(missing);
            }
            Err(error) => {
                let why = format!("the rights of account {namespace}/{name}: {error}");
                self.plan.not_checked.push(why);
            }
        }
    }
}
