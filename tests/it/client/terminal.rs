//! A terminal: a pseudo-terminal of the kernel, and the screen that a person would see.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

/// The longest time until something is seen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal in which one process runs.
pub struct Terminal {
    master: File,
    slave: File,
    screen: Arc<Screen>,
    /// All bytes so far.
    bytes: Arc<Mutex<Vec<u8>>>,
    pub child: Child,
}

/// The content of a terminal.
struct Screen {
    parser: Mutex<vt100::Parser>,
    /// Notified at each change.
    changed: Condvar,
}

impl Terminal {
    /// Starts a process in a terminal of this size.
    pub fn start(mut command: Command, width: u16, height: u16) -> Self {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, size(width, height)).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let end = || slave.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        let master = File::from(master);
        let screen = Arc::new(Screen {
            parser: Mutex::new(vt100::Parser::new(height, width, 0)),
            changed: Condvar::new(),
        });
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let (mut reader, seen, all) = (master.try_clone().unwrap(), screen.clone(), bytes.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                all.lock().unwrap().extend(&buffer[..count]);
                seen.parser.lock().unwrap().process(&buffer[..count]);
                seen.changed.notify_all();
            }
        });
        Self {
            master,
            slave,
            screen,
            bytes,
            child,
        }
    }

    /// Waits until `is_seen` holds for the screen. Returns the screen's text.
    pub fn until(&self, what: &str, is_seen: impl Fn(&vt100::Screen) -> bool) -> String {
        let Screen { parser, changed } = self.screen.as_ref();
        let is_unseen = |parser: &mut vt100::Parser| !is_seen(parser.screen());
        let screen = parser.lock().unwrap();
        let (screen, late) = changed
            .wait_timeout_while(screen, PATIENCE, is_unseen)
            .unwrap();
        let text = screen.screen().contents();
        assert!(!late.timed_out(), "not seen: {what}\n{text}");
        text
    }

    /// Waits until the screen has a text.
    pub fn shows(&self, text: &str) -> String {
        self.until(text, |screen| screen.contents().contains(text))
    }

    /// The user makes the window larger or smaller.
    pub fn resize(&self, width: u16, height: u16) {
        let mut parser = self.screen.parser.lock().unwrap();
        parser.screen_mut().set_size(height, width);
        drop(parser);
        tcsetwinsize(&self.master, size(width, height)).unwrap();
        // The kernel sends SIGWINCH only if this is the controlling terminal of the process, which it is not here.
        self.signal("WINCH");
    }

    /// Sends the process a signal: `INT` is that of Ctrl-C.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits until the process ends. Kills it if that takes too long, and fails.
    pub fn end(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let (ended, has_ended) = mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            let is_late = has_ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
            if is_late {
                let killed = Command::new("kill").args(["-s", "KILL", &pid]).status();
                assert!(killed.unwrap().success());
            }
            is_late
        });
        let status = self.child.wait().unwrap();
        drop(ended);
        let text = self.screen.parser.lock().unwrap().screen().contents();
        assert!(!watchdog.join().unwrap(), "does not end\n{text}");
        status
    }

    /// Whether the terminal shows the letters that a person types.
    pub fn echoes(&self) -> bool {
        tcgetattr(&self.slave)
            .unwrap()
            .local_modes
            .contains(LocalModes::ECHO)
    }

    /// How often a text, such as a code, was written.
    pub fn count(&self, text: &str) -> usize {
        let bytes = self.bytes.lock().unwrap();
        String::from_utf8_lossy(&bytes).matches(text).count()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(width: u16, height: u16) -> Winsize {
    Winsize {
        ws_col: width,
        ws_row: height,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
