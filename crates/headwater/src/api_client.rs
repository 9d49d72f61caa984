//! The control center's HTTP API, as the commands use it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use headwater_model::{Hash, Name, NodeId};
use headwater_peer::origin::Access;
use headwater_wire::StaticLog;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde::Deserialize;
use serde_json::Value;
use url::{Host, Url};

/// Where `headwater control` listens when nothing else is said.
pub const DEFAULT_CONTROL: &str = "http://127.0.0.1:7400";
/// Header with the credentials of a content's origin: base64 of the JSON of an [`Access`].
const ACCESS_HEADER: &str = "x-headwater-origin-access";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two bytes of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Of an error's text, what is shown.
const MAX_MESSAGE_CHARS: usize = 2000;

/// Who may get a content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Audience {
    /// Whoever knows its name.
    #[default]
    Open,
    /// Who has a viewer token for it.
    Tokens,
}

/// What the control center says of a content that it has registered.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Published {
    /// Content id.
    pub content: String,
    /// Name of the content.
    pub name: String,
    /// Version.
    pub epoch: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Number of pieces.
    pub pieces: u32,
    /// Number of objects.
    pub objects: usize,
    /// The name for viewers.
    pub hw: String,
}

/// Why a call failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApiError {
    /// Not an address of a control center.
    #[error(
        "{text:?} is no address of a control center ({why}): give it as {DEFAULT_CONTROL}, the api address that `headwater control` printed"
    )]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The token or the TLS set-up cannot be used.
    #[error("cannot call the control center: {0}")]
    Setup(String),
    /// No answer.
    #[error("the control center at {url} does not answer ({cause}){hint}")]
    Unreachable {
        /// Its address.
        url: String,
        /// What the network said.
        cause: String,
        /// What may help.
        hint: &'static str,
    },
    /// It says no: status 4xx.
    #[error("the control center refuses (status {status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its reason.
        message: String,
    },
    /// It cannot: status 5xx, or one that has no meaning here.
    #[error("the control center failed (status {status}): {message}")]
    Failed {
        /// HTTP status.
        status: u16,
        /// Its reason.
        message: String,
    },
    /// The answer is none of a control center's.
    #[error("{url} answers, but not as a control center does ({why}): check the address")]
    Answer {
        /// Its address.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
}

/// A client of one control center.
#[derive(Clone)]
pub struct ApiClient {
    base: Url,
    authorization: Option<HeaderValue>,
    http: reqwest::Client,
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiClient({})", self.base)
    }
}

impl ApiClient {
    /// For the control center at `url`, which by HTTPS must have a certificate that the system trusts. A bare
    /// `host:port` is HTTP on loopback and HTTPS elsewhere.
    ///
    /// # Errors
    /// [`ApiError::Address`], [`ApiError::Setup`].
    pub fn new(url: &str, token: Option<&str>) -> Result<ApiClient, ApiError> {
        Self::pinned(url, token, None)
    }

