//! The program: hands the command line to the library.

use std::process::ExitCode;

/// The stack allocates some dozen times a request, mostly small and of few sizes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    postern::cli::main()
}
