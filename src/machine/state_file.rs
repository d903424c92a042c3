//! Reading and changing the state file, by several `tasks` at once.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::network_state::{NetworkState, NodeEntry, VERSION};
use super::places::Places;

/// Why a state file was not read or changed. It is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refused.
    #[error("{what}: {reason}")]
    System {
        /// What could not be done, and with which file.
        what: String,
        /// What the system said.
        reason: std::io::Error,
    },
    /// It is damaged, of another version, not there, or not what is needed; the text says which, and what to do.
    #[error("{0}")]
    Unfit(String),
}

impl StateError {
    /// For `map_err`: the system refused to do this.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> StateError {
        let what = what.into();
        |reason| StateError::System { what, reason }
    }
}

/// How long another `tasks` is waited for. They hold the lock for milliseconds; killall as long as processes take to die.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// Where a ring is remembered.
///
/// Changes are made under an exclusive lock on `<state>.lock` (a file of its own, because every change replaces the state
/// file, and gone when the ring is) and reach the disk before they count: temporary file, fsync, rename.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
    lock: PathBuf,
    places: Places,
}

impl StateFile {
    /// The state file at this path. Nothing is touched yet.
    pub fn at(path: &Path) -> Result<StateFile, StateError> {
        let unfit = || StateError::Unfit(format!("--state {}: that is no file name", path.display()));
        let name = path.file_name().ok_or_else(unfit)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = resolved(parent).map_err(StateError::system(format!("cannot find {}", parent.display())))?;
        let mut lock = name.to_owned();
        lock.push(".lock");
        Ok(StateFile { path: parent.join(name), lock: parent.join(lock), places: Places::beside(&parent) })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directories beside it.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// What it says, put right by a look at the processes; `None` if there is no such file.
    pub fn load(&self) -> Result<Option<NetworkState>, StateError> {
        let mut state = self.read()?;
        state.iter_mut().for_each(NetworkState::refresh);
        Ok(state)
    }

    /// What it says, if it names any node.
    pub fn ring(&self) -> Result<NetworkState, StateError> {
        let none = || format!("there is no ring in {}; start one with `tasks boot`", self.path.display());
        self.load()?.filter(|state| !state.nodes.is_empty()).ok_or_else(|| StateError::Unfit(none()))
    }

    /// The nodes that can be asked; an error that says what to do if there are none.
    pub fn awake(&self) -> Result<Vec<NodeEntry>, StateError> {
        let awake = self.ring()?.awake();
        if awake.is_empty() {
            return Err(StateError::Unfit(format!(
                "no node of the ring in {} runs; bring it back with `tasks start --all` or begin anew with `tasks reboot`",
                self.path.display()
            )));
        }
        Ok(awake)
    }

    /// Reads, changes and writes under the lock. A missing file is read as a ring without nodes. If `change` fails the
    /// file stays as it was.
    pub fn update<T, E>(&self, change: impl FnOnce(&mut NetworkState) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StateError>,
    {
        let _lock = self.locked()?;
        let before = self.read()?;
        let mut state = before.clone().unwrap_or_default();
        state.refresh();
        let outcome = change(&mut state)?;
        // A file that another task has removed does not come back for having no nodes.
        if before.as_ref().map_or(!state.nodes.is_empty(), |before| *before != state) {
            self.write(&state)?;
        }
        Ok(outcome)
    }

    /// Reads and acts under the lock, and removes the file if `act` succeeds. Without a file there is nothing to do.
    pub fn remove<T, E>(&self, act: impl FnOnce(&NetworkState) -> Result<T, E>) -> Result<Option<T>, E>
    where
        E: From<StateError>,
    {
        let _lock = self.locked()?;
        let Some(state) = self.load()? else { return Ok(None) };
        let outcome = act(&state)?;
        fs::remove_file(&self.path).map_err(StateError::system(format!("cannot remove {}", self.path.display())))?;
        // Those who wait for this lock notice, and take the next one. One that stays behind does no harm.
        let _ = fs::remove_file(&self.lock);
        Ok(Some(outcome))
    }

    fn read(&self) -> Result<Option<NetworkState>, StateError> {
        match fs::read(&self.path) {
            Ok(bytes) => self.parse(&bytes).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::system(format!("cannot read {}", self.path.display()))(error)),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<NetworkState, StateError> {
        let way_out = format!(
            "to start afresh, end what is left of its nodes by hand (`pgrep -f 'tasks node'` lists nodes), remove {} and run `tasks boot`",
            self.path.display()
        );
        let damaged = |error| StateError::Unfit(format!("{} is damaged ({error}); {way_out}", self.path.display()));
        let json: Value = serde_json::from_slice(bytes).map_err(damaged)?;
        if let Some(version) = json.get("version").and_then(Value::as_u64).filter(|version| *version != VERSION) {
            return Err(StateError::Unfit(format!(
                "{} has version {version} and this program reads version {VERSION}; use the chordal that wrote it, or, {way_out}",
                self.path.display()
            )));
        }
        serde_json::from_value(json).map_err(damaged)
    }

    fn write(&self, state: &NetworkState) -> Result<(), StateError> {
        let temporary = self.path.with_added_extension("tmp");
        let written = (|| {
            let mut json = serde_json::to_vec_pretty(state)?;
            json.push(b'\n');
            let mut file = File::create(&temporary)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(StateError::system(format!("cannot write {}", self.path.display())))
    }

    /// The lock, which ends with the value.
    fn locked(&self) -> Result<File, StateError> {
        let cannot = |error| StateError::system(format!("cannot lock {}", self.lock.display()))(error);
        fs::create_dir_all(self.lock.parent().unwrap_or(Path::new("/"))).map_err(cannot)?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            // Opened anew each time: whoever has removed the ring has removed its lock as well.
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.lock).map_err(cannot)?;
            match file.try_lock() {
                Ok(()) if self.is_the_lock(&file) => return Ok(file),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
                Err(TryLockError::WouldBlock) => {
                    return Err(StateError::Unfit(format!(
                        "another `tasks` has held {} for {} s; end it, then try again",
                        self.lock.display(),
                        LOCK_PATIENCE.as_secs()
                    )));
                }
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
            }
        }
    }

    /// Whether this file, which is locked, is the one that others find.
    fn is_the_lock(&self, file: &File) -> bool {
        match (file.metadata(), fs::metadata(&self.lock)) {
            (Ok(mine), Ok(theirs)) => (mine.dev(), mine.ino()) == (theirs.dev(), theirs.ino()),
            _ => false,
        }
    }
}

/// The directory's absolute path without symbolic links, as it will be once what is missing of it has been made.
fn resolved(directory: &Path) -> std::io::Result<PathBuf> {
    match fs::canonicalize(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let absolute = std::path::absolute(directory)?;
            match (absolute.parent(), absolute.file_name()) {
                (Some(parent), Some(name)) => Ok(resolved(parent)?.join(name)),
                _ => Err(error),
            }
        }
        outcome => outcome,
    }
}
