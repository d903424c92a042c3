//! Files with results: whole, or not there.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::NamedTempFile;

use crate::cli::OverlayFiles;

/// Refuses what cannot be written, before any work is done.
pub(super) fn check(files: &OverlayFiles) -> Result<()> {
    for path in [&files.csv, &files.plot].into_iter().flatten() {
        ensure!(path.file_name().is_some() && !path.is_dir(), "{}: that is no file name", path.display());
        let directory = directory(path);
        ensure!(directory.is_dir(), "{}: there is no such directory to write to", directory.display());
        if !is_special(path) {
            temporary(&target(path)).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    if let Some(plot) = &files.plot
        && plot.extension().is_none_or(|extension| extension != "svg")
    {
        bail!("{}: pictures are drawn as SVG; let the name end in .svg", plot.display());
    }
    ensure!(files.csv.is_none() || files.csv != files.plot, "--csv and --plot name the same file");
    Ok(())
}

/// Writes a file by way of a temporary one beside it, so that it is never there in part. A link stays a link; a device or a
/// pipe is written to as it is.
pub(super) fn write(path: &Path, content: &str) -> Result<()> {
    let written = (|| {
        if is_special(path) {
            return fs::write(path, content);
        }
        let target = target(path);
        let mut file = temporary(&target)?;
        file.write_all(content.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(target).map(drop).map_err(|error| error.error)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// A file beside this one, which is gone again unless it is given another name.
fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    tempfile::Builder::new().prefix(&prefix).permissions(mode()).tempfile_in(directory(path))
}

/// Whether there is something that must not be replaced by a file: a device, a pipe, a socket.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| !it.is_file() && !it.is_dir())
}

/// Where a link leads to; the path itself if it is none.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// What other files get: the umask takes away what it must.
fn mode() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

fn directory(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

/// A table as CSV. Cells are numbers and plain words, so nothing needs quotes.
pub(super) struct Csv {
    text: String,
}

impl Csv {
    /// A table with this head.
    pub(super) fn new(head: &str) -> Csv {
        Csv { text: format!("{head}\n") }
    }

    /// One more row.
    pub(super) fn row(&mut self, cells: &[&dyn Display]) {
        use std::fmt::Write as _;
        for (at, cell) in cells.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(self.text, "{comma}{cell}");
        }
        self.text.push('\n');
    }

    /// All of it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Says in a line which files there are now.
pub(super) fn told(files: &OverlayFiles) -> String {
    let paths: Vec<String> =
        [&files.csv, &files.plot].into_iter().flatten().map(|it| it.display().to_string()).collect();
    if paths.is_empty() { String::new() } else { format!("\n\nWritten: {}.", paths.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        let mut csv = Csv::new("a,b");
        csv.row(&[&1, &"x"]);
        write(&path, csv.text()).unwrap();
        write(&path, csv.text()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a,b\n1,x\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write(&dir.path().join("no/such/a.csv"), "").is_err());
    }

    #[test]
    fn a_link_stays_a_link_and_a_pipe_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let (link, real, pipe) = (dir.path().join("link.csv"), dir.path().join("real.csv"), dir.path().join("pipe"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink("real.csv", &link).unwrap();
        write(&link, "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");

        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let files = OverlayFiles { csv: Some(pipe.clone()), plot: None };
        check(&files).unwrap();
        let reading = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });
        write(&pipe, "through").unwrap();
        assert_eq!(reading.join().unwrap(), "through");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing else is there");
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let files = |csv: &str, plot: &str| {
            let path = |name: &str| (!name.is_empty()).then(|| dir.path().join(name));
            check(&OverlayFiles { csv: path(csv), plot: path(plot) })
        };
        assert!(files("a.csv", "a.svg").is_ok() && files("", "").is_ok());
        assert!(files("no/a.csv", "").is_err());
        assert!(files("", "a.png").is_err());
        assert!(files("a.svg", "a.svg").is_err());
        assert!(files(".", "").is_err());
    }
}
