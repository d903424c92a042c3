//! What this machine has and what this process has used of it.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Refuses what would not fit into the memory that is available now; `bytes` is what it takes.
pub(super) fn ensure_memory(bytes: u64) -> Result<()> {
    let Some(available) = available_bytes() else { return Ok(()) };
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    ensure!(
        bytes <= available,
        "it would take about {:.1} GiB of memory and {:.1} GiB are available: ask for fewer nodes, a smaller k or fewer \
         lookups",
        gib(bytes),
        gib(available)
    );
    Ok(())
}

/// The most memory that this process has had resident since [`forget_peak_rss`].
pub(super) fn peak_rss_bytes() -> Option<u64> {
    kib("/proc/self/status", "VmHWM:")
}

/// Lets [`peak_rss_bytes`] begin anew, where the kernel allows it: what one network has taken is not told of the next.
pub(super) fn forget_peak_rss() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn available_bytes() -> Option<u64> {
    kib("/proc/meminfo", "MemAvailable:")
}

fn kib(file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Something that takes a while and whose length is not known, on standard error; nothing is drawn if that is no terminal.
pub(super) fn spinner(what: String) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{msg} {spinner} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// Something whose steps are counted.
pub(super) fn bar(steps: u64, what: &'static str) -> ProgressBar {
    output::progress(steps, what)
}
