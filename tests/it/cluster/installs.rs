//! Installs each overlay as a user does, and releases with the rights that it grants and no others.

use serde_json::json;
use testbed::wait::until;

use super::{
    Outcome, PATIENCE, Rig, Scenario, appmesh, ensure, gloo, ingress, releases, routes, text,
};
use crate::files;

/// An overlay, and how its operator is started here.
struct Install {
    overlay: &'static str,
    namespace: &'static str,
    arguments: &'static [&'static str],
    /// A resource that this overlay must not grant, and the namespace.
    refused: (&'static str, &'static str),
}

/// The overlay for Linkerd grants the same as that for Gateway API.
const INSTALLS: [Install; 9] = [
    Install {
        overlay: "istio",
        namespace: "istio-system",
        arguments: &["-mesh-provider=istio"],
        refused: ("httpproxies.projectcontour.io", "istio-system"),
    },
    Install {
        overlay: "gatewayapi",
        namespace: "flagger-system",
        arguments: &["-mesh-provider=gatewayapi:v1"],
        refused: ("virtualservices.networking.istio.io", "flagger-system"),
    },
    Install {
        overlay: "contour",
        namespace: "projectcontour",
        arguments: &["-mesh-provider=contour", "-ingress-class=contour"],
        refused: ("ingresses.networking.k8s.io", "projectcontour"),
    },
    Install {
        overlay: "appmesh",
        namespace: "flagger-system",
        arguments: &["-mesh-provider=appmesh:v1beta2"],
        refused: ("virtualservices.networking.istio.io", "flagger-system"),
    },
    Install {
        overlay: "nginx",
        namespace: "ingress-nginx",
        arguments: &["-mesh-provider=nginx"],
        refused: ("httproutes.gateway.networking.k8s.io", "ingress-nginx"),
    },
    Install {
        overlay: "gloo",
        namespace: "flagger-system",
        arguments: &["-mesh-provider=gloo"],
        refused: ("httpproxies.projectcontour.io", "flagger-system"),
    },
    Install {
        overlay: "skipper",
        namespace: "flagger-system",
        arguments: &["-mesh-provider=skipper"],
        refused: ("httpproxies.projectcontour.io", "flagger-system"),
    },
    Install {
        overlay: "kubernetes",
        namespace: "flagger-system",
        arguments: &["-mesh-provider=kubernetes"],
        refused: ("trafficsplits.split.smi-spec.io", "flagger-system"),
    },
    Install {
        overlay: "namespaced",
        namespace: "test",
        arguments: &["-mesh-provider=istio", "-namespace=test"],
        refused: ("virtualservices.networking.istio.io", "default"),
    },
];

/// One after the other, because all ClusterRoles have one name.
pub async fn each_overlay_grants_what_its_releases_need(rig: &Rig) -> Vec<String> {
    let mut failed = Vec::new();
    for install in &INSTALLS {
        let name = match install.overlay {
            "namespaced" => "test".to_owned(),
            overlay => format!("with-{overlay}"),
        };
        let result = Scenario::run(rig, &name, |s| released(install, s)).await;
        failed.extend(result.err());
    }
    failed
}

async fn released(install: &Install, s: Scenario<'_>) -> Outcome {
    let rig = s.rig;
    applied(rig, install).await?;
    let account = format!("system:serviceaccount:{}:flagger", install.namespace);
    granted(rig, &account, s.ns.as_str()).await?;
    refused(rig, &account, install.refused).await?;
    let namespace = s.ns.clone();
    let kubeconfig = rig.bed.kubeconfig_of(install.namespace, "flagger").await;
    let kubeconfig = kubeconfig.map_err(text)?;
    let lease = format!("-leader-election-namespace={}", install.namespace);
    let mut arguments = vec!["-enable-leader-election=true", &lease];
    arguments.extend(install.arguments);
    let name = format!("installed-{}", install.overlay);
    let operator = rig.launch_with(&kubeconfig, &name, &arguments).await?;
    match install.overlay {
        "gatewayapi" => routes::gateway_api_shares_traffic_step_by_step_and_rolls_back(s).await,
        "contour" => ingress::contour_copies_requests_and_shares_them(s).await,
        "appmesh" => appmesh::app_mesh_routes_matching_requests_to_the_canary(s).await,
        "nginx" => ingress::nginx_shares_traffic_by_a_second_ingress(s).await,
        "gloo" => gloo::gloo_shares_traffic_between_upstreams_with_the_users_settings(s).await,
        "skipper" => ingress::skipper_shares_traffic_by_a_second_ingress(s).await,
        "kubernetes" => {
            routes::without_a_mesh_the_version_is_analysed_behind_its_own_service(s).await
        }
        _ => releases::a_good_version_is_promoted_step_by_step_and_a_bad_one_rolled_back(s).await,
    }?;
    // The operator of the next overlay may lack the rights for this Canary.
    let delete = ["-n", &namespace, "delete", "canaries", "--all"];
    rig.bed.kubectl(&delete).await.map_err(text)?;
    let code = operator.terminate().await.map_err(text)?;
    ensure(code.success(), code)?;
    nothing_was_refused(rig, &account)
}

async fn applied(rig: &Rig, install: &Install) -> Outcome {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": install.namespace}});
    rig.bed.apply(&namespace.to_string()).await.map_err(text)?;
    let overlay = files::path("kustomize").join(install.overlay);
    rig.bed.apply_kustomize(&overlay).await.map_err(text)?;
    // The operator under test is a process, not a pod.
    let scale = ["scale", "deployment/flagger", "--replicas=0"];
    let scale = [&["-n", install.namespace][..], &scale].concat();
    rig.bed.kubectl(&scale).await.map_err(text).map(drop)
}

/// Whether an account has a right. `kubectl auth can-i` fails if it has not.
pub async fn may(
    rig: &Rig,
    account: &str,
    verb: &str,
    (resource, namespace): (&str, &str),
) -> bool {
    let account = format!("--as={account}");
    let args = ["auth", "can-i", verb, resource, "-n", namespace, &account];
    rig.bed.kubectl(&args).await.is_ok()
}

/// Waits until the API server knows the new roles.
pub async fn granted(rig: &Rig, account: &str, namespace: &str) -> Outcome {
    let canaries = ("canaries.flagger.app", namespace);
    until(PATIENCE, "the rights of the overlay", async || {
        let is_granted = may(rig, account, "list", canaries).await;
        is_granted.then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await
    .map_err(text)
}

async fn refused(rig: &Rig, account: &str, (resource, namespace): (&str, &str)) -> Outcome {
    let leases = ("leases.coordination.k8s.io", "kube-system");
    for (verb, object) in [("update", (resource, namespace)), ("create", leases)] {
        let is_granted = may(rig, account, verb, object).await;
        ensure(!is_granted, format!("{account} may {verb} {object:?}"))?;
    }
    Ok(())
}

pub fn nothing_was_refused(rig: &Rig, account: &str) -> Outcome {
    let audit = rig.bed.audit().map_err(text)?;
    let refused = audit.iter().filter(|line| line.user == account);
    let refused: Vec<_> = refused.filter(|line| line.code == 403).collect();
    ensure(refused.is_empty(), format!("refused: {refused:?}"))
}
