//! The tutorials that begin with another tool: the commands of the documents are run as they are written, in their order, with their manifests.
//! Only the namespace, the interval between two steps and the requests differ.

use std::{collections::VecDeque, path::Path};

use flagger_rs::snapshot::Kind;
use serde_json::{Value, json};
use testbed::{folder::Folder, wait::until};

use super::{Outcome, PATIENCE, Scenario, ensure, text};
use crate::files;

/// The kind `Rollout`, as far as the tutorial needs it.
const ROLLOUTS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: rollouts.argoproj.io}
spec:
  group: argoproj.io
  scope: Namespaced
  names: {kind: Rollout, plural: rollouts, singular: rollout}
  versions:
    - name: v1alpha1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

/// The commands of a document that were not run yet.
struct Tutorial<'a> {
    s: &'a Scenario<'a>,
    commands: VecDeque<String>,
    folder: Folder,
}

impl<'a> Tutorial<'a> {
    fn read(s: &'a Scenario<'a>, document: &str) -> Result<Self, String> {
        let document = std::fs::read_to_string(files::path(document)).map_err(text)?;
        let blocks = document.split("\n```\n").skip(1).step_by(2);
        let commands: VecDeque<_> = blocks.flat_map(str::lines).map(str::to_owned).collect();
        ensure(commands.len() > 5, format!("{commands:?}"))?;
        Ok(Self {
            s,
            commands,
            folder: Folder::new().map_err(text)?,
        })
    }

    /// Takes the next command of the document, which must be this one.
    fn take(&mut self, command: &str) -> Outcome {
        let next = self.commands.pop_front();
        let is_next = next.as_deref() == Some(command);
        ensure(is_next, format!("{next:?} is next, not {command}"))
    }

    /// Runs the next command of the document, which must be this one, with these further arguments. Returns its output.
    async fn run_with(&mut self, command: &str, further: &[&str]) -> Result<String, String> {
        self.take(command)?;
        let command_line = command.replace('\'', "");
        let words = command_line.split(' ');
        let mut args = Vec::new();
        let mut before = "";
        for word in words.skip(1) {
            args.push(match before {
                "-n" => self.s.ns.clone(),
                "-f" => self.applied(word)?,
                "-k" => files::path(word).display().to_string(),
                _ => word.to_owned(),
            });
            before = word;
        }
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        if args[0] == "flagger" {
            let done = self.s.by("kim", &args[1..]).await?;
            ensure(done.code == 0, &done)?;
            return Ok(done.stdout);
        }
        let output = self.s.rig.bed.kubectl(&[&args, further].concat()).await;
        output.map_err(|error| format!("{command}: {error}"))
    }

    async fn run(&mut self, command: &str) -> Result<String, String> {
        self.run_with(command, &[]).await
    }

    /// The API server accepts the next command, but does not carry it out.
    async fn try_out(&mut self, command: &str) -> Outcome {
        let output = self.run_with(command, &["--dry-run=server"]).await?;
        ensure(output.contains("(server dry run)"), output)
    }

    /// A file of the tutorial, for the namespace of the scenario.
    fn applied(&self, file: &str) -> Result<String, String> {
        let mut objects = files::objects(&files::path(file));
        for object in &mut objects {
            object["metadata"]["namespace"] = json!(self.s.ns);
            if object["kind"] == "Canary" {
                let analysis = &mut object["spec"]["analysis"];
                analysis["interval"] = json!("10s");
                // The load tester sends the requests.
                analysis["webhooks"] = json!([{"name": "load-test", "url": format!("http://hooks/{}/load", self.s.ns),
                    "timeout": "5s", "metadata": {"cmd": "hey"}}]);
            }
        }
        let name = Path::new(file).file_name().unwrap_or_default();
        let path = self.folder.path().join(name);
        let texts: Vec<_> = objects.iter().map(Value::to_string).collect();
        std::fs::write(&path, texts.join("\n---\n")).map_err(text)?;
        Ok(path.display().to_string())
    }

