//! One attempt, one outcome for each recipient.
