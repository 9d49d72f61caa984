//! What systemd is told of a service: that it is ready, how it is, that it lives, that it stops. Elsewhere nobody is told.

use std::time::Duration;

/// A service of systemd's, if it is one.
#[derive(Debug)]
pub struct Service {
    said: String,
    watchdog: Option<Duration>,
}

impl Service {
    /// What systemd expects of this process.
    pub fn new() -> Service {
        Service { said: String::new(), watchdog: watchdog() }
    }

    /// How often [`Service::alive`] is due, if systemd watches.
    pub fn alive_every(&self) -> Option<Duration> {
        self.watchdog.map(|within| within / 2)
    }

    /// It does its work now.
    pub fn ready(&self) {
        tell(&["READY=1"]);
    }

    /// It lives.
    pub fn alive(&self) {
        tell(&["WATCHDOG=1"]);
    }

    /// How it is, in a line for `systemctl status`.
    pub fn status(&mut self, line: &str) {
        if self.said != line {
            line.clone_into(&mut self.said);
            tell(&[&format!("STATUS={}", line.replace('\n', " "))]);
        }
    }

    /// It begins to stop, which may take a moment: with what.
    pub fn stopping(&self, with: &str) {
        tell(&["STOPPING=1", &format!("STATUS={with}")]);
    }
}

#[cfg(unix)]
fn tell(what: &[&str]) {
    let states: Vec<sd_notify::NotifyState<'_>> = what.iter().map(|w| sd_notify::NotifyState::Custom(w)).collect();
    if let Err(e) = sd_notify::notify(&states) {
        tracing::debug!("systemd is not told {what:?}: {e}");
    }
}

#[cfg(unix)]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(not(unix))]
fn tell(_: &[&str]) {}

#[cfg(not(unix))]
fn watchdog() -> Option<Duration> {
    None
}
