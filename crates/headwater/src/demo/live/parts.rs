//! The command line of each part of a live demo.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use url::Url;

use super::super::site::{Control, Site, arguments, local};
use super::encoder::RATE;

/// The publisher's name in the demo.
pub const PUBLISHER: &str = "publisher";
/// Probes begin so long before the end of the playlist, as players do: three segments.
const HOLD_BACK_S: &str = "3";

impl Site {
    /// For publishing the channel whose playlist is at the origin with this URL.
    ///
    /// # Errors
    /// If that URL cannot have a path.
    pub fn publish_live_arguments(&self, origin: &Url, control: &Control) -> Result<Vec<OsString>> {
        Ok(self.paced(arguments![
            "publish",
            "--live",
            self.content_url(origin)?.as_str(),
            "--name",
            self.name,
            "--rate",
            RATE,
            "--control",
            control.api.as_str(),
            "--token",
            control.token()?,
            "--key",
            self.key(),
            "--data",
            self.folder.join(PUBLISHER),
            "--listen",
            local(0),
            "--json",
            "--exit-with-stdin",
        ]))
    }

    /// For the peer of a viewer's machine.
    pub fn viewer_arguments(&self, viewer: &str, control: &Control) -> Vec<OsString> {
        self.paced(arguments![
            "peer",
            "--control",
            &control.address,
            "--cc",
            &control.node,
            "--data",
            self.viewer(viewer),
            "--listen",
            local(0),
            "--gateway",
            local(0),
            "--json",
            "--exit-with-stdin",
        ])
    }

    /// For the probe at a viewer, which watches the channel with the name `hw` for so many seconds.
    pub fn probe_arguments(&self, viewer: &str, hw: &str, seconds: u32) -> Vec<OsString> {
        arguments![
            "play",
            hw,
            "--probe",
            "--data",
            self.viewer(viewer),
            "--seconds",
            seconds.to_string(),
            "--hold-back",
            HOLD_BACK_S,
            "--json",
            "--exit-with-stdin",
        ]
    }

    fn viewer(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::super::super::site::NAME;
    use super::*;

    #[test]
    fn viewers_and_publisher_are_paced_and_probes_have_their_peer() {
        let site = Site {
            folder: "/t/headwater-demo-1".into(),
            name: NAME,
            file_name: "index.m3u8".into(),
            up: Some("1Mbit/s".into()),
            origin_up: None,
            ports: [1, 2, 3],
        };
        let control = Control {
            address: "127.0.0.1:1".into(),
            api: Url::parse("http://127.0.0.1:4/").unwrap(),
            node: "ab".into(),
            admin_token: Some("secret".into()),
        };
        let text = |arguments: Vec<OsString>| arguments.join(OsStr::new("|")).into_string().unwrap();
        let origin = Url::parse("http://127.0.0.1:2/").unwrap();
        let publish = text(site.publish_live_arguments(&origin, &control).unwrap());
        assert!(publish.starts_with("publish|--live|http://127.0.0.1:2/index.m3u8|--name|demo|"), "{publish}");
        let viewer = text(site.viewer_arguments("viewer-1", &control));
        assert!(publish.ends_with("|--up|1Mbit/s") && viewer.ends_with("|--up|1Mbit/s"));
        let data = "|--data|/t/headwater-demo-1/viewer-1|";
        assert!(viewer.contains(data) && text(site.probe_arguments("viewer-1", "hw://x", 40)).contains(data));
        assert!(!text(site.origin_arguments()).contains("--up"));
    }
}
