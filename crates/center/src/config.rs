//! What an operator says when starting a control center.

use std::net::SocketAddr;
use std::path::PathBuf;

/// How a control center is to run.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Where it listens: QUIC on UDP, the HTTP API on TCP. Port 0 takes any that is free for both.
    pub listen: SocketAddr,
    /// `host:port` that names carry; the listening address where not given.
    pub public: Option<String>,
    /// Folder of contents and records.
    pub state: PathBuf,
    /// Folder of keys, secret and epoch; the one to back up.
    pub identity: PathBuf,
    /// Table of places (prefix, AS, ISP, country, state, enterprise, site, access technology).
    pub places: Option<PathBuf>,
    /// MaxMind database, asked where the table has no answer.
    pub mmdb: Option<PathBuf>,
    /// Certificate chain and key in PEM for the API; the identity's own certificate where not given.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What one address may have.
    pub per_address: crate::AddressLimits,
    /// Thresholds and limits of the decisions.
    pub core: headwater_center_core::Config,
}
