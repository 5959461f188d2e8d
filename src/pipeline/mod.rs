//! Every decision about mail, by phase, in the order in which it happens.
