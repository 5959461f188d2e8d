//! One connection from greeting to goodbye.
