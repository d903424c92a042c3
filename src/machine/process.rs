//! Processes: who they are, whether they live, and how to end them without ever hitting a stranger.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a process is looked at while its end is waited for.
const POLL: Duration = Duration::from_millis(3);

/// How often a process is looked at that may run for long: often enough that nobody is sent to it long after its end.
const SLOW_POLL: Duration = Duration::from_millis(25);

/// Identifies a process beyond its pid, which the system gives out again: `<boot id>:<start time>`, the boot id as in
/// `/proc/sys/kernel/random/boot_id` and the start time in clock ticks since that boot, as in `/proc/<pid>/stat`.
/// `None` if no such process runs.
pub fn started(pid: u32) -> Option<String> {
    let stat = Stat::of(pid)?;
    Some(format!("{}:{}", boot_id()?, stat.start))
}

/// Whether the process that got this pid at that time still runs. Zombies are dead.
pub fn is_alive(pid: u32, started_then: &str) -> bool {
    running(pid, started_then).is_some()
}

/// Whether the process runs and is not paused (by SIGSTOP or a debugger), so that it can be expected to answer.
pub fn is_awake(pid: u32, started_then: &str) -> bool {
    running(pid, started_then).is_some_and(|stat| !matches!(stat.state, 'T' | 't'))
}

/// Sends a signal, but only to the process that got this pid at that time. Whether it was there.
pub fn signal(pid: u32, started_then: &str, signal: Signal) -> bool {
    let Ok(raw) = i32::try_from(pid) else { return false };
    is_alive(pid, started_then) && kill(Pid::from_raw(raw), signal).is_ok()
}

/// Waits until the process is gone; whether it went in time.
pub async fn wait_gone(pid: u32, started_then: &str, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while is_alive(pid, started_then) {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// Returns when the process is gone, however long that takes.
pub async fn ended(pid: u32, started_then: &str) {
    while is_alive(pid, started_then) {
        tokio::time::sleep(SLOW_POLL).await;
    }
}

/// Kills a process with SIGKILL and waits until it is gone; whether it is.
pub fn kill_and_wait(pid: u32, started_then: &str, patience: Duration) -> bool {
    signal(pid, started_then, Signal::SIGKILL);
    let deadline = Instant::now() + patience;
    while is_alive(pid, started_then) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// Raises the soft limit of open files to the hard one; nodes inherit it. Where that fails the old limit stays.
pub fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The process, if it is the one meant and not a zombie.
fn running(pid: u32, started_then: &str) -> Option<Stat> {
    let (boot, start) = started_then.rsplit_once(':')?;
    let stat = Stat::of(pid)?;
    let same = start.parse() == Ok(stat.start) && boot_id() == Some(boot);
    (same && !matches!(stat.state, 'Z' | 'X' | 'x')).then_some(stat)
}

/// Of this boot, which lasts longer than this process.
fn boot_id() -> Option<&'static str> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    let read = || Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned());
    ID.get_or_init(read).as_deref()
}

/// What `/proc/<pid>/stat` tells.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// `R`, `S`, `T` (paused), `Z` (zombie) and so on.
    state: char,
    /// Clock ticks from boot to the start of the process.
    start: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc_pid_stat(5): the command is in parentheses and may itself contain any; state is field 3, start time field 22.
    fn parse(line: &str) -> Option<Stat> {
        let (_, rest) = line.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let start = fields.nth(18)?.parse().ok()?;
        Some(Stat { state, start })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_is_itself() {
        let pid = std::process::id();
        let then = started(pid).unwrap();
        assert!(is_alive(pid, &then));
        assert!(is_awake(pid, &then));
    }

    #[test]
    fn another_start_time_or_boot_is_a_stranger() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let then = started(child.id()).unwrap();
        let (boot, start) = then.split_once(':').unwrap();
        let strangers = [format!("{boot}:{start}1"), format!("other-boot:{start}"), String::new(), boot.to_owned()];
        for stranger in strangers {
            assert!(!is_alive(child.id(), &stranger));
            assert!(!signal(child.id(), &stranger, Signal::SIGKILL));
        }
        assert!(is_alive(child.id(), &then), "no signal may have reached it");
        assert!(signal(child.id(), &then, Signal::SIGSTOP));
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_awake(child.id(), &then) {
            assert!(Instant::now() < deadline, "a paused process is not awake");
        }
        // It is not waited for by its parent, so it becomes a zombie, which counts as gone.
        assert!(kill_and_wait(child.id(), &then, Duration::from_secs(5)));
        child.wait().unwrap();
        assert!(!is_alive(child.id(), &then));
    }

    #[test]
    fn commands_with_parentheses_are_parsed() {
        let line = "12 (a) b (c) S 1 12 12 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 1 0 987654 1 1";
        assert_eq!(Stat::parse(line), Some(Stat { state: 'S', start: 987_654 }));
        assert_eq!(Stat::parse("12 (a"), None);
        assert_eq!(Stat::parse("12 (a) S 1 2"), None);
    }
}
