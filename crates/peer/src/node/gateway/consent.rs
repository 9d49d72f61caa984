//! The user's consent, from the question to what a site gets for it.
//!
//! A site opens `/consent?site=ORIGIN&content=HW_NAME` in a tab. What the user clicks there is all that counts: who opened
//! the page cannot frame it, touch it or answer in its name. Pages of the site then `POST /session?content=HW_NAME`, by
//! themselves, and get a path that is theirs for some hours.

use super::pages::{self, Question};
use super::sessions::{About, Sessions};
use super::{Gateway, Inner, Pieces, Refused, SECRET_BYTES, own_page, text};
use crate::consents::{Consent, ConsentFile, Consents, ConsentsError, Site, Stamp};
use crate::node::local_unix_ms;
use crate::node::opening;
use crate::node::state::{ContentState, Phase};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headwater_model::{ContentId, Name};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use ring::hmac;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often changes of the file are looked for while there are sessions.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// An answer counts so long after the question was shown.
const ANSWER_WITHIN_MS: u64 = 10 * 60 * 1000;
/// One that comes sooner was a click that was meant for something else.
const ANSWER_AFTER_MS: u64 = 500;
/// Contents that sites had this node fetch since it started.
const MAX_BEGUN: usize = 256;

/// What the user consented to, and what sites have of it.
pub(super) struct Consenting {
    file: ConsentFile,
    /// Of the tokens that answers come with.
    key: hmac::Key,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    remembered: Consents,
    /// What was read last.
    stamp: Stamp,
    /// Why the file cannot be used.
    trouble: Option<String>,
    sessions: Sessions,
    begun: BTreeSet<ContentId>,
}

/// A session, as a request needs it.
pub(super) struct Held {
    pub(super) site: Site,
    pub(super) content: ContentId,
    pub(super) ended: CancellationToken,
}

impl Consenting {
    /// Consents lie in `data`; `key` is for the tokens of questions.
    pub(super) fn new(data: &Path, key: &[u8]) -> Consenting {
        let consenting = Consenting {
            file: ConsentFile::of(data),
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            state: Mutex::default(),
        };
        consenting.read();
        consenting
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn knows(&self, site: &Site) -> bool {
        let state = self.lock();
        state.sessions.know(local_unix_ms(), site, &state.remembered)
    }

    pub(super) fn session(&self, secret: &[u8]) -> Option<Held> {
        let state = self.lock();
        let (about, session) = state.sessions.find(local_unix_ms(), secret)?;
        Some(Held { site: about.site.clone(), content: about.content, ended: session.ended.clone() })
    }

    /// Reads the file again if it has changed.
    fn read(&self) {
        let stamp = self.file.stamp();
        if self.lock().stamp == stamp && stamp.is_some() {
            return;
        }
        let read = self.file.read();
        self.heed(stamp, read);
    }

    /// What is in the file now: what is no longer allowed ends.
    fn heed(&self, stamp: Stamp, read: Result<Consents, ConsentsError>) {
        let mut state = self.lock();
        let state = &mut *state;
        state.stamp = stamp;
        state.trouble = read.as_ref().err().map(ToString::to_string);
        if let Some(trouble) = &state.trouble {
            tracing::warn!("{trouble}");
        }
        state.remembered = read.unwrap_or_default();
        state.sessions.keep_allowed(local_unix_ms(), &state.remembered);
    }

    /// Changes the file, and heeds what is in it then.
    fn change(&self, change: impl FnOnce(&mut Consents) -> Result<(), ConsentsError>) -> Result<(), ConsentsError> {
        let (consents, ()) = self.file.change(change)?;
        self.heed(self.file.stamp(), Ok(consents));
        Ok(())
    }

    fn revoke(&self, site: &Site) -> Result<(), ConsentsError> {
        self.lock().sessions.revoke(site);
        let changed = self.change(|all| {
            all.revoke(site);
            Ok(())
        });
        let mut state = self.lock();
        let state = &mut *state;
        state.sessions.keep_allowed(local_unix_ms(), &state.remembered);
        changed
    }

    fn tag(&self, site: &Site, name: &Name, shown_ms: u64) -> hmac::Tag {
        hmac::sign(&self.key, format!("{shown_ms} {site} {name}").as_bytes())
    }

    /// What an answer to the question that is shown now comes with: only who sees the page can send one.
    fn token(&self, site: &Site, name: &Name, now: u64) -> String {
        format!("{now}.{}", URL_SAFE_NO_PAD.encode(self.tag(site, name, now)))
    }

    /// Whether an answer counts; why it does not, in words.
    fn check(&self, token: &str, site: &Site, name: &Name, now: u64) -> Result<(), &'static str> {
        let old = "The page was too old: please answer again.";
        let (shown_ms, tag) = token.split_once('.').ok_or(old)?;
        let shown_ms = shown_ms.parse::<u64>().map_err(|_| old)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| old)?;
        let text = format!("{shown_ms} {site} {name}");
        hmac::verify(&self.key, text.as_bytes(), &tag).map_err(|_| old)?;
        match now.checked_sub(shown_ms) {
            Some(since) if since < ANSWER_AFTER_MS => Err("That was very quick: please read what is asked."),
            Some(since) if since <= ANSWER_WITHIN_MS => Ok(()),
            _ => Err(old),
        }
    }
}

