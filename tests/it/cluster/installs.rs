//! Installs each overlay as a user does, and releases with the rights that it grants and no others.

use futures::{
    FutureExt,
    future::{LocalBoxFuture, join_all},
};
use serde_json::json;
use testbed::wait::until;

use super::{
    Outcome, PATIENCE, Rig, Scenario, apisix, appmesh, ensure, gloo, ingress, knative, kuma,
    releases, routes, text, traefik,
};
use crate::files;

/// An overlay, and how its operator is started here.
struct Install {
    overlay: &'static str,
    arguments: &'static [&'static str],
    /// A resource that this overlay must not grant.
    refused: &'static str,
    /// The scenario that is played with its rights.
    release: for<'a> fn(Scenario<'a>) -> LocalBoxFuture<'a, Outcome>,
}

/// All overlays with an operator. (That for Linkerd grants the same as that for Gateway API.)
const INSTALLS: [Install; 13] = [
    Install {
        overlay: "istio",
        arguments: &["-mesh-provider=istio"],
        refused: "httpproxies.projectcontour.io",
        release: |s| {
            releases::a_good_version_is_promoted_step_by_step_and_a_bad_one_rolled_back(s)
                .boxed_local()
        },
    },
    Install {
        overlay: "gatewayapi",
        arguments: &["-mesh-provider=gatewayapi:v1"],
        refused: "virtualservices.networking.istio.io",
        release: |s| {
            routes::gateway_api_shares_traffic_step_by_step_and_rolls_back(s).boxed_local()
        },
    },
    Install {
        overlay: "contour",
        arguments: &["-mesh-provider=contour", "-ingress-class=contour"],
        refused: "ingresses.networking.k8s.io",
        release: |s| ingress::contour_copies_requests_and_shares_them(s).boxed_local(),
    },
    Install {
        overlay: "appmesh",
        arguments: &["-mesh-provider=appmesh:v1beta2"],
        refused: "virtualservices.networking.istio.io",
        release: |s| appmesh::app_mesh_routes_matching_requests_to_the_canary(s).boxed_local(),
    },
    Install {
        overlay: "nginx",
        arguments: &["-mesh-provider=nginx"],
        refused: "httproutes.gateway.networking.k8s.io",
        release: |s| ingress::nginx_shares_traffic_by_a_second_ingress(s).boxed_local(),
    },
    Install {
        overlay: "gloo",
        arguments: &["-mesh-provider=gloo"],
        refused: "httpproxies.projectcontour.io",
        release: |s| {
            gloo::gloo_shares_traffic_between_upstreams_with_the_users_settings(s).boxed_local()
        },
    },
    Install {
        overlay: "traefik",
        arguments: &["-mesh-provider=traefik"],
        refused: "httpproxies.projectcontour.io",
        release: |s| traefik::traefik_shares_traffic_and_repairs_keep_the_weights(s).boxed_local(),
    },
    Install {
        overlay: "apisix",
        arguments: &["-mesh-provider=apisix"],
        refused: "httpproxies.projectcontour.io",
        release: |s| apisix::apisix_shares_traffic_by_a_second_route(s).boxed_local(),
    },
    Install {
        overlay: "kuma",
        arguments: &["-mesh-provider=kuma"],
        refused: "httpproxies.projectcontour.io",
        release: |s| kuma::kuma_shares_traffic_by_an_object_of_the_cluster(s).boxed_local(),
    },
    Install {
        overlay: "knative",
        arguments: &["-mesh-provider=knative"],
        refused: "httpproxies.projectcontour.io",
        release: |s| knative::a_knative_service_is_released_by_its_own_routes(s).boxed_local(),
    },
    Install {
        overlay: "skipper",
        arguments: &["-mesh-provider=skipper"],
        refused: "httpproxies.projectcontour.io",
        release: |s| ingress::skipper_shares_traffic_by_a_second_ingress(s).boxed_local(),
    },
    Install {
        overlay: "kubernetes",
        arguments: &["-mesh-provider=kubernetes"],
        refused: "trafficsplits.split.smi-spec.io",
        release: |s| {
            routes::without_a_mesh_the_version_is_analysed_behind_its_own_service(s).boxed_local()
        },
    },
    Install {
        overlay: "namespaced",
        arguments: &["-mesh-provider=istio"],
        refused: "virtualservices.networking.istio.io",
        release: |s| {
            releases::a_good_version_is_promoted_step_by_step_and_a_bad_one_rolled_back(s)
                .boxed_local()
        },
    },
];

