//! The output of a command: stdout for data, stderr for remarks.

use std::io::{self, IsTerminal, Write};

use crate::{
    shell::client::trouble::Stop,
    view::render::{Line, paint},
};

/// The width if the output is no terminal, so that no line is cut.
const UNLIMITED: usize = 200;

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    colors: bool,
    can_redraw: bool,
}

impl Output {
    /// Prints with or without colors. `can_redraw`: whether the terminal understands the codes that move its cursor.
    pub const fn new(colors: bool, can_redraw: bool) -> Self {
        Self { colors, can_redraw }
    }

    /// Whether the terminal understands the codes that move its cursor.
    pub const fn can_redraw(self) -> bool {
        self.can_redraw
    }

    /// Whether to draw on a screen instead of printing lines.
    pub fn redraws(self) -> bool {
        self.can_redraw && is_terminal()
    }

    /// Whether to use colors.
    pub const fn colors(self) -> bool {
        self.colors
    }

    /// Prints lines. On a terminal they are cut to its width.
    pub fn lines(self, lines: &[Line]) -> Result<(), Stop> {
        self.lines_within(terminal_width(), lines)
    }

    /// Prints lines as long as they are. A terminal breaks them.
    pub fn long_lines(self, lines: &[Line]) -> Result<(), Stop> {
        self.lines_within(None, lines)
    }

    fn lines_within(self, width: Option<usize>, lines: &[Line]) -> Result<(), Stop> {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| paint(line, self.colors, width) + "\n")
            .collect();
        print(&lines.concat())
    }
}

/// The width for texts that are wrapped.
pub fn text_width() -> usize {
    terminal_width().unwrap_or(UNLIMITED)
}

/// The width of stdout, if it is a terminal.
fn terminal_width() -> Option<usize> {
    size().map(|(width, _)| width).filter(|_| is_terminal())
}

/// Whether stdout is a terminal.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// The width and the height of the terminal.
pub fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    let (width, height) = (usize::from(size.ws_col), usize::from(size.ws_row));
    (width > 0 && height > 0).then_some((width, height))
}

/// Prints data.
pub fn print(text: &str) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Treats a closed pipe as success, so that the command goes on without output.
pub fn unless_closed(printed: Result<(), Stop>) -> Result<(), Stop> {
    match printed {
        Err(Stop::BrokenPipe) => Ok(()),
        other => other,
    }
}

/// Prints a remark. A closed stderr is no reason to end.
pub fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
