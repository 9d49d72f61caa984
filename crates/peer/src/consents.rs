//! The user's consents: which web sites may read which publishers' contents through the gateway of the node on this
//! machine. They lie in the node's data folder, where a running node heeds changes.

use fs4::fs_std::FileExt;
use headwater_model::Hash;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;
use url::{Host, Url};

/// Format of the file.
const FORMAT: u32 = 1;
/// Consents that are remembered.
pub const MAX_CONSENTS: usize = 256;
/// A file of so many consents is smaller.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Bytes of a site's origin.
const MAX_SITE_BYTES: usize = 300;
/// Characters of a content's name that are kept to remind the user.
const MAX_REMINDER_CHARS: usize = 256;
/// The file's name in the data folder, and that of the lock which writers hold.
const FILE: &str = "consents.json";
const LOCK: &str = "consents.lock";

/// A web site: a web origin as browsers write it, `https://films.example`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Site(String);

/// Why a text is no site that can be consented to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotASite {
    /// It is something else.
    #[error("a site is written as https://films.example, without a path")]
    NoOrigin,
    /// Whoever is on the way to it could speak in its name.
    #[error("only sites with https:// can be allowed, and http:// ones on this machine")]
    NotSecure,
}

impl Site {
    /// The site that an `Origin` header names; `None` for any other text, also an unusual spelling.
    pub fn of_origin(header: &str) -> Option<Site> {
        header.parse().ok().filter(|site: &Site| site.0 == header)
    }
    /// As browsers write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Site {
    type Err = NotASite;
    fn from_str(text: &str) -> Result<Site, NotASite> {
        let url = (text.len() <= MAX_SITE_BYTES).then(|| Url::parse(text).ok()).flatten().ok_or(NotASite::NoOrigin)?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !bare || !url.username().is_empty() || url.password().is_some() || !url.has_host() {
            return Err(NotASite::NoOrigin);
        }
        let here = match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if here => {}
            "http" => return Err(NotASite::NotSecure),
            _ => return Err(NotASite::NoOrigin),
        }
        Ok(Site(url.origin().ascii_serialization()))
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A site may read all contents of a publisher: not of others, as it could name what this node may see and it may not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Consent {
    /// Who may read.
    pub site: Site,
    /// Fingerprint of the publisher's key.
    pub publisher: Hash,
    /// The content for which it was given.
    pub content: String,
    /// When, Unix milliseconds.
    pub since_unix_ms: u64,
}

/// All consents, by site.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Consents(Vec<Consent>);

/// Why the consents cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConsentsError {
    /// The system refuses.
    #[error("cannot {what} the consents in {path:?}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something else is in the file.
    #[error("{path:?} holds no consents ({why}): no site is allowed anything until it is removed")]
    NotConsents {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Too many.
    #[error("{MAX_CONSENTS} consents are remembered already: revoke some first")]
    Full,
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    consents: Vec<WrittenConsent>,
}

#[derive(Serialize, Deserialize)]
struct WrittenConsent {
    site: String,
    publisher: String,
    content: String,
    since_unix_ms: u64,
}

impl Consents {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn decode(bytes: &[u8]) -> Result<Consents, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if version != FORMAT {
            return Err(format!("it has format {version}, and this version of Headwater knows format {FORMAT} only"));
        }
        let Written { consents, .. } = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if consents.len() > MAX_CONSENTS {
            return Err(format!("more than {MAX_CONSENTS} consents"));
        }
        let mut all = Consents::default();
        for c in consents {
            let site: Site = c.site.parse().map_err(|e| format!("{:?}: {e}", c.site))?;
            let publisher = c.publisher.parse().map_err(|_| format!("{:?} is no publisher's key", c.publisher))?;
            let consent = Consent { site, publisher, content: c.content, since_unix_ms: c.since_unix_ms };
            all.give(consent).map_err(|e| e.to_string())?;
        }
        Ok(all)
    }

