//! Pictures that are drawn again and again: on a terminal each in place of the one before, elsewhere one after the other.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

/// Where pictures are drawn.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    first: bool,
    interval: Duration,
}

impl Screen {
    /// Standard output, for pictures that come at this interval.
    pub(crate) fn new(interval: Duration) -> Screen {
        Screen { terminal: io::stdout().is_terminal(), first: true, interval }
    }

    /// Draws the next picture.
    pub(crate) fn draw(&mut self, picture: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.terminal {
            // Home, and every line cleared to its end as it is overwritten: clearing all of it first would flicker.
            out.write_all(if self.first { b"\x1b[2J\x1b[H" } else { b"\x1b[H" })?;
            for line in picture.lines() {
                writeln!(out, "{line}\x1b[K")?;
            }
            writeln!(out, "every {} s; Ctrl-C ends it\x1b[K\x1b[J", self.interval.as_secs_f32())?;
        } else {
            writeln!(out, "{picture}\n")?;
        }
        self.first = false;
        out.flush()
    }
}
