//! QUIC between nodes that know one another by key (architecture, idea 5): identities, endpoints, framed streams.
//! Both shells use it, the control center's and the peer's.

mod endpoint;
mod framed;
mod identity;
mod tls;

pub use endpoint::{Alpn, BindError, DialError, Listener, bind};
pub use framed::{ReadError, Reader, Writer};
pub use identity::{Identity, IdentityError};
pub use tls::{certificate_of, node_of};
