//! argv in, exit code out; and where memory comes from.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// It gives back what large messages have held; see `.cargo/config.toml` for when.
#[global_allocator]
static MEMORY: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    gatepost::cli::main()
}
