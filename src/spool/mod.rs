//! What was accepted is never lost.
