//! Very large overlays: routing, without the machinery that keeps a real network together.
