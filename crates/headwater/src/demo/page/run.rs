//! The flow of a demo with a page: start the parts, serve the page, and keep all of it until somebody ends it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use axum::body::Bytes;
use headwater_model::Hash;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use url::Url;

use super::super::children::{READY_WITHIN, What};
use super::super::content::Content;
use super::super::folder::Folder;
use super::super::live::encoder::{self, PLAYLIST};
use super::super::live::parts::PUBLISHER;
use super::super::run::publish_limit;
use super::super::site::{Control, NodeStarted, Origin, Published, Site, arguments, free_ports};
use super::super::stage::Stage;
use super::super::{Args, print};
use super::server;

/// The publisher begins when the playlist has so many segments: enough for players to begin with.
const FIRST_SEGMENTS: u64 = 4;
/// Copies of the file on the disk beside the viewers': the origin's and the waypoint's.
const OTHER_COPIES: u64 = 2;
/// It is hashed as a whole, here and in the page.
const MAX_FILE_BYTES: u64 = 1 << 30;
const WAYPOINT: &str = "waypoint";

/// A demo with a page.
pub struct Demo<'a> {
    args: &'a Args,
    stage: &'a mut Stage,
    content: Content,
    /// Where the channel's publisher stands, and all other parts.
    channel: Site,
    /// Where the file's does.
    film: Site,
}

/// What the publisher of a channel tells first.
#[derive(Deserialize)]
struct ChannelStarted {
    hw: String,
    node: String,
}

/// The file, as the page needs it.
struct Film {
    hw: String,
    /// SHA-256, which the page compares with that of what it received.
    sha256: Hash,
}

/// Who may send bytes to the page.
struct Source {
    node: String,
    /// In the demo.
    name: String,
    kind: &'static str,
}

