//! The terminal: how wide it is, and progress that fits.

use std::io;

use console::Term;
use indicatif::{ProgressDrawTarget, TermLike};

/// Columns where a terminal does not say.
const USUAL: u16 = 80;

/// Columns of the terminal that stdout goes to.
pub fn stdout_columns() -> Option<usize> {
    columns(&io::stdout()).map(usize::from)
}

/// Columns of the terminal that stderr goes to.
pub fn stderr_columns() -> Option<usize> {
    columns(&io::stderr()).map(usize::from)
}

/// A terminal may know its columns and not its rows, which the usual libraries take for neither.
#[cfg(unix)]
fn columns(stream: &impl std::os::fd::AsFd) -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(size.ws_col).filter(|columns| *columns > 0)
}

#[cfg(not(unix))]
fn columns<T>(_: &T) -> Option<u16> {
    Term::stderr().size_checked().map(|(_, columns)| columns)
}

/// How a terminal treats what is typed, to be put back where a line was being edited.
pub struct Mode {
    #[cfg(unix)]
    saved: Option<rustix::termios::Termios>,
}

impl Mode {
    /// As it is now; nothing where stdin is no terminal.
    pub fn of_stdin() -> Self {
        Self {
            #[cfg(unix)]
            saved: rustix::termios::tcgetattr(io::stdin()).ok(),
        }
    }

    /// Puts it back.
    pub fn restore(&self) {
        #[cfg(unix)]
        if let Some(saved) = &self.saved {
            // The program ends; there is nobody to tell.
            let _ = rustix::termios::tcsetattr(
                io::stdin(),
                rustix::termios::OptionalActions::Now,
                saved,
            );
        }
    }
}

/// Where progress is drawn: stderr, as wide as it is at the moment.
pub fn progress_target() -> ProgressDrawTarget {
    ProgressDrawTarget::term_like(Box::new(Stderr(Term::buffered_stderr())))
}

#[derive(Debug)]
struct Stderr(Term);

impl TermLike for Stderr {
    fn width(&self) -> u16 {
        columns(&io::stderr()).unwrap_or(USUAL)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}
