//! `flagger check`: looks once at all canaries with plain reads, as the operator would look at them first, and asks which rights it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams},
};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    cache::{Cache, Needed},
    cluster::Cluster,
    leadership::Leadership,
    lease,
    memory::Memory,
    observe::{ObserveError, conflicting_among, observe, parse, snapshot},
    telemetry::Recorder,
};
use crate::{
    api::canary::Canary,
    check::{Report, Right, Row, Scope, Subject, rights},
    rollout::{self, Preview, Verdict, preview},
    snapshot::{Kind, ObjectRef, Settings},
};

/// How many canaries are looked at, and how many rights are asked for, at a time.
const PARALLEL: usize = 8;
/// How many canaries a list brings at a time.
const PAGE: u32 = 100;

/// What would come first for the canaries of a namespace, or of all, with these settings; and what rights are missing, with those for the
/// Lease if it has a namespace. Nothing is written.
///
/// # Errors
/// The canaries cannot be listed, or the API server does not say what is allowed.
pub async fn check(
    client: Client,
    namespace: Option<&str>,
    settings: Settings,
    lease: Option<&str>,
) -> Result<Report, String> {
    let settings = Arc::new(settings);
    let found = list(&client, namespace).await?;
    let all: Vec<_> = found.iter().filter_map(|c| parse(c.clone()).ok()).collect();
    let reads = Reads::new(&client, namespace)?;
    let looks = found.iter().map(async |found| {
        let row = |preview| {
            let field = |path| found.pointer(path).and_then(Value::as_str);
            let text = |path| field(path).unwrap_or_default().to_owned();
            Row {
                namespace: text("/metadata/namespace"),
                name: text("/metadata/name"),
                phase: text("/status/phase"),
                preview,
            }
        };
        let (preview, subject) = reconcile(&reads, &settings, found, &all).await;
        (row(preview), subject)
    });
    let looked: Vec<_> = stream::iter(looks).buffered(PARALLEL).collect().await;
    let (canaries, subjects): (Vec<_>, Vec<_>) = looked.into_iter().unzip();
    let subjects: Vec<_> = subjects.into_iter().flatten().collect();
    let watched = namespace.map_or(Scope::All, |n| Scope::Namespace(n.to_owned()));
    let lease = lease.map(|namespace| (lease::NAME, namespace));
    let missing = missing(&client, rights(&subjects, &watched, lease)).await?;
    Ok(Report { canaries, missing })
}

/// Reads without watches, and without the right to write.
struct Reads {
    cache: Cache,
    /// Whom the cache would tell of changes and of kinds to watch.
    _told: (
        mpsc::UnboundedReceiver<ObjectRef>,
        mpsc::UnboundedReceiver<Kind>,
    ),
}

impl Reads {
    fn new(client: &Client, namespace: Option<&str>) -> Result<Self, String> {
        let meters = Recorder::new().and_then(|recorder| recorder.meters());
        let meters = meters.map_err(|error| format!("metrics: {error}"))?;
        let cluster = Cluster::new(client.clone(), Leadership::never(), meters.clone());
        let (touch, touched) = mpsc::unbounded_channel();
        let needs = Box::new(|_: &Cache, _: &ObjectRef| Needed::default());
        let (cache, kinds) = Cache::new(client.clone(), cluster, meters, namespace, needs, touch);
        Ok(Self {
            cache,
            _told: (touched, kinds),
        })
    }
}

/// All canaries of a namespace, or of all, by namespace and name.
async fn list(client: &Client, namespace: Option<&str>) -> Result<Vec<Value>, String> {
    let (group, version) = Kind::Canary.group_version();
    let gvk = GroupVersionKind::gvk(group, version, Kind::Canary.name());
    let resource = ApiResource::from_gvk_with_plural(&gvk, Kind::Canary.plural());
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(|error| {
            format!("canaries cannot be listed (see -namespace and -kubeconfig): {error}")
        })?;
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        for canary in page.items {
            found.push(serde_json::to_value(canary).map_err(|error| error.to_string())?);
        }
        if params.continue_token.is_none() {
            return Ok(found);
        }
    }
}

/// What would come first for a canary, and what it names, as far as that can be told.
async fn reconcile(
    reads: &Reads,
    settings: &Arc<Settings>,
    found: &Value,
    all: &[Canary],
) -> (Preview, Option<Subject>) {
    let canary = match parse(found.clone()) {
        Ok(canary) => canary,
        Err(problem) => return (unreadable(&problem), None),
    };
    let reference = ObjectRef {
        kind: Kind::Canary,
        namespace: canary.metadata.namespace.clone().unwrap_or_default(),
        name: canary.metadata.name.clone().unwrap_or_default(),
    };
    let memory = Mutex::new(Memory::default());
    let seen = observe(&reads.cache, settings, &reference, &memory, None).await;
    match seen {
        Ok(Some(mut snapshot)) => {
            let others = all.iter().filter(|other| {
                other.metadata.namespace == canary.metadata.namespace
                    && other.metadata.name != canary.metadata.name
            });
            snapshot.conflicting_canary = conflicting_among(&snapshot, others.cloned());
            let objects = rollout::needs(&snapshot);
            let canary = snapshot.canary.clone();
            (preview(&snapshot), Some(Subject { canary, objects }))
        }
        Ok(None) => (Preview::new(Verdict::Nothing, "deleted meanwhile"), None),
        Err(problem) => {
            let objects = rollout::needs(&snapshot(canary.clone(), &reference, settings));
            (unreadable(&problem), Some(Subject { canary, objects }))
        }
    }
}

fn unreadable(problem: &ObserveError) -> Preview {
    let why = match problem {
        ObserveError::Poison { error, .. } => error.to_string(),
        ObserveError::Cluster(error) => error.to_string(),
    };
    Preview::new(Verdict::Unreadable, why)
}

/// The rights that this account lacks.
async fn missing(
    client: &Client,
    rights: BTreeMap<Right, BTreeSet<Scope>>,
) -> Result<Vec<(Right, Scope)>, String> {
    let asked = rights.into_iter().map(async |(right, scopes)| {
        let mut missing = Vec::new();
        // What is allowed everywhere is allowed in each.
        if scopes.is_empty() || is_allowed(client, &right, &Scope::All).await? {
            return Ok(missing);
        }
        for scope in scopes {
            if scope == Scope::All || !is_allowed(client, &right, &scope).await? {
                missing.push((right, scope));
            }
        }
        Ok::<_, String>(missing)
    });
    let missing: Vec<_> = stream::iter(asked).buffered(PARALLEL).try_collect().await?;
    Ok(missing.into_iter().flatten().collect())
}

async fn is_allowed(client: &Client, right: &Right, scope: &Scope) -> Result<bool, String> {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (right.resource, None),
    };
    let attributes = ResourceAttributes {
        group: Some(right.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        name: right.name.map(str::to_owned),
        namespace: scope.namespace().map(str::to_owned),
        verb: Some(right.verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = api
        .create(&PostParams::default(), &review)
        .await
        .map_err(|error| {
            format!("the API server does not say whether {right} is allowed: {error}")
        })?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
