//! The publisher's credentials for its origin.

use std::fmt;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use url::Url;

use super::OriginError;

/// Most credential headers sent to an origin, and their and the query's most bytes.
const MAX_ACCESS_HEADERS: usize = 32;
const MAX_ACCESS_BYTES: usize = 16 * 1024;

/// The publisher's credentials for its origin. They go to the host of the file's URL only, never to
/// the target of a redirect elsewhere, and `Debug` shows how many there are and not what.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Headers by name and value, such as `Authorization` or `Cookie`; at most 32.
    pub headers: Vec<(String, String)>,
    /// Query string of a signed URL, appended to the file's URL; with or without the `?`.
    pub query: Option<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("headers", &self.headers.len())
            .field("query", &self.query.as_ref().map(|_| "redacted"))
            .finish()
    }
}

/// The file's URL with the query of a signed URL appended.
pub(super) fn with_query(url: &Url, access: &Access) -> Result<Url, OriginError> {
    let mut url = url.clone();
    if let Some(query) = &access.query {
        if query.len() > MAX_ACCESS_BYTES {
            let what = format!("the query is longer than {MAX_ACCESS_BYTES} bytes");
            return Err(OriginError::BadAccess { what });
        }
        let query = query.trim_start_matches('?');
        let both = match url.query() {
            Some(own) => format!("{own}&{query}"),
            None => query.to_owned(),
        };
        url.set_query(Some(&both));
    }
    Ok(url)
}

/// The credentials as headers. A name is no less secret than its value here: one who forgets the
/// colon puts the secret into the name, so errors count headers instead of naming them.
pub(super) fn credential_headers(access: &Access) -> Result<HeaderMap, OriginError> {
    let bad = |what: String| OriginError::BadAccess { what };
    let bytes = |(name, value): &(String, String)| name.len() + value.len();
    let total: usize = access.headers.iter().map(bytes).sum();
    if access.headers.len() > MAX_ACCESS_HEADERS || total > MAX_ACCESS_BYTES {
        return Err(bad(format!("more than {MAX_ACCESS_HEADERS} headers or {MAX_ACCESS_BYTES} bytes of them")));
    }
    let mut headers = HeaderMap::new();
    for (index, (name, value)) in access.headers.iter().enumerate() {
        let number = index + 1;
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(format!("header {number} has an invalid name")))?;
        let mut value =
            HeaderValue::from_str(value).map_err(|_| bad(format!("header {number} has an invalid value")))?;
        if is_framing(&name) {
            return Err(bad(format!("header {number} steers the request itself and is no credential")));
        }
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// Headers that would change what is asked for, where, or how the request is delimited.
fn is_framing(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "range"
            | "if-range"
            | "accept-encoding"
            | "connection"
            | "content-length"
            | "transfer-encoding"
            | "te"
            | "upgrade"
    )
}
