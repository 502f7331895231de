//! Draws on the alternate screen of a terminal. It sends only lines that have changed, and restores the terminal at the end.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use nix::sys::signal::{self as process_signal, Signal};
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use super::{
    output::{print, size},
    trouble::Stop,
};
use crate::view::render::{Line, paint};

/// The size that is assumed if the terminal does not report one.
const DEFAULT: (usize, usize) = (80, 24);
/// Switches to the alternate screen, and hides the cursor.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[2J";
/// Shows the cursor, and switches back to the normal screen.
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// The codes before and after one picture. A terminal that knows them shows the picture at once, without flicker.
const BATCH: (&str, &str) = ("\u{1b}[?2026h", "\u{1b}[?2026l");

/// The alternate screen of a terminal. Dropping this value restores the terminal.
pub struct Screen {
    colors: bool,
    shown: Vec<String>,
    /// The modes of the terminal before the screen was opened.
    modes: Option<Termios>,
}

impl Screen {
    /// Opens the screen.
    pub fn open(colors: bool) -> Result<Self, Stop> {
        let mut screen = Self {
            colors,
            shown: Vec::new(),
            modes: None,
        };
        screen.enter()?;
        Ok(screen)
    }

    fn enter(&mut self) -> Result<(), Stop> {
        let stdin = io::stdin();
        if isatty(&stdin)
            && let Ok(modes) = tcgetattr(&stdin)
        {
            let mut quiet = modes.clone();
            // Switch echo off, so that typed characters do not appear on the screen.
            quiet.local_modes.remove(LocalModes::ECHO);
            let _ = tcsetattr(&stdin, OptionalActions::Now, &quiet);
            self.modes = Some(modes);
        }
        self.shown.clear();
        print(ENTER)
    }

    fn leave(&mut self) -> Result<(), Stop> {
        if let Some(modes) = self.modes.take() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        }
        print(LEAVE)
    }

    /// Draws the next picture completely, because the terminal has another size.
    pub fn forget(&mut self) {
        self.shown.clear();
    }

    /// Restores the terminal, stops the process as Ctrl-Z does, and opens the screen again when the user continues it.
    pub fn sleep(&mut self) -> Result<(), Stop> {
        self.leave()?;
        stop();
        self.enter()
    }

    /// Draws a picture over the last one.
    pub fn draw(&mut self, lines: &[Line]) -> Result<(), Stop> {
        let (width, height) = screen_size();
        let changes = changes(&mut self.shown, painted(lines, self.colors, width, height));
        if changes.is_empty() {
            return Ok(());
        }
        print(&format!("{}{changes}{}", BATCH.0, BATCH.1))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.leave();
        let _ = io::stdout().flush();
    }
}

/// Stops the process, as Ctrl-Z does, until its user continues it.
pub fn stop() {
    let _ = process_signal::raise(Signal::SIGSTOP);
}

/// The width and the height of the screen.
pub fn screen_size() -> (usize, usize) {
    size().unwrap_or(DEFAULT)
}

/// The lines that fit on the screen. If some do not, the last line has their number.
fn painted(lines: &[Line], colors: bool, width: usize, height: usize) -> Vec<String> {
    let paint = |line: &Line| paint(line, colors, Some(width));
    if lines.len() <= height {
        return lines.iter().map(paint).collect();
    }
    let fit = height.saturating_sub(1);
    let more = Line::plain(format!("… {} more lines", lines.len() - fit));
    let shown = lines.iter().take(fit).chain(std::iter::once(&more));
    shown.map(paint).collect()
}

/// The codes that change the picture on the screen into the next one.
fn changes(shown: &mut Vec<String>, next: Vec<String>) -> String {
    // Writing to a String cannot fail.
    let mut codes = String::new();
    if shown.is_empty() {
        codes.push_str("\u{1b}[2J");
    }
    for (row, line) in next.iter().enumerate() {
        if shown.get(row) != Some(line) {
            let _ = write!(codes, "\u{1b}[{};1H{line}\u{1b}[K", row + 1);
        }
    }
    if next.len() < shown.len() {
        let _ = write!(codes, "\u{1b}[{};1H\u{1b}[J", next.len() + 1);
    }
    *shown = next;
    codes
}

/// An event that a user or a terminal sends to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Ctrl-C, Ctrl-\, or a signal that ends the process.
    End,
    /// The terminal has another size.
    Resized,
    /// Ctrl-Z, which stops the process until its user continues it.
    Stopped,
}

/// The signals that the command handles.
pub struct Interrupts {
    end: [Signals; 4],
    resized: Signals,
    stopped: Signals,
}

impl Interrupt {
    /// Listens to signals from now on.
    pub fn listen() -> Result<Interrupts, Stop> {
        Ok(Interrupts {
            end: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
                signal(SignalKind::quit())?,
            ],
            resized: signal(SignalKind::window_change())?,
            stopped: signal(SignalKind::from_raw(Signal::SIGTSTP as i32))?,
        })
    }
}

impl Interrupts {
    /// Waits for the next interrupt.
    pub async fn next(&mut self) -> Interrupt {
        let [a, b, c, d] = &mut self.end;
        tokio::select! {
            _ = a.recv() => Interrupt::End,
            _ = b.recv() => Interrupt::End,
            _ = c.recv() => Interrupt::End,
            _ = d.recv() => Interrupt::End,
            _ = self.resized.recv() => Interrupt::Resized,
            _ = self.stopped.recv() => Interrupt::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_changed_are_drawn() {
        let mut shown = Vec::new();
        let picture = |lines: &[&str]| {
            lines
                .iter()
                .map(|line| (*line).to_owned())
                .collect::<Vec<_>>()
        };
        let first = changes(&mut shown, picture(&["a", "b", "c"]));
        assert_eq!(
            first,
            "\u{1b}[2J\u{1b}[1;1Ha\u{1b}[K\u{1b}[2;1Hb\u{1b}[K\u{1b}[3;1Hc\u{1b}[K"
        );
        assert_eq!(changes(&mut shown, picture(&["a", "b", "c"])), "");
        assert_eq!(
            changes(&mut shown, picture(&["a", "x"])),
            "\u{1b}[2;1Hx\u{1b}[K\u{1b}[3;1H\u{1b}[J"
        );
    }

    #[test]
    fn a_picture_that_is_too_high_tells_how_much_is_missing() {
        let lines: Vec<_> = ["one", "two", "three"].map(Line::plain).to_vec();
        assert_eq!(painted(&lines, false, 80, 3), ["one", "two", "three"]);
        assert_eq!(painted(&lines, false, 80, 2), ["one", "… 2 more lines"]);
    }
}
