//! The commands, a file each.

pub mod consent;
pub mod control;
pub mod doctor;
pub mod explain;
pub mod export;
pub mod get;
pub mod key;
pub mod list;
pub mod origin;
pub mod peer;
pub mod peer_status;
pub mod play;
pub mod publish;
mod publish_live;
pub mod resident;
pub mod sim;
pub mod status;
pub mod top;
pub mod unpublish;

use std::future::Future;
use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::bench;
use crate::cli::Command;
use crate::demo;
use crate::exit::Ending;
use crate::lifetime;

/// Runs `command` to its end.
///
/// # Errors
/// What went wrong, with an [`Ending`] where it has an exit code of its own.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Control(args) => control::run(args).await,
        Command::Key(command) => key::run(command),
        Command::Consent(command) => consent::run(command),
        Command::Publish(args) => publish::run(*args).await,
        Command::List(args) => interruptible(list::run(args)).await,
        Command::Unpublish(args) => interruptible(unpublish::run(args)).await,
        Command::Status(args) => interruptible(status::run(args)).await,
        Command::Explain(args) => interruptible(explain::run(args)).await,
        Command::Export(args) => export::run(args),
        Command::Get(args) => get::run(*args).await,
        Command::Peer(args) => peer::run(*args).await,
        Command::Top(args) => top::run(args).await,
        Command::Play(args) => play::run(*args).await,
        Command::Doctor(args) => interruptible(doctor::run(args)).await,
        Command::Fetch(args) => interruptible(resident::fetch(args)).await,
        Command::Forget(args) => interruptible(resident::forget(args)).await,
        Command::Pause(args) => interruptible(resident::pause(args)).await,
        Command::Resume(args) => interruptible(resident::resume(args)).await,
        Command::Limit(args) => interruptible(resident::limit(args)).await,
        Command::Log(args) => interruptible(resident::log(args)).await,
        Command::Stop(args) => interruptible(resident::stop(args)).await,
        Command::Origin(args) => origin::run(args).await,
        Command::Sim(args) => interruptible(sim::run(args)).await,
        Command::Bench(command) => interruptible(bench::run(command)).await,
        Command::Demo(args) => demo::run(args).await,
    }
}

/// `work`, given up on Ctrl-C or SIGTERM.
async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        () = lifetime::shutdown(false) => Err(Ending::Interrupted.into()),
    }
}

/// Prints to standard output, at once.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Prints one line of JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string(value)?)
}
