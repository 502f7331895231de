//! Builds Go programs, and runs commands with progress output.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::{Error, process::guarded};

/// A Go module in a work folder with one dependency, the module of a program. Each program has its own, because the versions that the
/// programs need of common dependencies conflict.
pub struct Module {
    work: PathBuf,
    /// The path of the program's module.
    pub path: &'static str,
    version: &'static str,
    /// `replace` lines for `go.mod`.
    pub replace: String,
}

impl Module {
    /// Creates the work folder for a program's module below `work`.
    pub fn new(work: &Path, path: &'static str, version: &'static str) -> Result<Self, Error> {
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
        // The version in `go.mod` selects the defaults of GODEBUG. 1.25 is that of Kubernetes; `go get` raises it for modules that
        // need a newer one (Istio, Prometheus and Contour: 1.26).
        let text = format!("module build\n\ngo 1.25.0\n\n{}", self.replace);
        fs::write(self.work.join("go.mod"), text).map_err(|e| Error::io(&self.work, e))
    }

    /// Takes over the `replace` lines of the module's own `go.mod`, which Go ignores in a dependency. Lines that lead to folders of the module
    /// are left out.
    pub fn keep_replacements(&mut self) -> Result<(), Error> {
        let file = self.downloaded("GoMod")?;
        let text = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
        for line in text.lines() {
            let line = line.trim().trim_start_matches("replace ");
            if line.contains(" => ") && !line.contains(" => .") && !line.starts_with("//") {
                let _ = writeln!(self.replace, "replace {line}");
            }
        }
        Ok(())
    }

    /// Adds a source file of a program of our own, which uses the module.
    pub fn add(&self, name: &str, text: &str) -> Result<(), Error> {
        let file = self.work.join(name);
        fs::write(&file, text).map_err(|e| Error::io(&file, e))
    }

    /// Downloads the program's module and resolves its dependencies.
    pub fn get(&self) -> Result<(), Error> {
        self.write()?;
        let module = format!("{}@{}", self.path, self.version);
        self.go(&format!("{module}: downloading"), &["get", &module])?;
        Ok(())
    }

    /// Downloads this module alone. Returns the path of a part of it: `GoMod` or `Dir`.
    pub fn downloaded(&self, part: &str) -> Result<PathBuf, Error> {
        let module = format!("{}@{}", self.path, self.version);
        let args = ["mod", "download", "-json", &module];
        let info = self.go(&format!("{module}: downloading"), &args)?;
        let info: serde_json::Value = serde_json::from_str(&info)
            .map_err(|e| Error::Failed(format!("go mod download: {e}")))?;
        Ok(PathBuf::from(info[part].as_str().unwrap_or_default()))
    }

    /// Concatenates text files of the module into one file.
    pub fn copy(&self, files: &[&str], into: &Path) -> Result<(), Error> {
        let folder = self.downloaded("Dir")?;
        let read = |file: &&str| {
            let path = folder.join(file);
            fs::read_to_string(&path).map_err(|e| Error::io(&path, e))
        };
        let texts: Vec<_> = files.iter().map(read).collect::<Result<_, _>>()?;
        // Files in Go's module cache are read-only; writing the text does not copy that mode.
        fs::write(into, texts.join("\n---\n")).map_err(|e| Error::io(into, e))
    }

    /// Builds one program from a package.
    pub fn build(&self, name: &str, package: &str, into: &Path) -> Result<(), Error> {
        self.build_all(&[(name, package)], &Flags::default(), into)
    }

    /// Builds programs with one run of `go build`, so that one program is linked while others are compiled. A name must be the last part
    /// of its package's path if there are several. The finished programs are moved to `into`, so that no incomplete file is ever there.
    pub fn build_all(
        &self,
        programs: &[(&str, &str)],
        flags: &Flags,
        into: &Path,
    ) -> Result<(), Error> {
        let names: Vec<_> = programs.iter().map(|(name, _)| *name).collect();
        let bin = self.work.join("bin");
        fs::create_dir_all(&bin).map_err(|e| Error::io(&bin, e))?;
        let out = match names[..] {
            [name] => bin.join(name).display().to_string(),
            _ => format!("{}/", bin.display()),
        };
        // The programs are never debugged: neither the compiler nor the linker writes debug information.
        let linker = format!("-s -w{}", flags.linker);
        let mut args = vec![
            "build",
            "-gcflags=all=-dwarf=false",
            "-ldflags",
            &linker,
            "-o",
            &out,
        ];
        if !flags.tags.is_empty() {
            args.extend(["-tags", flags.tags]);
        }
        args.extend(programs.iter().map(|(_, package)| *package));
        self.go(&format!("{}: building", names.join(", ")), &args)?;
        for name in names {
            let built = bin.join(name);
            fs::rename(&built, into.join(name)).map_err(|e| Error::io(&built, e))?;
        }
        Ok(())
    }

    fn go(&self, what: &str, args: &[&str]) -> Result<String, Error> {
        let mut command = guarded(Path::new("go"));
        command
            .args(args)
            .current_dir(&self.work)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=mod -buildvcs=false")
            .env("GOWORK", "off");
        run(&mut command, what)
    }
}

/// Further flags of `go build`.
#[derive(Default)]
pub struct Flags {
    /// Linker flags, each with a blank before it.
    pub linker: String,
    /// Build tags, separated by commas.
    pub tags: &'static str,
}

/// Runs a guarded command to its end, and prints what it does and how long it took. Returns its output.
pub fn run(command: &mut Command, what: &str) -> Result<String, Error> {
    let start = Instant::now();
    eprintln!("testbed: {what} …");
    let io = |e| Error::io(Path::new(what), e);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    // `wait_with_output` would close it, which kills the program.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().map_err(io)?;
    drop(stdin);
    if !output.status.success() {
        return Err(Error::Command {
            command: what.to_owned(),
            output: format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        });
    }
    eprintln!("testbed: {what} took {} s", start.elapsed().as_secs());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
