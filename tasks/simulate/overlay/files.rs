//! Files with results: whole, or not there.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cli::OverlayFiles;

/// Refuses what cannot be written, before any work is done.
pub(super) fn check(files: &OverlayFiles) -> Result<()> {
    for path in [&files.csv, &files.plot].into_iter().flatten() {
        ensure!(path.file_name().is_some() && !path.is_dir(), "{}: that is no file name", path.display());
        let directory = directory(path);
        ensure!(directory.is_dir(), "{}: there is no such directory to write to", directory.display());
    }
    if let Some(plot) = &files.plot
        && plot.extension().is_none_or(|extension| extension != "svg")
    {
        bail!("{}: pictures are drawn as SVG; let the name end in .svg", plot.display());
    }
    ensure!(files.csv.is_none() || files.csv != files.plot, "--csv and --plot name the same file");
    Ok(())
}

/// Writes a file by way of a temporary one beside it, so that it is never there in part.
pub(super) fn write(path: &Path, content: &str) -> Result<()> {
    let written = (|| {
        let mut prefix = OsString::from(".");
        prefix.push(path.file_name().unwrap_or_default());
        let mut file = tempfile::Builder::new().prefix(&prefix).permissions(mode()).tempfile_in(directory(path))?;
        file.write_all(content.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
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