/// Heeds what others change in the file, for as long as the node runs.
pub(super) async fn watch(inner: Arc<Inner>) {
    let mut pulse = tokio::time::interval(LOOK_EVERY);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            _ = pulse.tick() => {}
        }
        if inner.gateway.as_ref().is_some_and(|g| !g.consenting.lock().sessions.is_empty()) {
            look(&inner).await;
        }
    }
}

/// Heeds what others changed in the file.
pub(super) async fn look(inner: &Arc<Inner>) {
    with_disk(inner, Consenting::look).await;
}

impl Consenting {
    fn look(&self) {
        self.read();
        let mut state = self.lock();
        let state = &mut *state;
        state.sessions.keep_allowed(local_unix_ms(), &state.remembered);
    }
}

/// Does what may wait for the disk.
async fn with_disk<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Consenting) -> T + Send + 'static,
) -> Option<T> {
    let inner = inner.clone();
    let work = move || inner.gateway.as_ref().map(|g| work(&g.consenting));
    tokio::task::spawn_blocking(work).await.ok().flatten()
}

/// What a site asks for.
struct Wish {
    site: Site,
    name: Name,
}

/// The parts of a query that are known here; of several of one name the first.
#[derive(Default)]
struct Query {
    site: Option<String>,
    content: Option<String>,
    choice: Option<String>,
    token: Option<String>,
    revoke: Option<String>,
}

impl Query {
    fn of(query: Option<&str>) -> Query {
        let mut of = Query::default();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let part = match &*name {
                "site" => &mut of.site,
                "content" => &mut of.content,
                "choice" => &mut of.choice,
                "token" => &mut of.token,
                "revoke" => &mut of.revoke,
                _ => continue,
            };
            part.get_or_insert_with(|| value.into_owned());
        }
        of
    }

    fn name(&self) -> Result<Name, String> {
        let text = self.content.as_deref().ok_or("no content was named: say content=hw://…")?;
        let name: Name = text.parse().map_err(|e: headwater_model::name::NotAName| e.to_string())?;
        // A site does not choose what this machine fetches by HTTP.
        Ok(Name { log: None, ..name })
    }

    fn wish(&self) -> Result<Wish, String> {
        let site = self.site.as_deref().ok_or("no site was named: say site=https://…")?;
        Ok(Wish { site: site.parse().map_err(|e: crate::consents::NotASite| e.to_string())?, name: self.name()? })
    }
}

