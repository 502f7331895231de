//! The subcommands for a user's cell. Each user has at most one, always in the same folder.
//!
//! A server in the background owns the cell, and holds a lock on the folder as long as it runs. When the server ends for any reason, the
//! cell ends and the folder is deleted.

use std::{
    fs::{self, File, TryLockError},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{
    Cell, Error, binaries,
    cell::{KUBECONFIG, images::Image, namespaces, pod},
    folder::Folder,
    kubectl::Kubectl,
    programs,
    wait::until,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// The file that the server writes when the cell is up: the addresses, as text for the user.
const SUMMARY: &str = "summary";
const PID: &str = "server.pid";
const LOG: &str = "server.log";
/// The longest that a cell may take to start.
const START: Duration = Duration::from_secs(240);
const END: Duration = Duration::from_secs(30);

/// Builds what is missing, starts a server, and waits until its cell is up.
pub async fn up(images: &[String]) -> Result<ExitCode, Error> {
    // Fail before the long build, not after it.
    namespaces::allowed()?;
    images.iter().try_for_each(|text| image(text).map(|_| ()))?;
    let folder = folder();
    if is_served(&folder) {
        return Err(already());
    }
    programs::build(&["podinfo", "loadtester"])?;
    binaries::find_or_build(&[binaries::CONTROL_PLANE, binaries::MESH, binaries::CRDS])?;
    let lock = claim(&folder)?;
    let io = |e| Error::io(&folder, e);
    let mut interrupted = signal(SignalKind::interrupt()).map_err(io)?;
    let mut log = File::create_new(folder.join(LOG))
        .and_then(|_| File::open(folder.join(LOG)))
        .map_err(io)?;
    let mut server = server(&folder, images, lock)?;
    eprintln!("testbed: starting a cell in {}", folder.display());
    let summary = folder.join(SUMMARY);
    let up_or_ended = until(START, "the cell to be up", async || {
        match (fs::read_to_string(&summary), server.try_wait()) {
            (Ok(text), _) => Ok(Some(text)),
            (Err(_), Ok(None)) => Err("it is starting".to_owned()),
            (Err(_), _) => Ok(None),
        }
    });
    let text = tokio::select! {
        text = up_or_ended => text?,
        _ = interrupted.recv() => {
            down().await?;
            return Ok(ExitCode::from(130));
        }
    };
    let Some(text) = text else {
        let mut output = String::new();
        // The server has deleted the folder, but the open file can still be read.
        log.read_to_string(&mut output).map_err(io)?;
        return Err(Error::Failed(format!("the cell did not start:\n{output}")));
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Owns the cell until SIGTERM. This is the server.
pub async fn serve(folder: PathBuf, images: &[String]) -> Result<(), Error> {
    let own = std::env::current_exe().map_err(|e| Error::io(&folder, e))?;
    let mut all = programs::images(own.parent().unwrap_or(&folder));
    for text in images {
        all.push(image(text)?);
    }
    let mut end = signal(SignalKind::terminate()).map_err(|e| Error::io(&folder, e))?;
    let starting = Cell::start_in(Folder::at(folder.clone())?, &own, &all);
    let mut cell = tokio::select! {
        cell = starting => cell?,
        _ = end.recv() => return Ok(()),
    };
    // The rename makes the complete text appear at once.
    let file = folder.join("summary.new");
    fs::write(&file, text(&cell))
        .and_then(|()| fs::rename(&file, folder.join(SUMMARY)))
        .map_err(|e| Error::io(&file, e))?;
    loop {
        tokio::select! {
            _ = end.recv() => return Ok(()),
            // Fails if the cell has exited unexpectedly.
            () = sleep(Duration::from_secs(1)) => cell.must_run()?,
        }
    }
}

/// Ends the cell, and waits until its folder is deleted.
pub async fn down() -> Result<(), Error> {
    let folder = running()?;
    let file = folder.join(PID);
    let pid = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
    let pid = pid.parse().map(Pid::from_raw);
    let pid = pid.map_err(|e| Error::Failed(format!("{}: {e}", file.display())))?;
    let ended = async || {
        if is_served(&folder) {
            return Err("it is running".to_owned());
        }
        Ok(())
    };
    for with in [Signal::SIGTERM, Signal::SIGKILL] {
        // The server may have ended meanwhile.
        let _ = kill(pid, with);
        if until(END, "the cell to end", ended).await.is_ok() {
            break;
        }
    }
    until(END, "the cell's folder to be deleted", async || {
        if folder.exists() {
            return Err(folder.display().to_string());
        }
        Ok(())
    })
    .await
}

/// Prints the cell's addresses and pods.
pub async fn status() -> Result<(), Error> {
    let folder = served()?;
    let summary = folder.join(SUMMARY);
    let summary = fs::read_to_string(&summary).map_err(|e| Error::io(&summary, e))?;
    let binaries = binaries::find_or_build(&[binaries::CONTROL_PLANE])?;
    let kubectl = Kubectl::new(
        binaries.path("kubectl")?.to_owned(),
        folder.join(KUBECONFIG),
    );
    let get = ["get", "nodes,deployments,pods", "-A"];
    println!("{summary}\n{}", kubectl.run(&get).await?);
    Ok(())
}

/// Runs a command in a pod, or on the node.
pub fn exec(name: &str, container: Option<String>, command: &[String]) -> Result<ExitCode, Error> {
    let folder = served()?;
    let mut words = namespaces::inside(&folder)?;
    if name != "node" {
        let pod = pod_folder(&folder, name)?;
        let container = one_container(&pod, name, container)?;
        let own = std::env::current_exe().map_err(|e| Error::io(&folder, e))?;
        let [own, pod] = [own, pod].map(|path| path.display().to_string());
        words.extend([own, "enter".to_owned(), pod, container, "--".to_owned()]);
    }
    words.extend_from_slice(command);
    let [program, args @ ..] = words.as_slice() else {
        return Ok(ExitCode::SUCCESS);
    };
    let status = Command::new(program)
        .args(args)
        .status()
        .map_err(|e| Error::io(Path::new(program), e))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Prints the output of one container, or of all containers of a pod. The output of deleted pods is kept until the cell ends.
pub fn logs(name: &str, container: Option<String>) -> Result<(), Error> {
    let folder = pod_folder(&served()?, name)?;
    let all = container.is_none();
    let containers = match container {
        Some(container) => vec![one_container(&folder, name, Some(container))?],
        None => containers(&folder)?,
    };
    for container in containers {
        if all {
            println!("==> {container}");
        }
        let file = folder.join(format!("{container}.log"));
        print!("{}", fs::read_to_string(&file).unwrap_or_default());
    }
    Ok(())
}

fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("testbed-cell-{}", nix::unistd::getuid()))
}

fn already() -> Error {
    Error::Failed("a cell is up already: `status` shows it, `down` ends it".to_owned())
}

/// Empties the folder, and returns its lock.
fn claim(folder: &Path) -> Result<File, Error> {
    let io = |e| Error::io(folder, e);
    fs::create_dir_all(folder).map_err(io)?;
    let lock = File::open(folder).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(already()),
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    // Files of a cell that failed to start.
    for old in fs::read_dir(folder).map_err(io)?.flatten() {
        let path = old.path();
        let removed = if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(io)?;
    }
    Ok(lock)
}

fn is_served(folder: &Path) -> bool {
    let lock = File::open(folder).map(|folder| folder.try_lock());
    matches!(lock, Ok(Err(TryLockError::WouldBlock)))
}

/// The folder of a cell that is up or starting.
fn running() -> Result<PathBuf, Error> {
    let folder = folder();
    if is_served(&folder) {
        return Ok(folder);
    }
    Err(Error::Failed(
        "no cell is up: `cargo run -p testbed -- up` starts one".to_owned(),
    ))
}

/// The folder of a cell that is up.
fn served() -> Result<PathBuf, Error> {
    let folder = running()?;
    if folder.join(SUMMARY).exists() {
        return Ok(folder);
    }
    Err(Error::Failed("the cell is starting".to_owned()))
}

/// Starts the server. Its standard input is the lock, so that it is held exactly as long as the server lives.
fn server(folder: &Path, images: &[String], lock: File) -> Result<std::process::Child, Error> {
    let io = |e| Error::io(folder, e);
    let log = File::options().append(true).open(folder.join(LOG));
    let log = log.map_err(io)?;
    let err = log.try_clone().map_err(io)?;
    let mut server = Command::new(std::env::current_exe().map_err(io)?);
    // The server survives Ctrl-C and the end of the terminal.
    std::os::unix::process::CommandExt::process_group(&mut server, 0);
    let server = server
        .arg("serve")
        .arg(folder)
        .args(images)
        .stdin(lock)
        .stdout(log)
        .stderr(err)
        .spawn()
        .map_err(io)?;
    fs::write(folder.join(PID), server.id().to_string()).map_err(io)?;
    Ok(server)
}

/// Reads the value of `--image`.
fn image(text: &str) -> Result<Image, Error> {
    let (name, program) = text
        .split_once('=')
        .ok_or_else(|| Error::Failed(format!("--image {text}: NAME=PROGRAM is expected")))?;
    let program = fs::canonicalize(program).map_err(|e| Error::io(Path::new(program), e))?;
    let file = program.file_name().unwrap_or_default().to_string_lossy();
    Ok(Image::new(name, &program).with(&file, &program))
}

/// The text that explains to the user how to reach and use the cell.
fn text(cell: &Cell) -> String {
    let kubectl = cell.kubectl().program();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_in_path = kubectl
        .parent()
        .is_some_and(|folder| std::env::split_paths(&path).any(|known| known == folder));
    let kubectl = if is_in_path {
        "kubectl".to_owned()
    } else {
        kubectl.display().to_string()
    };
    format!(
        "The cell is up. Point kubectl at it:

  export KUBECONFIG={}
  {kubectl} get pods -A

Gateway     http://{}
Prometheus  http://{}
Images      podinfo, flagger-loadtester, and those that `up --image NAME=PROGRAM` adds
Sidecars    in pods of namespaces with the label istio-injection=enabled

`kubectl logs` and `kubectl exec` do not work in a cell. Use these commands instead; the last one ends the cell:

  cargo run -p testbed -- logs NAMESPACE/POD
  cargo run -p testbed -- exec NAMESPACE/POD -- COMMAND
  cargo run -p testbed -- down
",
        cell.kubeconfig().display(),
        cell.gateway(),
        cell.prometheus()
    )
}

fn pod_folder(cell: &Path, pod: &str) -> Result<PathBuf, Error> {
    let (namespace, name) = pod.split_once('/').ok_or_else(|| {
        Error::Failed(format!(
            "{pod}: name a pod as NAMESPACE/POD, or the node as `node`"
        ))
    })?;
    let folder = pod::folder(cell, namespace, name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let pods = fs::read_dir(cell.join("pods")).into_iter().flatten();
    let names = pods.filter_map(|pod| Some(pod.ok()?.file_name().to_str()?.replacen('_', "/", 1)));
    let mut similar: Vec<_> = names.filter(|other| other.starts_with(pod)).collect();
    similar.sort();
    Err(Error::Failed(if similar.is_empty() {
        format!("no pod {pod} here: `status` lists them")
    } else {
        format!("no pod {pod} here; there are {}", similar.join(", "))
    }))
}

/// The container of this name. Without a name, the first one that is not the proxy.
fn one_container(folder: &Path, pod: &str, named: Option<String>) -> Result<String, Error> {
    let all = containers(folder)?;
    let found = match &named {
        Some(named) => all.iter().find(|name| *name == named),
        None => all.iter().find(|name| *name != pod::PROXY).or(all.first()),
    };
    found.cloned().ok_or_else(|| {
        let named = named.unwrap_or_default();
        Error::Failed(format!(
            "pod {pod} has no container {named}; it has {}",
            all.join(", ")
        ))
    })
}

/// The containers that have been started in a pod: those with a log.
fn containers(pod: &Path) -> Result<Vec<String>, Error> {
    let files = fs::read_dir(pod).map_err(|e| Error::io(pod, e))?;
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    let of_one = paths.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
    let names = of_one.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}
