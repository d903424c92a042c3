//! The directories beside a state file, `logs/` and `data/`, and what of them belongs to which node.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::network_state::NodeEntry;
use super::state_file::StateError;

/// How many things of one name a directory may hold.
const MOST_NAMESAKES: u32 = 10_000;

/// Where the nodes of a state file keep things.
#[derive(Debug, Clone)]
pub struct Places {
    /// The nodes' output.
    logs: PathBuf,
    /// The nodes' content.
    data: PathBuf,
}

impl Places {
    /// Those beside a state file in this directory.
    pub fn beside(directory: &Path) -> Places {
        Places { logs: directory.join("logs"), data: directory.join("data") }
    }

    /// Makes what a new node will have to itself: its log, and its data directory unless it keeps its content in memory.
    /// Where another state file in the same directory has a node of that name already, a number is added.
    pub fn make(&self, name: &str, memory: bool) -> Result<(PathBuf, Option<PathBuf>), StateError> {
        fs::create_dir_all(&self.logs).map_err(cannot_make(&self.logs))?;
        let log = first_free(&self.logs, name, ".log", |path| File::create_new(path).map(drop))?;
        if memory {
            return Ok((log, None));
        }
        let directory = fs::create_dir_all(&self.data)
            .map_err(cannot_make(&self.data))
            .and_then(|()| first_free(&self.data, name, "", |path| fs::create_dir(path)));
        if directory.is_err() {
            let _ = fs::remove_file(&log);
        }
        Ok((log, Some(directory?)))
    }

    /// Removes a node's log, readiness report and data, as far as they lie where we put them: a path that somebody
    /// wrote into the state file is not followed elsewhere.
    pub fn clear(&self, node: &NodeEntry) {
        for file in [node.log.clone(), node.ready_file()] {
            if is_in(&file, &self.logs) {
                let _ = fs::remove_file(file);
            }
        }
        self.clear_data(node);
    }

    /// Removes a node's data, as far as it lies where we put it. The daemon makes its directory anew.
    pub fn clear_data(&self, node: &NodeEntry) {
        if let Some(directory) = node.data_dir.as_ref().filter(|directory| is_in(directory, &self.data)) {
            let _ = fs::remove_dir_all(directory);
        }
    }

    /// Removes the directories themselves if nothing is left in them.
    pub fn clear_empty(&self) {
        let _ = fs::remove_dir(&self.logs);
        let _ = fs::remove_dir(&self.data);
    }
}

/// Whether the path names something directly in the directory (`directory/..` does not).
fn is_in(path: &Path, directory: &Path) -> bool {
    path.parent() == Some(directory) && path.file_name().is_some()
}

/// Makes `name`, else `name.2` and so on.
fn first_free(
    directory: &Path,
    name: &str,
    ending: &str,
    make: impl Fn(&Path) -> std::io::Result<()>,
) -> Result<PathBuf, StateError> {
    for number in 1..MOST_NAMESAKES {
        let number = if number == 1 { String::new() } else { format!(".{number}") };
        let path = directory.join(format!("{name}{number}{ending}"));
        match make(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(cannot_make(&path)(error)),
        }
    }
    Err(StateError::Unfit(format!("{} is full of things called {name}; clear it", directory.display())))
}

fn cannot_make(path: &Path) -> impl FnOnce(std::io::Error) -> StateError {
    StateError::system(format!("cannot make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(log: PathBuf, data_dir: Option<PathBuf>) -> NodeEntry {
        NodeEntry::starting("node-1".to_owned(), "127.0.0.1".to_owned(), 0, log, data_dir)
    }

    #[test]
    fn places_are_never_shared() {
        let directory = tempfile::tempdir().unwrap();
        let (logs, data) = (directory.path().join("logs"), directory.path().join("data"));
        let places = Places::beside(directory.path());
        let first = places.make("node-1", false).unwrap();
        assert_eq!(first, (logs.join("node-1.log"), Some(data.join("node-1"))));
        let second = places.make("node-1", false).unwrap();
        assert_eq!(second, (logs.join("node-1.2.log"), Some(data.join("node-1.2"))));
        assert_eq!(places.make("node-2", true).unwrap(), (logs.join("node-2.log"), None));
    }

    #[test]
    fn only_what_lies_beside_the_state_is_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places::beside(directory.path());
        let (log, data_dir) = places.make("node-1", false).unwrap();
        let elsewhere = directory.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("x.log"), "x").unwrap();
        for kept in [&elsewhere, &places.data, &places.data.join(".."), &places.data.join("node-1/..")] {
            places.clear(&node(elsewhere.join("x.log"), Some(kept.clone())));
        }
        places.clear_empty();
        assert!(elsewhere.join("x.log").exists() && places.data.join("node-1").exists() && log.exists());
        places.clear(&node(log, data_dir));
        places.clear_empty();
        assert!(!places.logs.exists() && !places.data.exists() && elsewhere.exists());
    }
}