/// The question, or what has become of it.
pub(super) async fn ask(inner: &Arc<Inner>, gateway: &Gateway, query: Option<&str>, click: bool) -> Response<Pieces> {
    let query = Query::of(query);
    let Wish { site, name } = match query.wish() {
        Ok(wish) => wish,
        Err(why) => return own_page(StatusCode::BAD_REQUEST, pages::refused(&why)),
    };
    let (now, consenting) = (local_unix_ms(), &gateway.consenting);
    let token = consenting.token(&site, &name, now);
    let question = |note| Question { site: &site, name: &name, token: &token, note };
    if !click {
        return own_page(StatusCode::OK, question(None).ask());
    }
    if let Err(why) = consenting.check(query.token.as_deref().unwrap_or_default(), &site, &name, now) {
        return own_page(StatusCode::CONFLICT, question(Some(why)).ask());
    }
    let about = About { site: site.clone(), publisher: name.key, content: name.content() };
    let done = match query.choice.as_deref() {
        Some("once") => {
            consenting.lock().sessions.allow_once(now, about);
            Some(Ok(()))
        }
        Some("always") => {
            let content = name.name.clone();
            let consent = Consent { site: site.clone(), publisher: name.key, content, since_unix_ms: now };
            with_disk(inner, move |c| c.change(|all| all.give(consent))).await
        }
        Some("revoke") => {
            let site = site.clone();
            with_disk(inner, move |c| c.revoke(&site)).await
        }
        _ => return own_page(StatusCode::OK, pages::not_allowed(&site)),
    };
    match done {
        Some(Ok(())) if query.choice.as_deref() == Some("revoke") => {
            own_page(StatusCode::OK, pages::not_allowed(&site))
        }
        Some(Ok(())) => own_page(StatusCode::OK, question(None).allowed()),
        Some(Err(e)) => own_page(StatusCode::INTERNAL_SERVER_ERROR, pages::refused(&e.to_string())),
        None => own_page(StatusCode::INTERNAL_SERVER_ERROR, pages::refused("the peer stops")),
    }
}

/// All consents; a click takes one back.
pub(super) async fn list(inner: &Arc<Inner>, gateway: &Gateway, query: Option<&str>, click: bool) -> Response<Pieces> {
    let revoked = Query::of(query).revoke.filter(|_| click).and_then(|site| site.parse::<Site>().ok());
    let trouble = match revoked {
        Some(site) => with_disk(inner, move |c| c.revoke(&site).err().map(|e| e.to_string())).await.flatten(),
        None => {
            look(inner).await;
            None
        }
    };
    let names = |id: &ContentId| {
        let state = inner.lock();
        state.contents.get(id).and_then(|c| c.name.as_ref()).map_or_else(|| format!("{id:.8}"), |n| n.name.clone())
    };
    let once: Vec<(Site, ContentId, u64)> =
        gateway.consenting.lock().sessions.iter().map(|(a, until)| (a.site.clone(), a.content, until)).collect();
    let once: Vec<(Site, String, u64)> = once.into_iter().map(|(site, id, until)| (site, names(&id), until)).collect();
    let state = gateway.consenting.lock();
    let once = once.iter().map(|(site, name, until)| (site, name.clone(), *until));
    own_page(StatusCode::OK, pages::consents(&state.remembered, once, trouble.or(state.trouble.clone()).as_deref()))
}

