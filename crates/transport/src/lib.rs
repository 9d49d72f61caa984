//! QUIC between nodes that know one another by key (architecture, idea 5): identities, endpoints, framed streams.
//! Where UDP is blocked, HTTP on TCP takes its place: a server for it, and control sessions over a WebSocket.
//! Pages in browsers speak WebTransport on the same endpoint.
//! Both shells use it, the control center's and the peer's.

mod congestion;
mod endpoint;
mod framed;
mod http;
mod identity;
mod page;
mod proof;
mod tls;
mod web;

pub use endpoint::{Alpn, BindError, DialError, Listener, SOCKET_BUFFER_BYTES, bind};
pub use framed::{Broken, ControlReader, ControlWriter, ReadError, Reader, Writer};
pub use http::{BoxError, HttpLimits, Io, http_server_config, serve_http};
pub use identity::{Identity, IdentityError};
pub use page::{PAGE_PATH, PageCertificates, PageError, PeerConnection};
pub use proof::{ProofError, Proved, Unproved, prove_as_control, prove_as_node, prove_as_page, prove_page};
pub use tls::{Shown, Shows, certificate_of, https_client_config, node_of};