    fn encode(&self) -> Vec<u8> {
        let consents = self.0.iter().map(|c| WrittenConsent {
            site: c.site.to_string(),
            publisher: c.publisher.to_string(),
            content: c.content.clone(),
            since_unix_ms: c.since_unix_ms,
        });
        let written = Written { version: FORMAT, consents: consents.collect() };
        // Strings and numbers: there is nothing that could not be written.
        serde_json::to_vec_pretty(&written).unwrap_or_default()
    }

    /// In the order of sites.
    pub fn iter(&self) -> impl Iterator<Item = &Consent> {
        self.0.iter()
    }

    /// Whether `site` may read what this publisher publishes.
    pub fn allow(&self, site: &Site, publisher: &Hash) -> bool {
        self.0.iter().any(|c| c.site == *site && c.publisher == *publisher)
    }

    /// Whether `site` may read anything.
    pub fn know(&self, site: &Site) -> bool {
        self.0.iter().any(|c| c.site == *site)
    }

    /// The user consents.
    ///
    /// # Errors
    /// [`ConsentsError::Full`].
    pub fn give(&mut self, mut consent: Consent) -> Result<(), ConsentsError> {
        if self.allow(&consent.site, &consent.publisher) {
            return Ok(());
        }
        if self.0.len() >= MAX_CONSENTS {
            return Err(ConsentsError::Full);
        }
        consent.content = consent.content.chars().take(MAX_REMINDER_CHARS).collect();
        self.0.push(consent);
        self.0.sort_by(|a, b| (&a.site, &a.publisher).cmp(&(&b.site, &b.publisher)));
        Ok(())
    }

    /// The user takes back what `site` was allowed: how many consents that were.
    pub fn revoke(&mut self, site: &Site) -> usize {
        let before = self.0.len();
        self.0.retain(|c| c.site != *site);
        before - self.0.len()
    }
}

/// The consents of a node.
#[derive(Clone, Debug)]
pub struct ConsentFile {
    path: PathBuf,
    lock: PathBuf,
}

/// Differs when the file has changed.
pub type Stamp = Option<(SystemTime, u64)>;

impl ConsentFile {
    /// Those of the node with this data folder.
    pub fn of(data: &Path) -> ConsentFile {
        ConsentFile { path: data.join(FILE), lock: data.join(LOCK) }
    }

    /// What to compare to see whether it has changed.
    pub fn stamp(&self) -> Stamp {
        let found = fs::metadata(&self.path).ok()?;
        Some((found.modified().ok()?, found.len()))
    }

    /// All consents; none where there is no file.
    ///
    /// # Errors
    /// [`ConsentsError`].
    pub fn read(&self) -> Result<Consents, ConsentsError> {
        let mut bytes = Vec::new();
        match fs::File::open(&self.path).and_then(|f| f.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Consents::default()),
            Err(source) => return Err(ConsentsError::Io { what: "read", path: self.path.clone(), source }),
            Ok(_) => {}
        }
        let not_consents = |why| ConsentsError::NotConsents { path: self.path.clone(), why };
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(not_consents("it is too long".into()));
        }
        Consents::decode(&bytes).map_err(not_consents)
    }

    /// Changes them, one writer at a time; returns what they are then. A file that cannot be read is not replaced.
    ///
    /// # Errors
    /// [`ConsentsError`].
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Consents) -> Result<T, ConsentsError>,
    ) -> Result<(Consents, T), ConsentsError> {
        let io = |source| ConsentsError::Io { what: "change", path: self.path.clone(), source };
        let lock = private_file(&self.lock).map_err(io)?;
        // Held until `lock` is closed.
        lock.lock_exclusive().map_err(io)?;
        let mut consents = self.read()?;
        let before = consents.clone();
        let changed = change(&mut consents)?;
        if consents != before {
            self.replace(&consents.encode()).map_err(io)?;
        }
        Ok((consents, changed))
    }

    /// Puts a complete file in the place of the former one.
    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = private_file(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

/// Makes or empties a file that only this user may read.
fn private_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
#[path = "consents_tests.rs"]
mod tests;