    /// Applies a file that the reader of the tutorial has applied before.
    async fn before(&self, file: &str) -> Outcome {
        let file = self.applied(file)?;
        let applied = self.s.rig.bed.kubectl(&["apply", "-f", &file]).await;
        applied.map(drop).map_err(text)
    }

    /// The document has no further command.
    fn end(self) -> Outcome {
        ensure(self.commands.is_empty(), format!("{:?}", self.commands))
    }
}

impl Scenario<'_> {
    /// User `kim` may do everything in the namespace.
    async fn may_everything(&self) -> Outcome {
        let role = ["--clusterrole=cluster-admin", "--user=kim"];
        let args = [&["-n", &self.ns, "create", "rolebinding", "kim"], &role[..]].concat();
        self.rig.bed.kubectl(&args).await.map(drop).map_err(text)
    }

    /// Waits for these weights of the first rule of an HTTPRoute.
    async fn has_weights(&self, route: &str, expected: [u64; 2]) -> Outcome {
        let what = format!("the weights {expected:?}");
        until(PATIENCE, &what, async || {
            let route = self.get(Kind::HttpRoute, route).await?;
            let backends = &route["spec"]["rules"][0]["backendRefs"];
            let found = json!([backends[0]["weight"], backends[1]["weight"]]);
            (found == json!(expected))
                .then_some(())
                .ok_or(found.to_string())
        })
        .await
        .map_err(text)
    }

    /// The steps until the Canary changes.
    async fn a_route_beside_the_ingress(&self, tutorial: &mut Tutorial<'_>) -> Outcome {
        tutorial
            .try_out("kubectl apply -k examples/from-ingress-nginx/operator")
            .await?;
        tutorial
            .run("kubectl apply -f examples/from-ingress-nginx/route.yaml")
            .await?;
        // No gateway runs here.
        let accepted = "kubectl -n test get httproute web -o jsonpath='{.status.parents[*].conditions[?(@.type==\"Accepted\")].status}'";
        tutorial.run(accepted).await?;
        tutorial.take("curl --resolve app.example.com:80:GATEWAY http://app.example.com/")?;
        let plan = tutorial
            .run("kubectl flagger -n test plan -f examples/from-ingress-nginx/canary.yaml")
            .await?;
        for part in [
            "-  ingressRef:",
            "+    routeRefs:",
            "first step",
            "+      weight: 90",
        ] {
            ensure(plan.contains(part), format!("no {part:?} in {plan}"))?;
        }
        Ok(())
    }

    /// The operator notes the route in the status before it sets weights.
    async fn has_noted_the_route(&self) -> Outcome {
        until(PATIENCE, "the route in the status", async || {
            let canary = self.get(Kind::Canary, "podinfo").await?;
            let status = canary["status"].to_string();
            let is_noted = status.contains("RouteRefs") && canary["spec"]["ingressRef"].is_null();
            is_noted.then_some(()).ok_or(status)
        })
        .await
        .map_err(text)
    }

    /// The part of the spec of a Deployment whose change restarts pods, and its replicas.
    async fn pods_of(&self, deployment: &str) -> Result<[Value; 2], String> {
        let mut object = self.get(Kind::Deployment, deployment).await?;
        Ok(["template", "replicas"].map(|field| object["spec"][field].take()))
    }
}

