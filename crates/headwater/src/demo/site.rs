//! Where the parts of a demo stand: folders, ports, names, and the command line of each part.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use headwater_model::Rng;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::fault::Part;

/// Below the ports that systems hand out by themselves (Linux from 32768, others from 49152): a part that is away for a
/// moment finds its port free again.
const PORTS: std::ops::Range<u64> = 16_384..32_768;
const TRIES_MAX: u32 = 200;

/// The name under which the content is published.
pub const NAME: &str = "demo";

/// All that a part's command line needs and that is known before the first part is started.
#[derive(Clone)]
pub struct Site {
    /// The demo's folder.
    pub folder: PathBuf,
    /// Under which the content is published.
    pub name: &'static str,
    /// What the content's file is called, wherever it is.
    pub file_name: String,
    /// Everybody's uplink but the origin's, as an option's value; absent if unlimited.
    pub up: Option<String>,
    /// The origin's.
    pub origin_up: Option<String>,
    /// Where the control center, the origin and the waypoint listen.
    pub ports: [u16; 3],
}

/// The control center, as it introduces itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Control {
    /// `host:port` for nodes.
    pub address: String,
    /// URL of its API.
    #[serde(deserialize_with = "url")]
    pub api: Url,
    /// Its node id.
    pub node: String,
    /// Told at its first start only, and good for all later ones.
    #[serde(default)]
    pub admin_token: Option<String>,
}

impl Control {
    /// The admin token.
    ///
    /// # Errors
    /// If it told none.
    pub fn token(&self) -> Result<&str> {
        self.admin_token.as_deref().context("the control center told no admin token")
    }
}

/// The origin, as it introduces itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Origin {
    /// Where it serves its folder.
    #[serde(deserialize_with = "url")]
    pub url: Url,
}

/// A peer or a waypoint, as it introduces itself.
#[derive(Deserialize)]
pub struct NodeStarted {
    /// Its node id.
    pub node: String,
}

/// What publishing a file tells.
#[derive(Deserialize)]
pub struct Published {
    /// The content's name.
    pub hw: String,
}

/// A URL that a part tells.
fn url<'de, D: Deserializer<'de>>(told: D) -> std::result::Result<Url, D::Error> {
    let text = String::deserialize(told)?;
    Url::parse(&text).map_err(|error| D::Error::custom(format!("{text:?} is not a URL: {error}")))
}

/// Options and arguments.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { vec![$(std::ffi::OsString::from($argument)),*] };
}
pub(super) use arguments;

impl Site {
    /// The folder of the control center's state.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The folder of the control center's identity.
    fn identity(&self) -> PathBuf {
        self.folder.join("identity")
    }

    /// The folder that the origin serves.
    pub fn origin(&self) -> PathBuf {
        self.folder.join("origin")
    }

    /// The publisher's key.
    pub fn key(&self) -> PathBuf {
        self.folder.join("publisher.key")
    }

    /// Where a receiver puts what it received.
    pub fn received(&self, part: Part) -> PathBuf {
        self.folder.join(part.to_string()).join(&self.file_name)
    }

    /// For the control center.
    pub fn control_arguments(&self) -> Vec<OsString> {
        arguments![
            "control",
            "--listen",
            local(self.ports[0]),
            "--state",
            self.state(),
            "--identity",
            self.identity(),
            "--json",
            "--exit-with-stdin",
        ]
    }

    /// For the origin.
    pub fn origin_arguments(&self) -> Vec<OsString> {
        paced(
            arguments!["origin", self.origin(), "--listen", local(self.ports[1]), "--json", "--exit-with-stdin",],
            self.origin_up.as_ref(),
        )
    }

    /// For making the publisher's key.
    pub fn key_arguments(&self) -> Vec<OsString> {
        arguments!["key", "new", "--out", self.key()]
    }

    /// Where the content is, at the origin whose URL is `origin`.
    ///
    /// # Errors
    /// If that URL cannot have a path.
    pub fn content_url(&self, origin: &Url) -> Result<Url> {
        let mut url = origin.clone();
        let Ok(mut segments) = url.path_segments_mut() else { bail!("the origin's URL is {origin}") };
        segments.pop_if_empty().push(&self.file_name);
        drop(segments);
        Ok(url)
    }

    /// For publishing the content at the origin, whose URL is `origin`.
    ///
    /// # Errors
    /// If that URL cannot have a path.
    pub fn publish_arguments(&self, origin: &Url, control: &Control) -> Result<Vec<OsString>> {
        Ok(arguments![
            "publish",
            self.origin().join(&self.file_name),
            "--origin",
            self.content_url(origin)?.as_str(),
            "--name",
            self.name,
            "--control",
            control.api.as_str(),
            "--token",
            control.token()?,
            "--key",
            self.key(),
            "--json",
        ])
    }

