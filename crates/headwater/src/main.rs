//! The `headwater` command: peer-assisted content delivery under a control center.

mod api_client;
mod cli;
mod commands;
mod demo;
mod exit;
mod hours;
mod lifetime;
mod origin_server;
mod progress;
mod table;
mod units;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = match EnvFilter::try_new(cli.logging.filter()) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("headwater: --log: {error}");
            return ExitCode::from(2);
        }
    };
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
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
