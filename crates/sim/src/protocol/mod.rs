//! Whole rings of `chordal-protocol` nodes under faults.