    /// As [`new`](Self::new), but by HTTPS any certificate of the key whose hash is `pin` is good, and no other.
    ///
    /// # Errors
    /// As [`new`](Self::new); a pin without HTTPS is an [`ApiError::Address`].
    pub fn pinned(url: &str, token: Option<&str>, pin: Option<NodeId>) -> Result<ApiClient, ApiError> {
        let (base, loopback) = address(url)?;
        if pin.is_some() && base.scheme() != "https" {
            return Err(ApiError::Address { text: url.into(), why: "a pin (--cc) can be checked by https only" });
        }
        if token.is_some() && base.scheme() == "http" && !loopback {
            tracing::warn!(control = %base, "the token goes over the network in clear; use https");
        }
        let authorization = token.map(bearer).transpose()?;
        // An error means that the process has a provider, which then serves here too.
        let _ = ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT);
        if loopback {
            builder = builder.no_proxy();
        }
        builder = match pin {
            Some(pin) => builder.tls_backend_preconfigured(pinned_tls(pin)?),
            // Certificates of the system are not read where none is shown; a container may have none.
            None if base.scheme() == "http" => builder.tls_certs_only([]),
            None => builder,
        };
        let http = builder.build().map_err(|e| ApiError::Setup(causes(&e)))?;
        Ok(ApiClient { base, authorization, http })
    }

    /// Its address.
    pub fn url(&self) -> &Url {
        &self.base
    }

    /// Registers a content, or a new version of it. `access` is what its origin asks for; viewers get to know it only
    /// when `share_access`. Lightweight clients get the content named `lightweight` in its place.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn publish(
        &self,
        made: &StaticLog,
        access: &Access,
        share_access: bool,
        audience: Audience,
        lightweight: Option<&str>,
    ) -> Result<Published, ApiError> {
        let audience = match audience {
            Audience::Open => "open",
            Audience::Tokens => "tokens",
        };
        let lightweight = lightweight.map_or(String::new(), |name| format!("&lightweight={}", escape(name)));
        let path = format!("/v1/contents?share_origin_credentials={share_access}&audience={audience}{lightweight}");
        let mut request = self.request(Method::POST, &path)?.body(made.encode());
        if *access != Access::default() {
            let json = serde_json::to_vec(access).map_err(|e| ApiError::Setup(e.to_string()))?;
            let mut value =
                HeaderValue::from_str(&STANDARD.encode(json)).map_err(|e| ApiError::Setup(e.to_string()))?;
            value.set_sensitive(true);
            request = request.header(ACCESS_HEADER, value);
        }
        let answer = self.json(request).await?;
        serde_json::from_value(answer).map_err(|e| self.not_an_answer(&e))
    }

    /// GET of `path` with its query, such as `/v1/status`.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn get_json(&self, path: &str) -> Result<Value, ApiError> {
        self.json(self.request(Method::GET, path)?).await
    }

    /// DELETE of `path`.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn delete(&self, path: &str) -> Result<(), ApiError> {
        self.send(self.request(Method::DELETE, path)?).await.map(drop)
    }

    /// Takes back the content with this name, `hw://` name or id.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn unpublish(&self, content: &str) -> Result<(), ApiError> {
        self.delete(&format!("/v1/contents/{}", escape(&content_of(content)))).await
    }

    /// Why the node `client` has the parents it has for the content with this name, `hw://` name or id.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn explain(&self, client: &str, content: &str) -> Result<Value, ApiError> {
        let (client, content) = (escape(client), escape(&content_of(content)));
        self.get_json(&format!("/v1/explain?client={client}&content={content}")).await
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, ApiError> {
        let text = format!("{}/{}", self.base.as_str().trim_end_matches('/'), path.trim_start_matches('/'));
        let url = Url::parse(&text).map_err(|_| ApiError::Address { text, why: "not a URL" })?;
        let request = self.http.request(method, url);
        Ok(match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        })
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, ApiError> {
        let body = self.send(request).await?;
        serde_json::from_slice(&body).map_err(|e| self.not_an_answer(&e))
    }

    /// The body of an answer that says yes.
    async fn send(&self, request: RequestBuilder) -> Result<Bytes, ApiError> {
        let mut response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.not_an_answer(&"more than 64 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        let status = response.status();
        if status.is_success() {
            return Ok(body.into());
        }
        let message = message(status.as_u16(), &body);
        let status = status.as_u16();
        Err(if (400..500).contains(&status) {
            ApiError::Refused { status, message }
        } else {
            ApiError::Failed { status, message }
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        let mut cause = causes(error);
        // The address is said already.
        if let Some(at) = cause.find(" for url (") {
            let end = cause[at..].find("): ").map_or(cause.len(), |e| at + e + 1);
            cause.replace_range(at..end, "");
        }
        let hint = match cause.as_str() {
            c if c.contains("UnknownIssuer") => {
                "; if it has a certificate of its own making, say which with --cc NODE, as `headwater control` printed it"
            }
            c if c.contains("Connection refused") => "; is it running, and is this its api address?",
            _ => "",
        };
        ApiError::Unreachable { url: self.base.to_string(), cause, hint }
    }

    fn not_an_answer(&self, why: &dyn fmt::Display) -> ApiError {
        ApiError::Answer { url: self.base.to_string(), why: why.to_string() }
    }
}

fn address(text: &str) -> Result<(Url, bool), ApiError> {
    let no = |why| ApiError::Address { text: text.into(), why };
    let parse = |text: &str| Url::parse(text).map_err(|_| no("not a URL"));
    let mut url = if text.contains("://") { parse(text)? } else { parse(&format!("https://{text}"))? };
    if !matches!(url.scheme(), "http" | "https") {
        return Err(no("neither http nor https"));
    }
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => return Err(no("no host")),
    };
    if loopback && !text.contains("://") {
        url = parse(&format!("http://{text}"))?;
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(no("more than scheme, host and path"));
    }
    Ok((url, loopback))
}

fn bearer(token: &str) -> Result<HeaderValue, ApiError> {
    let bad = |_| ApiError::Setup("the token has characters that no token has".into());
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(bad)?;
    value.set_sensitive(true);
    Ok(value)
}

/// What the API understands: the id for an `hw://` name, anything else as it is.
fn content_of(text: &str) -> String {
    text.parse::<Name>().map_or_else(|_| text.to_owned(), |name| name.content().to_string())
}

/// For one segment of a path, or one value of a query.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
            _ => out += &format!("%{b:02X}"),
        }
        out
    })
}

/// What an answer that says no tells people.
fn message(status: u16, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        error: String,
    }
    let said = match serde_json::from_slice::<Said>(body) {
        Ok(said) => said.error,
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let said = if said.is_empty() { "it gives no reason".to_owned() } else { said };
    let said: String = said.chars().filter(|c| !c.is_control() || *c == '\n').take(MAX_MESSAGE_CHARS).collect();
    match status {
        401 => format!("{said} (give a token with --token or HEADWATER_TOKEN)"),
        _ => said,
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source}");
        next = source.source();
    }
    text
}

fn pinned_tls(pin: NodeId) -> Result<rustls::ClientConfig, ApiError> {
    let provider = ring::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| ApiError::Setup(e.to_string()))?;
    let verifier = Arc::new(ByKey { pin, algorithms });
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Believes the holder of one key, whatever else its certificate says.
#[derive(Debug)]
struct ByKey {
    pin: NodeId,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let found = NodeId(Hash::of(&[key.as_ref()]).0);
        if found != self.pin {
            return Err(rustls::Error::General(format!("node {found} is there and not {}, which is pinned", self.pin)));
        }
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "api_client_tests.rs"]
mod tests;
