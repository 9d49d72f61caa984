//! What the system says of time, network and power. Where it does not say, nothing is known.

use headwater_peer_core::Moment;
use jiff::ZonedDateTime;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Where Linux tells of batteries and mains.
pub(crate) const POWER_SUPPLIES: &str = "/sys/class/power_supply";
/// NetworkManager answers at once, or not at all.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// A calendar month in the user's time zone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Month {
    pub(crate) year: i16,
    /// 1 to 12.
    pub(crate) month: i8,
}

/// The local time, in the system's time zone.
pub(crate) fn local_time() -> (Moment, Month) {
    let now = ZonedDateTime::now();
    let weekday = now.weekday().to_monday_zero_offset() as u8;
    let minute = now.hour() as u16 * 60 + now.minute() as u16;
    (Moment { weekday, minute }, Month { year: now.year(), month: now.month() })
}

/// Whether the machine runs on its battery; `None` where it has none, or the system does not say (only Linux does here).
pub(crate) fn on_battery(supplies: &Path) -> Option<bool> {
    let said = |supply: &Path, what: &str| {
        std::fs::read_to_string(supply.join(what)).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let (mut discharging, mut plugged) = (None, false);
    for supply in std::fs::read_dir(supplies).ok()?.flatten().map(|entry| entry.path()) {
        // A mouse's battery has the scope `Device`.
        match said(&supply, "type").as_str() {
            "Battery" if said(&supply, "scope") != "Device" => {
                discharging = Some(discharging == Some(true) || said(&supply, "status") == "Discharging");
            }
            "Mains" | "USB" => plugged |= said(&supply, "online") == "1",
            _ => {}
        }
    }
    discharging.map(|discharging| discharging && !plugged)
}

/// Whether the network is paid by volume, as NetworkManager says or guesses; `None` where there is none.
pub(crate) async fn metered() -> Option<bool> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let service = "org.freedesktop.NetworkManager";
    let asked = Command::new("busctl")
        .args(["--system", "--auto-start=no", "get-property", service, "/org/freedesktop/NetworkManager", service])
        .arg("Metered")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let answer = tokio::time::timeout(ANSWERS_WITHIN, asked).await.ok()?.ok()?;
    is_metered(&String::from_utf8_lossy(&answer.stdout))
}

/// `NMMetered`: 0 unknown, 1 yes, 2 no, 3 guessed yes, 4 guessed no.
fn is_metered(answer: &str) -> Option<bool> {
    match answer.trim() {
        "u 1" | "u 3" => Some(true),
        "u 2" | "u 4" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Supplies as (name, [(file, text)]).
    #[track_caller]
    fn check(supplies: &[(&str, &[(&str, &str)])], expected: Option<bool>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, files) in supplies {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            for (file, text) in *files {
                std::fs::write(dir.path().join(name).join(file), format!("{text}\n")).unwrap();
            }
        }
        assert_eq!(on_battery(dir.path()), expected, "{supplies:?}");
    }

    #[test]
    fn a_laptop_without_its_plug_is_on_battery() {
        let battery = |status| [("type", "Battery"), ("status", status)];
        let mains = |online| [("type", "Mains"), ("online", online)];
        check(&[], None);
        check(&[("AC", &mains("1"))], None);
        check(&[("AC", &mains("0")), ("BAT0", &battery("Discharging"))], Some(true));
        check(&[("AC", &mains("1")), ("BAT0", &battery("Discharging"))], Some(false));
        check(&[("BAT0", &battery("Full"))], Some(false));
        check(&[("BAT0", &battery("Unknown")), ("BAT1", &battery("Discharging"))], Some(true));
        let mouse = [("type", "Battery"), ("scope", "Device"), ("status", "Discharging")];
        check(&[("hidpp_battery_0", &mouse)], None);
        assert_eq!(on_battery(Path::new("/nowhere/at/all")), None);
    }

    #[test]
    fn what_network_manager_says() {
        let words = [("u 1\n", Some(true)), ("u 3\n", Some(true)), ("u 2\n", Some(false)), ("u 4\n", Some(false))];
        for (answer, expected) in words.into_iter().chain([("u 0\n", None), ("", None), ("Failed to connect", None)]) {
            assert_eq!(is_metered(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn the_local_time_is_a_moment_of_a_week() {
        let (moment, month) = local_time();
        assert!(moment.weekday < 7 && moment.minute < headwater_peer_core::DAY_MINUTES);
        assert!(month.year > 2000 && (1..=12).contains(&month.month));
    }
}