/// A page of `site` asks for what the user allowed it; the content begins to come if it is not here.
pub(super) fn session(
    inner: &Arc<Inner>,
    gateway: &Gateway,
    site: &Site,
    request: &Request<Incoming>,
) -> Result<Response<Pieces>, Refused> {
    let name = Query::of(request.uri().query()).name().map_err(|e| Refused::new(StatusCode::BAD_REQUEST, e))?;
    let about = About { site: site.clone(), publisher: name.key, content: name.content() };
    let (now, mut secret) = (local_unix_ms(), [0; SECRET_BYTES]);
    getrandom::fill(&mut secret).map_err(|e| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the system gives no random numbers: {e}"))
    })?;
    let (secret, ends_unix_ms) = {
        let mut state = gateway.consenting.lock();
        let state = &mut *state;
        if !state.sessions.allow(now, &about, &state.remembered) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "the user has not allowed this: open /consent in a tab"));
        }
        if !state.begun.contains(&about.content) && state.begun.len() >= MAX_BEGUN {
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "sites had this peer fetch too many contents"));
        }
        state.begun.insert(about.content);
        let session = state.sessions.begin(now, about, secret);
        (session.secret, session.ends_unix_ms)
    };
    fetch(inner, &name);
    // By the name that the site used: for browsers another one is another server.
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let url = format!("http://{host}/s/{}/", URL_SAFE_NO_PAD.encode(secret));
    let said = serde_json::json!({ "version": 1, "url": url, "name": name.name, "ends_unix_ms": ends_unix_ms });
    let mut response = text(StatusCode::OK, &said.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Begins with a content, unless it is here; one that came to nothing is tried again.
fn fetch(inner: &Arc<Inner>, name: &Name) {
    let id = name.content();
    let failed = inner.lock().contents.get(&id).map(|c| matches!(c.phase, Phase::Failed));
    // It is known at once, so that what the site asks for next finds it.
    match failed {
        None => opening::begin(inner, ContentState::new(id, Some(name.clone()), None, None)),
        Some(true) => opening::again(inner, id),
        Some(false) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(content: &str) -> (Site, Name) {
        let name = format!("hw://c:1/{content}#key={}", "ab".repeat(32)).parse().unwrap();
        ("https://films.example".parse().unwrap(), name)
    }

    #[test]
    fn an_answer_counts_for_its_question_and_for_some_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let consenting = Consenting::new(folder.path(), b"one");
        let ((site, film), (_, other)) = (wish("film"), wish("other"));
        let token = consenting.token(&site, &film, 1_000_000);
        let at = |now| consenting.check(&token, &site, &film, now).is_ok();
        assert!(at(1_000_000 + ANSWER_AFTER_MS) && at(1_000_000 + ANSWER_WITHIN_MS));
        assert!(!at(1_000_000 + ANSWER_AFTER_MS - 1) && !at(1_000_001 + ANSWER_WITHIN_MS) && !at(999_999));
        let now = 1_002_000;
        assert!(consenting.check(&token, &site, &other, now).is_err());
        assert!(consenting.check(&token, &"https://evil.example".parse().unwrap(), &film, now).is_err());
        assert!(consenting.check(&token.replacen("1000000", "1001000", 1), &site, &film, now).is_err());
        let another = Consenting::new(folder.path(), b"two");
        assert!(another.check(&token, &site, &film, now).is_err(), "of another node");
        for nonsense in ["", ".", "1.", "1000000", "x.y", "18446744073709551616.AA", "1000000.@@"] {
            assert!(consenting.check(nonsense, &site, &film, now).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn any_query_is_read_or_refused() {
        let (_, film) = wish("film");
        let encoded: String = url::form_urlencoded::byte_serialize(film.to_string().as_bytes()).collect();
        let good =
            format!("content={encoded}%26log%3Dhttp://10.0.0.1/x&site=https://films.example&site=https://evil.example");
        let wish = Query::of(Some(&good)).wish().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((wish.site.as_str(), wish.name.log), ("https://films.example", None));
        let mut state = 7u64;
        for _ in 0..20_000 {
            let mut bytes = good.clone().into_bytes();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 20) as u8;
            }
            if let Ok(wish) = Query::of(Some(&String::from_utf8_lossy(&bytes))).wish() {
                assert!(
                    wish.name.log.is_none() && !wish.site.as_str().contains(['/', '<', ' '])
                        || wish.site.as_str().contains("://")
                );
            }
        }
    }
}
