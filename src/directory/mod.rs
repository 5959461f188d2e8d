//! Who our domains and users are.
