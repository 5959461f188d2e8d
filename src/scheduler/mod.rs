//! What is tried next and when.