    /// For the waypoint.
    pub fn waypoint_arguments(&self, control: &Control) -> Vec<OsString> {
        self.paced(arguments![
            "peer",
            "--waypoint",
            "--control",
            &control.address,
            "--cc",
            &control.node,
            "--data",
            self.folder.join("waypoint"),
            "--listen",
            local(self.ports[2]),
            "--json",
            "--exit-with-stdin",
        ])
    }

    /// For a receiver of the content with the name `hw`.
    pub fn receiver_arguments(&self, part: Part, hw: &str) -> Vec<OsString> {
        let mut arguments = self.paced(arguments![
            "get",
            hw,
            "-o",
            self.received(part),
            "--listen",
            local(0),
            "--seed-time",
            "1h",
            "--json",
            "--exit-with-stdin",
        ]);
        if matches!(part, Part::Light(_)) {
            arguments.push("--dial-only".into());
        }
        arguments
    }

    /// With everybody's uplink.
    pub fn paced(&self, arguments: Vec<OsString>) -> Vec<OsString> {
        paced(arguments, self.up.as_ref())
    }

    /// The folders that parts expect.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn make_folders(&self, receivers: impl Iterator<Item = Part>) -> Result<()> {
        let own = receivers.map(|part| self.folder.join(part.to_string()));
        for folder in std::iter::once(self.origin()).chain(own) {
            std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(())
    }
}

fn paced(mut arguments: Vec<OsString>, up: Option<&String>) -> Vec<OsString> {
    if let Some(up) = up {
        arguments.extend(arguments!["--up", up]);
    }
    arguments
}

/// At this port of loopback.
pub fn local(port: u16) -> String {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string()
}

/// Ports on loopback that are free for both TCP and UDP, all different.
///
/// # Errors
/// If there are none.
pub fn free_ports<const N: usize>(seed: u64) -> Result<[u16; N]> {
    let mut random = Rng::new(seed, "ports");
    let mut found = [0; N];
    let mut held = Vec::new();
    for port in &mut found {
        let tried = (0..TRIES_MAX).find_map(|_| {
            let port = u16::try_from(PORTS.start + random.below(PORTS.end - PORTS.start)).ok()?;
            let address = (Ipv4Addr::LOCALHOST, port);
            Some((port, TcpListener::bind(address).ok()?, UdpSocket::bind(address).ok()?))
        });
        let (free, tcp, udp) = tried.context("no free port on 127.0.0.1")?;
        *port = free;
        // Held until all are found, so that none is found twice.
        held.push((tcp, udp));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site {
            folder: "/t/headwater-demo-1".into(),
            name: NAME,
            file_name: "my film".into(),
            up: Some("10MB/s".into()),
            origin_up: Some("10MB/s".into()),
            ports: [1, 2, 3],
        }
    }

    fn text(arguments: Vec<OsString>) -> String {
        let words: Vec<String> = arguments.into_iter().map(|word| word.into_string().unwrap()).collect();
        words.join("|")
    }

    #[test]
    fn parts_come_back_to_the_same_ports_and_folders() {
        let expected = "control|--listen|127.0.0.1:1|--state|/t/headwater-demo-1/state|\
                        --identity|/t/headwater-demo-1/identity|--json|--exit-with-stdin";
        assert_eq!(text(site().control_arguments()), expected);
        let expected = "origin|/t/headwater-demo-1/origin|--listen|127.0.0.1:2|--json|--exit-with-stdin|--up|10MB/s";
        assert_eq!(text(site().origin_arguments()), expected);
        let unlimited = Site { origin_up: None, ..site() };
        assert!(!text(unlimited.origin_arguments()).contains("--up"));
    }

    #[test]
    fn names_are_escaped_in_urls() {
        let control = Control {
            address: "127.0.0.1:1".into(),
            api: Url::parse("http://127.0.0.1:4/").unwrap(),
            node: "ab".into(),
            admin_token: Some("secret".into()),
        };
        let origin = Url::parse("http://127.0.0.1:2").unwrap();
        let arguments = text(site().publish_arguments(&origin, &control).unwrap());
        assert!(arguments.contains("|--origin|http://127.0.0.1:2/my%20film|"), "{arguments}");
        assert!(text(site().waypoint_arguments(&control)).contains("|--control|127.0.0.1:1|--cc|ab|"));
    }

    #[test]
    fn lightweight_receivers_only_dial() {
        let [regular, light] =
            [Part::Peer(1), Part::Light(1)].map(|part| text(site().receiver_arguments(part, "hw://x")));
        assert!(regular.contains("|/t/headwater-demo-1/peer-1/my film|") && !regular.contains("--dial-only"));
        assert!(light.contains("|/t/headwater-demo-1/light-1/my film|") && light.ends_with("|--dial-only"));
    }

    #[test]
    fn free_ports_are_free_and_different() {
        let ports: [u16; 3] = free_ports(7).unwrap();
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
