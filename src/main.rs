//! `chordal`: a node of a Chord ring over HTTP. See `chordal::cli` for what it takes, `chordal::node` for what it does.

fn main() -> std::process::ExitCode {
    chordal::cli::main()
}
