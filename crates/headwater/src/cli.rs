//! The command line: what all commands share. Each command's own arguments stand in its file.

use clap::{ArgAction, Args, Parser, Subcommand};
use headwater_model::NodeId;

use crate::api_client::{ApiClient, ApiError, DEFAULT_CONTROL};
use crate::bench;
use crate::commands::{
    consent, control, doctor, explain, export, get, key, list, origin, peer, play, publish, resident, sim, status, top,
    unpublish,
};
use crate::demo;

const ABOUT: &str = "\
Headwater delivers files from an ordinary web server to many viewers, mostly from one another, as a control center \
assigns; every byte is verified against the publisher's signature.";

const EXAMPLES: &str = "\
A first delivery, on one machine:
  headwater control                                  # prints the first admin token, once
  headwater key new
  headwater origin ./public &                        # or any web server or CDN with byte ranges
  export HEADWATER_TOKEN=...                         # the admin token
  headwater publish ./public/film.mp4 --name films/one \\
      --origin http://127.0.0.1:8080/film.mp4 --control http://127.0.0.1:7400

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused or not found, 130 interrupted.";

/// Peer-assisted content delivery under a control center.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, about, long_about = ABOUT, after_long_help = EXAMPLES)]
#[command(propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub logging: Logging,
    #[command(subcommand)]
    pub command: Command,
}

/// What is logged, to standard error.
#[derive(Debug, Args)]
pub struct Logging {
    /// Say more; twice, even more (`peer` says what matters without)
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Logging")]
    verbose: u8,
    /// What to log, as `warn`, `debug`, or `info,headwater_peer=trace`; instead of -v
    #[arg(long, global = true, value_name = "FILTER", env = "HEADWATER_LOG", help_heading = "Logging")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Control(control::Args),
    #[command(subcommand)]
    Key(key::KeyCommand),
    Publish(Box<publish::Args>),
    Get(Box<get::GetArgs>),
    Peer(Box<peer::PeerArgs>),
    Export(export::Args),
    #[command(subcommand)]
    Consent(consent::ConsentCommand),
    Status(status::Args),
    Top(top::Args),
    Play(Box<play::PlayArgs>),
    Doctor(doctor::Args),
    Fetch(resident::FetchArgs),
    Forget(resident::ForgetArgs),
    Pause(resident::PauseArgs),
    Resume(resident::ResumeArgs),
    Limit(resident::LimitArgs),
    Log(resident::LogArgs),
    Stop(resident::StopArgs),
    List(list::Args),
    Unpublish(unpublish::Args),
    Explain(explain::Args),
    Origin(origin::Args),
    Sim(sim::Args),
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    Demo(demo::Args),
}

/// Which control center is called, and by whom.
#[derive(Debug, Args)]
pub struct ControlAccess {
    /// The control center's API, as `headwater control` printed it; without, `publish` asks none, all others
    /// http://127.0.0.1:7400
    #[arg(long, value_name = "URL", env = "HEADWATER_CONTROL")]
    pub control: Option<String>,
    /// Token that lets you in
    #[arg(long, value_name = "TOKEN", env = "HEADWATER_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Node id of a control center whose https certificate is of its own making: no other is believed
    #[arg(long, value_name = "NODE")]
    pub cc: Option<NodeId>,
}

impl ControlAccess {
    /// A client for it.
    pub fn api(&self) -> Result<ApiClient, ApiError> {
        let token = self.token.as_deref().filter(|t| !t.is_empty());
        ApiClient::pinned(self.control.as_deref().unwrap_or(DEFAULT_CONTROL), token, self.cc)
    }
}

impl Logging {
    /// The filter that was asked for. What runs for long says what matters unasked; a doctor tells what it finds itself.
    pub fn filter(&self, command: &Command) -> &str {
        let unasked = match command {
            // It tells of troubles in its report.
            Command::Doctor(_) | Command::Play(_) => 0,
            Command::Peer(_) => 2,
            _ => 1,
        };
        match (&self.log, unasked + self.verbose) {
            (Some(filter), _) => filter,
            (None, 0) => "error",
            (None, 1) => "warn",
            (None, 2) => "info",
            (None, _) => "debug",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_is_explained() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn what_fits_and_what_does_not() {
        for good in [
            "headwater key new --out k",
            "headwater key show --json",
            "headwater publish f --origin http://a/f --name n",
            "headwater publish --origin http://a/f f --name n --check-all --piece-size 64KiB -v",
            "headwater publish f --origin http://a/f --origin http://b/f --name n --no-check --audience tokens",
            "headwater list --control http://c --token t --json",
            "headwater --log debug unpublish n",
            "headwater explain --client ab --content n",
            "headwater status --data d --json",
            "headwater fetch hw://c/n --data d",
            "headwater limit --up unlimited --monthly 100GB",
            "headwater pause --keep-fetching --data d",
            "headwater log",
            "headwater log debug",
            "headwater peer",
            "headwater control --listen [::1]:0 --heartbeat 500ms --exit-with-stdin --json",
            "headwater origin . --up 10MB/s",
            "headwater sim s.toml --seed 7",
            "headwater bench core --peers 10k,0.1M --content live --rate 4Mbit/s --seed 2 --json",
            "headwater play http://a/live/index.m3u8 --probe --seconds 60 --hold-back 4 --json",
            "headwater play hw://c/n --file index.m3u8 --player mpv --data d",
            "headwater consent list --data d --json",
            "headwater consent revoke https://films.example --data d",
            "headwater consent revoke --all --data d",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good).err());
        }
        for bad in [
            "headwater",
            "headwater publish f --name n",
            "headwater publish f --origin http://a/f",
            "headwater publish f --origin nonsense --name n",
            "headwater publish f --origin http://a/f --name n --check-all --no-check",
            "headwater publish f --origin http://a/f --name n --piece-size 5000",
            "headwater publish f --origin http://a/f --name n --audience all",
            "headwater list --cc 12",
            "headwater control --tls-cert c",
            "headwater control --heartbeat 0s",
            "headwater origin . --up fast",
            "headwater explain --client ab",
            "headwater consent revoke --data d",
            "headwater consent revoke http://films.example --data d",
            "headwater bench",
            "headwater bench core --peers 99",
            "headwater bench core --peers 10km",
            "headwater fetch",
            "headwater play",
            "headwater play http://a --seconds 60",
            "headwater play http://a --probe --player mpv",
            "headwater limit --data d",
            "headwater limit --up fast",
            "headwater forget",
            "headwater log info debug",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_in_the_environment_is_not_shown_in_the_help() {
        let mut command = Cli::command();
        let list = command.find_subcommand_mut("list").unwrap();
        let token = list.get_arguments().find(|a| a.get_id() == "token").unwrap();
        assert!(token.is_hide_env_values_set());
    }
}
