//! `plan` writes nothing, and shows what the operator would write, also to users with few rights.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testbed::{folder::Folder, wait::until};

use super::{Outcome, PATIENCE, Scenario, client::Finished, ensure, text, workload};
use crate::files;

/// The kinds of objects that a plan is about.
const KINDS: &str = "canaries,deployments,services,horizontalpodautoscalers,virtualservices,destinationrules,httproutes,configmaps,secrets";

pub async fn a_plan_shows_the_writes_of_the_operator_and_makes_none(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"stepWeight": 20, "maxWeight": 60}))
        .await?;
    s.roles().await?;
    let folder = Folder::new().map_err(text)?;
    // Waits until the outcome of the initialization is recorded, and the pods of the target are gone.
    until(PATIENCE, "an idle canary", async || {
        let (first, planned) = (
            s.resource_versions().await?,
            s.planned("kim", &["podinfo"]).await?,
        );
        let is_idle = planned.json["items"][0]["then"] == "nothing";
        let is_still = first == s.resource_versions().await?;
        (is_idle && is_still)
            .then_some(())
            .ok_or_else(|| planned.to_string())
    })
    .await
    .map_err(text)?;
    let before = s.resource_versions().await?;

    let idle = s.planned("kim", &["podinfo"]).await?;
    ensure(
        idle.code == 0 && idle.json["items"][0]["then"] == "nothing",
        &idle,
    )?;
    ensure(idle.changes() == Vec::<String>::new(), &idle)?;
    let metric = &idle.json["items"][0]["metrics"][0];
    let query = metric["query"].as_str().unwrap_or_default();
    ensure(
        query.contains("istio_requests_total") && query.contains(&s.ns),
        &idle,
    )?;
    ensure(
        metric["value"].is_null() && metric["notAsked"].is_string(),
        &idle,
    )?;

    s.of_an_edit(&folder).await?;
    s.of_a_new_canary(&folder).await?;
    s.of_a_route_of_the_user(&folder).await?;
    s.of_what_is_in_the_way(&folder).await?;
    s.of_few_rights(&folder).await?;

    let after = s.resource_versions().await?;
    ensure(before == after, format!("{before:?} is now {after:?}"))
}

/// A plan as JSON.
#[derive(Debug)]
struct Planned {
    code: i32,
    json: Value,
    stderr: String,
}

impl std::fmt::Display for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {:#} {}", self.code, self.json, self.stderr)
    }
}

impl Planned {
    /// The writes, each as `VERB KIND NAME BY`.
    fn changes(&self) -> Vec<String> {
        let changes = self.json["items"][0]["changes"].as_array();
        let word =
            |change: &Value, field: &str| change[field].as_str().unwrap_or_default().to_owned();
        let changes = changes.into_iter().flatten();
        let fields = ["verb", "kind", "name", "by"];
        changes
            .map(|change| fields.map(|field| word(change, field)).join(" "))
            .collect()
    }

    fn has(&self, field: &str, part: &str) -> bool {
        self.json["items"][0][field].to_string().contains(part)
    }
}

