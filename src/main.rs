//! `chordal`: a node of a Chord ring over HTTP. See `chordal::cli` for what it takes, `chordal::node` for what it does.

/// A sixth of a node's time went to the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    chordal::cli::main()
}
