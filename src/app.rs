//! Builds each part once, joins them, reloads, drains, stops.