pub async fn a_canary_of_ingress_nginx_moves_to_gateway_api(s: Scenario<'_>) -> Outcome {
    s.may_everything().await?;
    // The namespace of ingress-nginx.
    let namespace = ["create", "namespace", "ingress-nginx"];
    s.rig.bed.kubectl(&namespace).await.map_err(text)?;
    let mut tutorial = Tutorial::read(&s, "examples/from-ingress-nginx/README.md")?;
    s.podinfo().await?;
    tutorial.before("examples/tutorial/nginx.yaml").await?;
    tutorial.before("examples/canaries/nginx.yaml").await?;
    s.phase("Initialized").await?;
    let primary = s.pods_of("podinfo-primary").await?;
    s.a_route_beside_the_ingress(&mut tutorial).await?;
    let seen = s.table().len();
    tutorial
        .run("kubectl apply -f examples/from-ingress-nginx/canary.yaml")
        .await?;
    s.has_noted_the_route().await?;
    let table = s.table();
    ensure(table[seen..].is_empty(), format!("{table:?}"))?;
    let now = s.pods_of("podinfo-primary").await?;
    ensure(now == primary, format!("{primary:?} is now {now:?}"))?;
    // Both gateways lead to the primary by this Service.
    let service = s.get(Kind::Service, "podinfo").await?;
    let selected = &service["spec"]["selector"]["app"];
    ensure(selected == "podinfo-primary", &service)?;
    let old = s.get(Kind::Ingress, "web-canary").await?;
    let weight = &old["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"];
    ensure(weight == "0", &old)?;

    tutorial
        .run("kubectl -n test set image deployment/podinfo podinfod=stefanprodan/podinfo:3.1.1")
        .await?;
    s.has_weights("web", [90, 10]).await?;
    s.phase("Succeeded").await?;
    let weights =
        "kubectl -n test get httproute web -o jsonpath='{.spec.rules[0].backendRefs[*].weight}'";
    let weights = tutorial.run(weights).await?;
    ensure(weights == "100 0", &weights)?;
    let now = s.get(Kind::Ingress, "web-canary").await?;
    let generation = "/metadata/generation";
    ensure(now.pointer(generation) == old.pointer(generation), &now)?;
    tutorial
        .run("kubectl -n test delete ingress web web-canary")
        .await?;
    tutorial
        .try_out("kubectl apply -f examples/canaries/nginx.yaml")
        .await?;
    tutorial.end()
}

pub async fn a_rollout_of_argo_rollouts_moves_to_a_canary(s: Scenario<'_>) -> Outcome {
    s.rig.bed.apply(ROLLOUTS).await.map_err(text)?;
    let mut tutorial = Tutorial::read(&s, "examples/from-argo-rollouts/README.md")?;
    tutorial
        .before("examples/from-argo-rollouts/before.yaml")
        .await?;

    tutorial
        .run("kubectl apply -f examples/from-argo-rollouts/deployment.yaml")
        .await?;
    tutorial
        .run("kubectl -n test rollout status deployment/shop")
        .await?;
    tutorial
        .run("kubectl apply -f examples/from-argo-rollouts/canary.yaml")
        .await?;
    s.event("no rule that leads to both shop and shop-canary")
        .await?;
    let shown = tutorial.run("kubectl -n test get canary shop").await?;
    ensure(shown.contains("Initializing"), &shown)?;
    // Both Services exist before a request reaches them, and the first one has ready pods.
    let service = s.get(Kind::Service, "shop").await?;
    ensure(service["spec"]["selector"]["app"] == "shop", &service)?;
    s.get(Kind::Service, "shop-canary").await?;
    let deployment = s.get(Kind::Deployment, "shop").await?;
    ensure(deployment["status"]["readyReplicas"] == 2, &deployment)?;

    tutorial.take("kubectl diff -f examples/from-argo-rollouts/route.yaml")?;
    tutorial
        .run("kubectl apply -f examples/from-argo-rollouts/route.yaml")
        .await?;
    s.phase_of("shop", "Initialized").await?;
    let shown = tutorial.run("kubectl -n test get canary shop").await?;
    ensure(shown.contains("Initialized"), &shown)?;
    tutorial
        .run("kubectl -n test delete rollout podinfo")
        .await?;
    tutorial
        .run("kubectl -n test delete service podinfo-stable podinfo-canary")
        .await?;
    tutorial
        .run("kubectl -n test set image deployment/shop podinfod=stefanprodan/podinfo:3.1.1")
        .await?;
    for weights in [[90, 10], [70, 30], [50, 50]] {
        s.has_weights("podinfo", weights).await?;
    }
    s.phase_of("shop", "Succeeded").await?;
    let weights = tutorial
        .run("kubectl -n test get httproute podinfo -o jsonpath='{.spec.rules[0].backendRefs[*].weight}'")
        .await?;
    ensure(weights == "100 0", &weights)?;
    tutorial.end()
}