impl Install {
    /// A namespace in which the overlay grants rights for Canaries. Only the namespaced one grants none outside its own.
    fn served<'a>(&self, own: &'a str) -> &'a str {
        match self.overlay {
            "namespaced" => own,
            _ => "default",
        }
    }

    fn account(&self) -> String {
        format!("flagger-{}", self.overlay)
    }
}

/// All at once: each overlay has a namespace and names of its own, and its operator serves the Canaries of one namespace.
pub async fn each_overlay_grants_what_its_releases_need(rig: &Rig) -> Vec<String> {
    let folders = std::fs::read_dir(files::path("kustomize")).unwrap();
    let folders = folders.map(|folder| folder.unwrap().path());
    let overlays = folders.filter(|folder| folder.join("patch.yaml").is_file());
    for overlay in overlays {
        let name = overlay.file_name().unwrap().to_str().unwrap();
        let is_played = INSTALLS.iter().any(|install| install.overlay == name);
        // A further operator for Istio has the rights of the first one.
        assert!(
            is_played || ["linkerd", "shard"].contains(&name),
            "no row for kustomize/{name}"
        );
    }
    let installs = INSTALLS.iter().map(async |install| {
        let name = format!("with-{}", install.overlay);
        Scenario::run(rig, &name, |s| released(install, s)).await
    });
    let results = join_all(installs).await;
    results.into_iter().filter_map(Result::err).collect()
}

async fn released(install: &Install, s: Scenario<'_>) -> Outcome {
    let rig = s.rig;
    // With -namespace, the Lease is in that namespace, so the operator is installed there, too.
    let namespace = s.ns.clone();
    applied(rig, install, &namespace).await?;
    let account = format!("system:serviceaccount:{namespace}:{}", install.account());
    granted(rig, &account, install.served(&namespace)).await?;
    refused(rig, &account, install.refused).await?;
    let kubeconfig = rig.bed.kubeconfig_of(&namespace, &install.account()).await;
    let kubeconfig = kubeconfig.map_err(text)?;
    let served = format!("-namespace={namespace}");
    let mut arguments = vec!["-enable-leader-election=true", &served];
    arguments.extend(install.arguments);
    let name = format!("installed-{}", install.overlay);
    let operator = rig.launch_with(&kubeconfig, &name, &arguments).await?;
    (install.release)(s).await?;
    let code = operator.terminate().await.map_err(text)?;
    ensure(code.success(), code)?;
    nothing_was_refused(rig, &account)
}

/// Applies the overlay with another namespace, and with names that no other overlay has.
async fn applied(rig: &Rig, install: &Install, namespace: &str) -> Outcome {
    let folder = rig
        .bed
        .folder()
        .join(format!("overlay-{}", install.overlay));
    std::fs::create_dir_all(&folder).map_err(text)?;
    let folder = folder.canonicalize().map_err(text)?;
    // Kustomize takes relative paths only.
    let up = "../".repeat(folder.components().count() - 1);
    let overlay = files::path("kustomize").join(install.overlay);
    let base = format!(
        "{up}{}",
        overlay.display().to_string().trim_start_matches('/')
    );
    let wrapper = json!({"resources": [base], "namespace": namespace, "nameSuffix": format!("-{}", install.overlay)});
    std::fs::write(folder.join("kustomization.yaml"), wrapper.to_string()).map_err(text)?;
    rig.bed.apply_kustomize(&folder).await.map_err(text)?;
    // The operator under test is a process, not a pod.
    let deployment = format!("deployment/{}", install.account());
    let scale = ["-n", namespace, "scale", &deployment, "--replicas=0"];
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

/// Waits until the API server applies the new roles.
pub async fn granted(rig: &Rig, account: &str, namespace: &str) -> Outcome {
    let canaries = ("canaries.flagger.app", namespace);
    until(PATIENCE, "the rights of the overlay", async || {
        let is_granted = may(rig, account, "list", canaries).await;
        is_granted.then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await
    .map_err(text)
}

/// Fails if the account has these rights in other namespaces. An account without them there has no right for the whole cluster.
async fn refused(rig: &Rig, account: &str, resource: &str) -> Outcome {
    let leases = ("leases.coordination.k8s.io", "kube-system");
    for (verb, object) in [("update", (resource, "default")), ("create", leases)] {
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