impl Scenario<'_> {
    /// User `kim` may do everything in the namespace, and may ask for the rights of other accounts. User `lee` may only read Canaries and
    /// Deployments.
    async fn roles(&self) -> Outcome {
        let ns = ["-n", &self.ns];
        let delegator = format!("plan-{}", self.ns);
        for args in [
            &[
                "create",
                "rolebinding",
                "kim",
                "--clusterrole=cluster-admin",
                "--user=kim",
            ][..],
            &[
                "create",
                "clusterrolebinding",
                &delegator,
                "--clusterrole=system:auth-delegator",
                "--user=kim",
            ],
            &[
                "create",
                "role",
                "lee",
                "--verb=get,list",
                "--resource=canaries.flagger.app,deployments.apps",
            ],
            &["create", "rolebinding", "lee", "--role=lee", "--user=lee"],
        ] {
            let args = [&ns[..], args].concat();
            self.rig.bed.kubectl(&args).await.map_err(text)?;
        }
        Ok(())
    }

    async fn planned(&self, user: &str, args: &[&str]) -> Result<Planned, String> {
        let args = [&["plan", "-o", "json"], args].concat();
        let Finished {
            code,
            stdout,
            stderr,
        } = self.by(user, &args).await?;
        let json =
            serde_json::from_str(&stdout).map_err(|why| format!("{why}: {stdout} {stderr}"))?;
        Ok(Planned { code, json, stderr })
    }

    /// The resourceVersion of each object. Of an autoscaler it is the spec: its controller writes the status at any time.
    async fn resource_versions(&self) -> Result<BTreeMap<String, String>, String> {
        let args = ["-n", &self.ns, "get", KINDS, "-o", "json"];
        let listed = self.rig.bed.kubectl(&args).await.map_err(text)?;
        let listed: Value = serde_json::from_str(&listed).map_err(text)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let objects = listed["items"].as_array().into_iter().flatten();
        Ok(objects
            .map(|object| {
                let name = format!(
                    "{} {}",
                    text(&object["kind"]),
                    text(&object["metadata"]["name"])
                );
                let version = match object["kind"].as_str() {
                    Some("HorizontalPodAutoscaler") => object["spec"].to_string(),
                    _ => text(&object["metadata"]["resourceVersion"]),
                };
                (name, version)
            })
            .collect())
    }

    fn file(&self, folder: &Folder, objects: &[Value]) -> Result<String, String> {
        let path = folder.path().join("manifests.yaml");
        let documents: Vec<_> = objects.iter().map(Value::to_string).collect();
        std::fs::write(&path, documents.join("\n---\n")).map_err(text)?;
        Ok(path.display().to_string())
    }

    /// A changed Canary and a new image: the route is repaired, then a run starts.
    async fn of_an_edit(&self, folder: &Folder) -> Outcome {
        let mut canary = self.canary_named("podinfo", json!({"stepWeight": 25, "maxWeight": 60}));
        canary["spec"]["service"]["timeout"] = json!("7s");
        let mut target = workload()[0].clone();
        target["spec"]["template"]["spec"]["containers"][0]["image"] = json!("podinfo:3.1.1");
        let file = self.file(folder, &[canary, target])?;
        let planned = self.planned("kim", &["-f", &file]).await?;
        ensure(
            planned.code == 0
                && planned.changes()
                    == [
                        "update Canary podinfo you",
                        "update VirtualService podinfo operator",
                    ],
            &planned,
        )?;
        let changes = &planned.json["items"][0]["changes"];
        let has = |at: usize, line: &str| {
            changes[at]["diff"]
                .as_str()
                .unwrap_or_default()
                .contains(line)
        };
        ensure(
            has(0, "\n-    stepWeight: 20\n+    stepWeight: 25\n"),
            &planned,
        )?;
        ensure(
            has(1, "\n+    timeout: 7s\n") && has(1, "+++ planned/VirtualService/"),
            &planned,
        )?;
        let then = planned.json["items"][0]["then"]
            .as_str()
            .unwrap_or_default();
        ensure(
            then.starts_with("repairs: VirtualService podinfo") && then.ends_with("starts a run"),
            &planned,
        )
    }

    /// A Canary that comes with its target.
    async fn of_a_new_canary(&self, folder: &Folder) -> Outcome {
        let mut target = workload()[0].clone();
        target["metadata"]["name"] = json!("shop");
        for labels in [
            "/metadata/labels",
            "/spec/selector/matchLabels",
            "/spec/template/metadata/labels",
        ] {
            target.pointer_mut(labels).unwrap()["app"] = json!("shop");
        }
        let canary = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "shop"},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}, "service": {"port": 80},
                "analysis": {"interval": "1m", "threshold": 2, "stepWeight": 10, "maxWeight": 50}}});
        let file = self.file(folder, &[target, canary])?;
        let args = ["-f", &file, "--account", "istio-system/flagger"];
        let planned = self.planned("kim", &args).await?;
        ensure(
            planned.code == 0 && planned.has("then", "initializes the canary"),
            &planned,
        )?;
        let changes = planned.changes();
        ensure(changes[0] == "create Canary shop you", &planned)?;
        for change in [
            "create Service shop operator",
            "create Service shop-canary operator",
            "create Service shop-primary operator",
            "create Deployment shop-primary operator",
            "create DestinationRule shop-canary operator",
            "create VirtualService shop operator",
            "update Deployment shop operator",
        ] {
            ensure(
                changes.iter().any(|it| it == change),
                format!("no {change} in {planned}"),
            )?;
        }
        ensure(
            planned.json["items"][0]["notChecked"] == json!([]),
            &planned,
        )?;
        // An account without any rights.
        let args = ["-f", &file, "--account", "default/default"];
        let planned = self.planned("kim", &args).await?;
        ensure(planned.code == 1, &planned)?;
        ensure(
            planned.has("missingRights", "system:serviceaccount:default:default"),
            &planned,
        )?;
        let shown = self.by("kim", &["plan", "-f", &file]).await?;
        ensure(
            shown.code == 0
                && shown.stdout.contains("\n+  name: shop-primary\n")
                && !shown.stdout.contains('\u{1b}'),
            &shown,
        )?;
        let colored = self
            .by("kim", &["plan", "-f", &file, "--color", "always"])
            .await?;
        ensure(
            colored
                .stdout
                .contains("\u{1b}[32m+  name: shop-primary\u{1b}[0m"),
            &colored,
        )
    }

    /// The route is in the same files as the Canary, and then in the cluster.
    async fn of_a_route_of_the_user(&self, folder: &Folder) -> Outcome {
        let example =
            |file: &str| files::objects(&files::path("examples/gitops").join(file)).remove(0);
        let [mut route, mut canary] = ["route.yaml", "canary.yaml"].map(example);
        let mut target = workload()[0].clone();
        canary["spec"]["targetRef"]["name"] = json!("shop");
        canary["spec"]["service"]["name"] = json!("podinfo-of-shop");
        canary["spec"]
            .as_object_mut()
            .ok_or("no spec")?
            .remove("autoscalerRef");
        canary["metadata"]["name"] = json!("shop");
        target["metadata"]["name"] = json!("shop");
        for labels in [
            "/metadata/labels",
            "/spec/selector/matchLabels",
            "/spec/template/metadata/labels",
        ] {
            target.pointer_mut(labels).unwrap()["app"] = json!("shop");
        }
        for (place, name) in ["podinfo-of-shop", "podinfo-of-shop-canary"]
            .iter()
            .enumerate()
        {
            route["spec"]["rules"][0]["backendRefs"][place]["name"] = json!(name);
        }
        for object in [&mut route, &mut canary, &mut target] {
            object["metadata"]["namespace"] = json!(self.ns);
        }
        let account = ["--account", "istio-system/flagger"];
        let file = self.file(folder, &[target.clone(), canary.clone(), route.clone()])?;
        let args = [&["-f", &file][..], &account].concat();
        let planned = self.planned("kim", &args).await?;
        let is_shown = |planned: &Planned| {
            let step = &planned.json["items"][0]["firstStep"][0];
            let diff = step["diff"].as_str().unwrap_or_default();
            let weights = [
                "-      weight: 100\n",
                "+      weight: 90\n",
                "-      weight: 0\n",
                "+      weight: 10\n",
            ];
            step["kind"] == "HTTPRoute" && weights.iter().all(|line| diff.contains(line))
        };
        ensure(planned.code == 0 && is_shown(&planned), &planned)?;
        ensure(
            planned.json["items"][0]["firstStep"][0]["untried"].is_string(),
            &planned,
        )?;

        self.apply(&route).await?;
        let file = self.file(folder, &[target.clone(), canary.clone()])?;
        let args = [&["-f", &file][..], &account].concat();
        let planned = self.planned("kim", &args).await?;
        ensure(planned.code == 0 && is_shown(&planned), &planned)?;
        ensure(
            planned.json["items"][0]["firstStep"][0]["untried"].is_null(),
            &planned,
        )?;

        canary["spec"]["service"]["routeRefs"][0]["rules"] = json!(["web"]);
        let file = self.file(folder, &[target, canary])?;
        let planned = self.planned("kim", &["-f", &file]).await?;
        ensure(
            planned.code == 1 && planned.has("problems", "has no rule named web"),
            &planned,
        )?;
        self.delete("httproute", "shop").await
    }

    /// A plan names the reason for which the API server or the operator would refuse the Canary.
    async fn of_what_is_in_the_way(&self, folder: &Folder) -> Outcome {
        let second = self.canary_named("zeta", json!({"stepWeight": 20}));
        let file = self.file(folder, &[second])?;
        let planned = self.planned("kim", &["-f", &file]).await?;
        ensure(
            planned.code == 1 && planned.has("problems", "has the same target"),
            &planned,
        )?;
        let conflicts = &planned.json["items"][0]["conflicts"];
        let expected =
            json!([{"canary": "podinfo", "object": "Deployment podinfo", "notRun": "zeta"}]);
        ensure(
            *conflicts == expected && planned.changes().len() == 1,
            &planned,
        )?;

        let mut unknown = self.canary_named("podinfo", json!({"stepWeight": 20}));
        unknown["spec"]["analysis"]["stepWeigth"] = json!(30);
        let file = self.file(folder, &[unknown])?;
        let planned = self.planned("kim", &["-f", &file]).await?;
        ensure(
            planned.code == 1 && planned.has("changes", "stepWeigth"),
            &planned,
        )?;

        let mut missing = self.canary_named("omega", json!({"stepWeight": 20}));
        let spec = missing["spec"].as_object_mut().ok_or("no spec")?;
        spec.remove("autoscalerRef");
        missing["spec"]["targetRef"]["name"] = json!("omega");
        let file = self.file(folder, &[missing])?;
        let planned = self.planned("kim", &["-f", &file]).await?;
        ensure(
            planned.code == 1 && planned.has("problems", "not found"),
            &planned,
        )?;
        let nothing = self.by("kim", &["plan", "omega"]).await?;
        ensure(nothing.code == 5, &nothing)
    }

    /// For a user with few rights, the plan names what it does not know, and why.
    async fn of_few_rights(&self, folder: &Folder) -> Outcome {
        let canary = self.canary_named("podinfo", json!({"stepWeight": 25}));
        let file = self.file(folder, &[canary])?;
        let planned = self.planned("lee", &["-f", &file]).await?;
        ensure(planned.code == 6, &planned)?;
        for right in [("patch", "canaries"), ("get", "services")] {
            let rights = planned.json["items"][0]["missingRights"].as_array();
            let is_reported = rights.into_iter().flatten().any(|it| {
                (it["who"] == "you") && (it["verb"] == right.0) && (it["resource"] == right.1)
            });
            ensure(is_reported, format!("no {right:?} in {planned}"))?;
        }
        ensure(
            planned.has("notChecked", "which you may not read"),
            &planned,
        )?;
        ensure(planned.json["items"][0]["problems"] == json!([]), &planned)?;
        let nobody = self.by("mallory", &["plan", "podinfo"]).await?;
        ensure(
            nobody.code == 6
                && nobody
                    .stderr
                    .contains(" --as mallory auth can-i --list -n "),
            &nobody,
        )
    }
}
