//! The `headwater` command: peer-assisted content delivery under a control center.

mod api_client;
mod bench;
mod cli;
mod commands;
mod demo;
mod doctor;
mod exit;
mod folders;
mod hours;
mod lifetime;
mod local_api;
mod log_server;
mod logging;
mod memory;
mod origin_server;
mod probe;
mod progress;
mod push_origin;
mod service;
mod table;
mod top;
mod units;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(why) = logging::start(cli.logging.filter(&cli.command)) {
        eprintln!("headwater: --log: {why}");
        return ExitCode::from(2);
    }
    memory::is_shared_by_threads();
    // An error means that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("headwater: the system gives no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(commands::run(cli.command));
    // What still runs has been told that its result is not wanted; hashing, for one, would take its time to end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("headwater: {error:#}");
            ExitCode::from(exit::code(&error))
        }
    }
}
