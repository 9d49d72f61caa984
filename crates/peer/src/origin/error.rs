//! What can go wrong with an origin, and what to do about it.

use std::time::Duration;

use thiserror::Error;
use url::Url;

/// Why an origin did not yield what was asked of it.
///
/// URLs are printed without user, password, query and fragment, so that no credential gets into a log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OriginError {
    /// The HTTP client could not be built from its configuration.
    #[error("cannot set up the HTTP client: {cause}")]
    Setup {
        /// What is wrong with the configuration.
        cause: String,
    },
    /// The address is not one of a web server.
    #[error("{url} is not an http or https URL: give the file's address on a web server or CDN")]
    NotHttp {
        /// The address.
        url: String,
    },
    /// This node's own access list has not the origin.
    #[error("{url} is not on this node's access list (--sources)")]
    NotListed {
        /// The address.
        url: String,
    },
    /// The credentials cannot be put into a request. The message shows none of their values.
    #[error("the origin's credentials cannot be sent: {what}")]
    BadAccess {
        /// Which part is unusable and why.
        what: String,
    },
    /// The bytes asked for are not bytes of the file.
    #[error("bytes {first}..{end} are not a range of a file of {length} bytes")]
    BadRange {
        /// First byte asked for.
        first: u64,
        /// End of the range, exclusive.
        end: u64,
        /// The file's length in bytes.
        length: u64,
    },
    /// No connection came about.
    #[error("cannot connect to {url} ({cause}): check the host name and port and that the origin is up")]
    Connect {
        /// The file's address.
        url: String,
        /// What the network said.
        cause: String,
    },
    /// The secure connection was refused by one of its ends.
    #[error(
        "no secure connection to {url} ({cause}): renew the origin's certificate, or, if it comes \
         from a private authority, add that authority's root certificate"
    )]
    Tls {
        /// The file's address.
        url: String,
        /// What the TLS layer said.
        cause: String,
    },
    /// The origin was silent, or slower than the least acceptable rate.
    #[error("{url} was too slow: {waited:?} spent waiting for {what}")]
    TimedOut {
        /// The file's address.
        url: String,
        /// What was waited for.
        what: &'static str,
        /// The time spent waiting.
        waited: Duration,
    },
    /// The connection ended before an answer, or the answer was not HTTP.
    #[error("{url} gave no valid HTTP answer ({cause}): check that this address is a web server's")]
    NoAnswer {
        /// The file's address.
        url: String,
        /// What the HTTP layer said.
        cause: String,
    },
    /// The body ended early; what came before is good.
    #[error("{url} broke off after {got} of {wanted} bytes")]
    Truncated {
        /// The file's address.
        url: String,
        /// Bytes received.
        got: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// The body went on after the bytes asked for.
    #[error(
        "{url} sent more than the {wanted} bytes asked for: its server or a proxy before it \
         answers ranges wrongly"
    )]
    TooLong {
        /// The file's address.
        url: String,
        /// Bytes asked for.
        wanted: u64,
    },
    /// The origin cannot answer now: status 408, 429 or 5xx.
    #[error("{url} cannot answer now (status {status}): the origin is overloaded or broken")]
    Busy {
        /// The file's address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// How long the origin asks to be left alone, at most 60 s.
        retry_after: Option<Duration>,
    },
    /// The origin wants other credentials: status 401 or 403.
    #[error(
        "{url} refuses access (status {status}): give the header, cookie or signed query that the \
         origin expects, or renew it if it expired"
    )]
    Refused {
        /// The file's address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// There is no such file: status 404 or 410.
    #[error("{url} does not exist (status {status}): check the path, or upload the file to the origin")]
    NotFound {
        /// The file's address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The origin sends whole files only.
    #[error(
        "{url} ignores byte ranges: switch them on for this path at the web server or CDN \
         (Accept-Ranges), or use an origin that has them"
    )]
    NoRanges {
        /// The file's address.
        url: String,
    },
    /// The origin refused a range inside the file: status 416.
    #[error("{url} refuses bytes {first}..{end}: the file there is not the one published")]
    RangeRefused {
        /// The file's address.
        url: String,
        /// First byte asked for.
        first: u64,
        /// End of the range, exclusive.
        end: u64,
    },
    /// The origin does not tell how long the file is.
    #[error("{url} does not state its length: serve it as a static file, not as a generated page")]
    NoLength {
        /// The file's address.
        url: String,
    },
    /// The body is compressed, so that its ranges are not the file's.
    #[error(
        "{url} is sent with content encoding {encoding} though none was asked for: switch \
         compression off for this path"
    )]
    Encoded {
        /// The file's address.
        url: String,
        /// The encoding named by the origin.
        encoding: String,
    },
    /// The file is not the one that was expected.
    #[error(
        "{url} changed: its {what} was {was} and is {is}; put the published file back, or publish \
         the new one"
    )]
    Changed {
        /// The file's address.
        url: String,
        /// `length` or `validator`.
        what: &'static str,
        /// The expected value.
        was: String,
        /// The value found.
        is: String,
    },
    /// The redirects did not come to an end.
    #[error("{url} redirects more than {limit} times: give the final address instead")]
    TooManyRedirects {
        /// The file's address.
        url: String,
        /// The limit.
        limit: u32,
    },
    /// An answer that no correct server gives to this request.
    #[error("{url} answers wrongly ({what}): check the web server or CDN at this address")]
    BadResponse {
        /// The file's address.
        url: String,
        /// What is wrong with it.
        what: String,
    },
}

impl OriginError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::TimedOut { .. }
            | Self::NoAnswer { .. }
            | Self::Truncated { .. }
            | Self::Busy { .. } => true,
            Self::Setup { .. }
            | Self::NotHttp { .. }
            | Self::NotListed { .. }
            | Self::BadAccess { .. }
            | Self::BadRange { .. }
            | Self::Tls { .. }
            | Self::TooLong { .. }
            | Self::Refused { .. }
            | Self::NotFound { .. }
            | Self::NoRanges { .. }
            | Self::RangeRefused { .. }
            | Self::NoLength { .. }
            | Self::Encoded { .. }
            | Self::Changed { .. }
            | Self::TooManyRedirects { .. }
            | Self::BadResponse { .. } => false,
        }
    }

    /// How long the origin asks to be left alone (its `Retry-After`), at most 60 s.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Sorts a fault of the HTTP client that came before any answer.
    pub(super) fn from_send(url: &Url, error: reqwest::Error) -> Self {
        let url = shown(url);
        let error = error.without_url();
        let cause = causes(&error);
        if let Some(tls) = tls_fault(&error) {
            let cause = tls.to_string();
            Self::Tls { url, cause }
        } else if error.is_connect() {
            Self::Connect { url, cause }
        } else {
            Self::NoAnswer { url, cause }
        }
    }
}

/// The URL as it may be printed: without user, password, query and fragment.
pub(crate) fn shown(url: &Url) -> String {
    let mut bare = url.clone();
    // Both fail only for URLs that cannot carry a user.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.set_query(None);
    bare.set_fragment(None);
    bare.into()
}

/// The error and its sources in one line, outermost first.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}

/// The TLS error among the sources, if any; I/O errors hide theirs from `source`.
fn tls_fault<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        next = match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as _),
            None => error.source(),
        };
    }
    None
}
