//! Sessions: what sites may read for some hours, each under a path of its own that only pages of that site may use.

use super::SECRET_BYTES;
use crate::consents::{Consents, Site};
use headwater_model::{ContentId, Hash};
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

/// A session ends so long after it was last asked for; its site may ask again.
pub(super) const LASTS_MS: u64 = 12 * 3600 * 1000;
/// Sessions at once; the one that ends first goes.
const MAX_SESSIONS: usize = 256;
/// Of one site.
const MAX_PER_SITE: usize = 32;

/// The secret of a session's path.
pub(super) type Secret = [u8; SECRET_BYTES];

/// What a site may read.
pub(super) struct Session {
    pub(super) secret: Secret,
    pub(super) ends_unix_ms: u64,
    /// Done when the session ends, and with it all its responses.
    pub(super) ended: CancellationToken,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// What a session, or a consent for once, is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct About {
    pub(super) site: Site,
    pub(super) publisher: Hash,
    pub(super) content: ContentId,
}

/// All sessions, and the consents that are not remembered.
#[derive(Default)]
pub(super) struct Sessions {
    sessions: BTreeMap<About, Session>,
    /// For one content; until when.
    once: BTreeMap<About, u64>,
}

impl Sessions {
    /// The user consents for now.
    pub(super) fn allow_once(&mut self, now: u64, about: About) {
        self.expire(now);
        make_room(&mut self.once, &about, |until| *until);
        self.once.insert(about, now + LASTS_MS);
    }

    /// Whether the user consented to this.
    pub(super) fn allow(&self, now: u64, about: &About, remembered: &Consents) -> bool {
        remembered.allow(&about.site, &about.publisher) || self.once.get(about).is_some_and(|until| *until > now)
    }

    /// Whether the user allowed `site` anything.
    pub(super) fn know(&self, now: u64, site: &Site, remembered: &Consents) -> bool {
        remembered.know(site) || self.once.iter().any(|(about, until)| about.site == *site && *until > now)
    }

    /// The session of a site that has the user's consent: a new one with this secret, or the one that it has, prolonged.
    pub(super) fn begin(&mut self, now: u64, about: About, secret: Secret) -> &Session {
        self.expire(now);
        make_room(&mut self.sessions, &about, |s| s.ends_unix_ms);
        let ended = CancellationToken::new();
        let session = self.sessions.entry(about).or_insert(Session { secret, ends_unix_ms: 0, ended });
        session.ends_unix_ms = now + LASTS_MS;
        session
    }

    /// The session under a path.
    pub(super) fn find(&self, now: u64, secret: &[u8]) -> Option<(&About, &Session)> {
        let found = self.sessions.iter().find(|(_, s)| bool::from(s.secret.as_slice().ct_eq(secret)));
        found.filter(|(_, s)| s.ends_unix_ms > now)
    }

    /// The user takes back what was allowed once.
    pub(super) fn revoke(&mut self, site: &Site) {
        self.once.retain(|about, _| about.site != *site);
    }

    /// Ends the sessions whose time is over or that the user no longer consents to.
    pub(super) fn keep_allowed(&mut self, now: u64, remembered: &Consents) {
        self.expire(now);
        let once = &self.once;
        self.sessions.retain(|about, _| remembered.allow(&about.site, &about.publisher) || once.contains_key(about));
    }

    fn expire(&mut self, now: u64) {
        self.once.retain(|_, until| *until > now);
        self.sessions.retain(|_, s| s.ends_unix_ms > now);
    }

