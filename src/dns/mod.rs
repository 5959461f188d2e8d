//! Questions to the DNS in our words.
