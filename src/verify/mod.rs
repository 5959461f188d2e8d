//! Evidence about a message; it decides nothing.