    /// Sites and contents that something is allowed for now, and until when.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&About, u64)> {
        self.once.iter().map(|(about, until)| (about, *until))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

/// Room for one more, of its site first.
fn make_room<T>(all: &mut BTreeMap<About, T>, about: &About, until: impl Fn(&T) -> u64) {
    if all.contains_key(about) {
        return;
    }
    let of_site = all.keys().filter(|a| a.site == about.site).count();
    if of_site < MAX_PER_SITE && all.len() < MAX_SESSIONS {
        return;
    }
    let goes = |a: &About| of_site < MAX_PER_SITE || a.site == about.site;
    let first = all.iter().filter(|(a, _)| goes(a)).min_by_key(|(_, t)| until(t)).map(|(a, _)| a.clone());
    if let Some(first) = first {
        all.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consents::Consent;

    fn about(site: &str, publisher: u8, content: u8) -> About {
        let site = format!("https://{site}.example").parse().unwrap();
        About { site, publisher: Hash([publisher; 32]), content: ContentId([content; 32]) }
    }

    fn secret(n: u64) -> Secret {
        let mut secret = [0; SECRET_BYTES];
        secret[..8].copy_from_slice(&n.to_le_bytes());
        secret
    }

    #[test]
    fn once_is_for_one_content_and_for_hours() {
        let (mut sessions, none) = (Sessions::default(), Consents::default());
        let film = about("films", 1, 1);
        assert!(!sessions.allow(0, &film, &none));
        sessions.allow_once(0, film.clone());
        assert!(sessions.allow(LASTS_MS - 1, &film, &none) && !sessions.allow(LASTS_MS, &film, &none));
        for other in [about("films", 1, 2), about("evil", 1, 1)] {
            assert!(!sessions.allow(1, &other, &none), "{other:?}");
        }
        assert!(sessions.know(1, &film.site, &none) && !sessions.know(1, &about("evil", 1, 1).site, &none));

        let ended = sessions.begin(1, film.clone(), secret(1)).ended.clone();
        assert_eq!(sessions.begin(2, film.clone(), secret(2)).secret, secret(1), "it keeps its path");
        assert!(sessions.find(3, &secret(1)).is_some() && sessions.find(3, &secret(2)).is_none());
        sessions.keep_allowed(4, &none);
        assert!(!ended.is_cancelled());
        sessions.revoke(&film.site);
        sessions.keep_allowed(5, &none);
        assert!(ended.is_cancelled() && sessions.find(5, &secret(1)).is_none());
    }

    #[test]
    fn always_is_for_one_publisher_until_it_is_revoked() {
        let (mut sessions, mut remembered) = (Sessions::default(), Consents::default());
        let film = about("films", 1, 1);
        let (site, publisher, content) = (film.site.clone(), film.publisher, "a film".to_owned());
        remembered.give(Consent { site, publisher, content, since_unix_ms: 0 }).unwrap();
        assert!(sessions.allow(u64::MAX, &about("films", 1, 9), &remembered));
        assert!(!sessions.allow(0, &about("films", 2, 1), &remembered), "what another one publishes");
        let ended = sessions.begin(0, film.clone(), secret(1)).ended.clone();
        assert!(sessions.find(LASTS_MS, &secret(1)).is_none(), "the session ends, the consent stays");
        assert_eq!(remembered.revoke(&film.site), 1);
        sessions.keep_allowed(1, &remembered);
        assert!(ended.is_cancelled());
    }

    #[test]
    fn no_site_takes_the_room_of_others() {
        let mut sessions = Sessions::default();
        let kept = sessions.begin(0, about("films", 1, 1), secret(0)).ended.clone();
        for n in 0..1000 {
            sessions.begin(1 + n, about("busy", (n % 250) as u8, (n / 250) as u8), secret(1 + n));
            sessions.allow_once(1 + n, about("busy", (n % 250) as u8, (n / 250) as u8));
        }
        assert_eq!((sessions.sessions.len(), sessions.once.len()), (1 + MAX_PER_SITE, MAX_PER_SITE));
        assert!(!kept.is_cancelled());
        for n in 0..1000 {
            sessions.begin(2000 + n, about(&format!("site{n}"), 1, 1), secret(2000 + n));
        }
        assert_eq!(sessions.sessions.len(), MAX_SESSIONS);
    }
}
