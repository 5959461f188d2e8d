//! The file as one struct of the parts' own Config.