impl<'a> Demo<'a> {
    /// Makes the folders.
    ///
    /// # Errors
    /// If the file is too large or the disk is not fit, or there are no ports.
    pub fn new(args: &'a Args, folder: &Folder, stage: &'a mut Stage) -> Result<Demo<'a>> {
        ensure!(
            args.file_size <= MAX_FILE_BYTES,
            "the page compares the file as a whole: with --page, --file-size 1GiB at most"
        );
        let content = Content::Generated(args.file_size);
        folder.ensure_room((u64::from(args.peers) + OTHER_COPIES).saturating_mul(args.file_size))?;
        let channel = Site {
            folder: folder.path().to_owned(),
            name: "channel",
            file_name: PLAYLIST.to_owned(),
            up: args.up.option(),
            // As of a server: what the page sees of it is its share, not its rate.
            origin_up: None,
            ports: free_ports(u64::from(std::process::id()))?,
        };
        channel.make_folders(std::iter::empty())?;
        let film = Site { name: "film", file_name: content.file_name().to_owned(), ..channel.clone() };
        Ok(Demo { args, stage, content, channel, film })
    }

    /// Runs until it is dropped; [`Stage::end`] is to follow in any case.
    ///
    /// # Errors
    /// If a part cannot be started, or one of the servers, the publisher or the encoder ends.
    pub async fn run(&mut self) -> Result<()> {
        let player = self.player().await?;
        let (tell, mut recorded) = watch::channel(0);
        let encoding = encoder::run(self.channel.origin(), tell, self.stage.stop.clone());
        let encoding = self.stage.work.spawn(encoding);
        tokio::select! {
            ended = encoding => {
                ended??;
                bail!("the encoder ended");
            }
            ended = self.perform(&mut recorded, player) => ended,
        }
    }

    /// What `--hls` names.
    async fn player(&self) -> Result<Option<Bytes>> {
        let Some(path) = &self.args.hls else { return Ok(None) };
        let read = tokio::fs::read(path).await;
        read.map(|player| Some(player.into())).with_context(|| format!("cannot read the player {}", path.display()))
    }

    async fn perform(&mut self, recorded: &mut watch::Receiver<u64>, player: Option<Bytes>) -> Result<()> {
        self.stage.board.note("starting an encoder, a control center, an origin and a publisher");
        self.stage.children.start("control", &self.channel.control_arguments())?;
        let control: Control = self.stage.children.first_line("control").await?;
        self.stage.children.start("origin", &self.channel.origin_arguments())?;
        let origin: Origin = self.stage.children.first_line("origin").await?;
        self.stage.children.run_to_end("key", &self.channel.key_arguments(), READY_WITHIN).await?;
        let film = self.publish_film(&origin.url, &control).await?;
        recorded.wait_for(|segments| *segments >= FIRST_SEGMENTS).await.context("the encoder ended")?;
        self.stage.children.start(PUBLISHER, &self.channel.publish_live_arguments(&origin.url, &control)?)?;
        let channel: ChannelStarted = self.stage.children.first_line(PUBLISHER).await?;
        let mut sources = vec![Source { node: channel.node, name: PUBLISHER.to_owned(), kind: PUBLISHER }];
        sources.extend(self.start_nodes(&control, &[&channel.hw, &film.hw]).await?);
        let about = json!({
            "control": control.address,
            "channel": channel.hw,
            "playlist": self.channel.content_url(&origin.url)?.as_str(),
            "film": { "hw": film.hw, "bytes": self.content.bytes(), "sha256": film.sha256.to_string() },
            "player": player.is_some(),
            "sources": sources.iter().map(Source::json).collect::<Vec<Value>>(),
        });
        let url = self.serve(about.clone(), player).await?;
        self.tell(&url, &about)?;
        self.keep().await
    }

    async fn publish_film(&mut self, origin: &Url, control: &Control) -> Result<Film> {
        self.stage.board.note("publishing a file");
        let (content, folder, stop) = (self.content.clone(), self.film.origin(), self.stage.stop.clone());
        let put = self.stage.work.spawn_blocking(move || -> Result<Hash> {
            let path = content.put_into(&folder, &stop)?;
            let read = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Hash::of(&[&read]))
        });
        let sha256 = put.await??;
        let arguments = self.film.publish_arguments(origin, control)?;
        let limit = publish_limit(self.content.bytes());
        let printed = self.stage.children.run_to_end("publish", &arguments, limit).await?;
        let published: Published = serde_json::from_str(&printed).map_err(|error| {
            self.stage.children.complaint("publish", format!("unexpected output {printed:?}: {error}"))
        })?;
        Ok(Film { hw: published.hw, sha256 })
    }

    /// The waypoint, and viewers that have all of `contents`.
    async fn start_nodes(&mut self, control: &Control, contents: &[&str]) -> Result<Vec<Source>> {
        self.stage.board.note(&format!("starting a waypoint and {} viewers", self.args.peers));
        let waypoint = (WAYPOINT.to_owned(), WAYPOINT, self.channel.waypoint_arguments(control));
        let viewers = (1..=self.args.peers).map(|number| {
            let name = format!("viewer-{number}");
            let mut arguments = self.channel.viewer_arguments(&name, control);
            contents.iter().for_each(|hw| arguments.extend(arguments!["--fetch", hw]));
            (name, "viewer", arguments)
        });
        let nodes: Vec<_> = std::iter::once(waypoint).chain(viewers).collect();
        let mut sources = Vec::new();
        for (name, kind, arguments) in nodes {
            self.stage.children.start(&name, &arguments)?;
            let NodeStarted { node } = self.stage.children.first_line(&name).await?;
            sources.push(Source { node, name, kind });
        }
        Ok(sources)
    }

    /// Serves the page; its address.
    async fn serve(&self, about: Value, player: Option<Bytes>) -> Result<String> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
        let listener = listener.context("cannot serve a page on 127.0.0.1")?;
        let url = format!("http://{}/", listener.local_addr()?);
        self.stage.work.spawn(server::serve(listener, about, player, self.stage.stop.clone()));
        Ok(url)
    }

    fn tell(&self, url: &str, about: &Value) -> Result<()> {
        let text = if self.args.json {
            let mut told = about.clone();
            told["url"] = url.into();
            format!("{told}\n")
        } else {
            format!("\nopen {url} in a browser; Ctrl-C ends the demo\n")
        };
        print(&text).context("cannot print the page's address")
    }

    /// Listens to the parts; a viewer that ends is only told of.
    async fn keep(&mut self) -> Result<()> {
        loop {
            let event = self.stage.children.next().await;
            let What::Ended(status) = event.what else { continue };
            let ended = self.stage.children.ended(&event.name, status);
            if !event.name.starts_with("viewer-") {
                return Err(ended);
            }
            self.stage.board.note(&ended.to_string());
        }
    }
}

impl Source {
    fn json(&self) -> Value {
        json!({ "node": self.node, "name": self.name, "kind": self.kind })
    }
}
