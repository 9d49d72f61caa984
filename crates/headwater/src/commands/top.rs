//! `headwater top`: a page that shows a running peer, second by second.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::{peer_status, print};
use crate::lifetime;
use crate::local_api::client::{LocalPeer, PeerAccess};
use crate::top::{Page, draw};

const EVERY: Duration = Duration::from_secs(1);
/// How soon the thread that reads keys sees that the page is closed.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Watch the peer of this machine: its contents, their parents and children, rates and offload, every second
///
/// Keys: q ends, p pauses the peer or ends its pause, arrows (or j and k) choose the content whose parents and children are shown. Where standard output is no
/// terminal it prints one page and ends, as `headwater status` does.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    peer: PeerAccess,
}

pub async fn run(args: Args) -> Result<()> {
    let peer = args.peer.peer()?;
    let mut page = Page::default();
    page.update(peer.status().await?, peer.contents().await?);
    if !std::io::stdout().is_terminal() {
        return print(&peer_status::page(&page.status, &page.contents));
    }
    // It puts the terminal back as it was also when a panic ends the program.
    let mut terminal = ratatui::try_init().context("this terminal cannot show a page")?;
    let shown = show(&mut terminal, &peer, &mut page).await;
    ratatui::restore();
    shown
}

async fn show(terminal: &mut ratatui::DefaultTerminal, peer: &LocalPeer, page: &mut Page) -> Result<()> {
    let mut events = events();
    let mut second = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut shutdown = Box::pin(lifetime::shutdown(false));
    loop {
        terminal.draw(|frame| draw(frame, page))?;
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            event = events.recv() => match event {
                Some(event) => match answer(&event, page) {
                    Wish::Stay => {}
                    Wish::Close => return Ok(()),
                    Wish::Pause => pause(peer, page).await,
                },
                None => return Ok(()),
            },
            _ = second.tick() => match look(peer).await {
                Ok((status, contents)) => page.update(status, contents),
                // It may be about to be started again: then this page must be too.
                Err(e) => page.said = Some(format!("{e:#}")),
            },
        }
    }
}

async fn look(
    peer: &LocalPeer,
) -> Result<(headwater_peer::node::NodeStatus, Vec<headwater_peer::node::ContentDetail>)> {
    Ok((peer.status().await?, peer.contents().await?))
}

/// Pauses the peer, or ends its pause.
async fn pause(peer: &LocalPeer, page: &mut Page) {
    let said = if page.status.limits.paused { peer.resume().await } else { peer.pause(false).await };
    match said {
        Ok(limits) => page.status.limits = limits,
        Err(e) => page.said = Some(format!("{e:#}")),
    }
}

/// What a key asks of who shows the page.
enum Wish {
    Stay,
    Close,
    Pause,
}

fn answer(event: &Event, page: &mut Page) -> Wish {
    let Event::Key(key) = event else { return Wish::Stay };
    if key.kind == KeyEventKind::Release {
        return Wish::Stay;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Wish::Close,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Wish::Close,
        KeyCode::Char('p') => return Wish::Pause,
        KeyCode::Up | KeyCode::Char('k') => page.choose(-1),
        KeyCode::Down | KeyCode::Char('j') => page.choose(1),
        KeyCode::PageUp => page.choose(-10),
        KeyCode::PageDown => page.choose(10),
        _ => {}
    }
    Wish::Stay
}

/// Keys and changes of size, read by a thread of its own for as long as somebody takes them.
fn events() -> mpsc::Receiver<Event> {
    let (sender, events) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let next = event::poll(KEY_WAIT).and_then(|there| if there { event::read().map(Some) } else { Ok(None) });
            match next.map(|event| event.is_none_or(|event| sender.blocking_send(event).is_ok())) {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            }
        }
    });
    events
}
