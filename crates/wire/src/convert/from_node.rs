//! What a node says to the control center.

use super::live::{by_substream, by_substream_to_proto};
use super::static_log::{log_from_proto, log_to_proto};
use super::*;
use crate::limits::*;
use crate::shape;
use headwater_model::log::Log;
use headwater_model::node::{Capabilities, Forwards, Known, Priority, Role, SourceAccess};
use headwater_model::report::{self, Alarm, EdgeReport, Introduction, LiveReport};
use prost::Message;
use proto::alarm_message::What;
use proto::node_message::Body;

/// A message of a node.
#[derive(Clone, PartialEq, Debug)]
pub enum FromNode {
    /// First of all.
    Hello(Hello),
    /// Joins a content's swarm, or comes back to it.
    Join(Join),
    /// Leaves it.
    Leave(Version),
    /// What happened in one interval.
    Heartbeat(Heartbeat),
    /// A leased run is complete.
    LeaseDone {
        /// Of which content.
        version: Version,
        /// Which.
        run: u32,
    },
    /// A leased run could not be fetched.
    LeaseFailed {
        /// Of which content.
        version: Version,
        /// Which.
        run: u32,
        /// In words, for the operator.
        why: String,
        /// The origin gives other bytes than the log says.
        content_changed: bool,
        /// The node's own access list forbids the source.
        forbidden: bool,
    },
    /// Something that cannot wait for a heartbeat.
    Alarm {
        /// In which content.
        version: Version,
        /// What.
        alarm: Alarm,
    },
    /// How a dial went.
    DialResult(report::DialResult),
    /// Asks for a page of leaf hashes.
    PageRequest {
        /// Of which content.
        version: Version,
        /// Which.
        page: u32,
    },
    /// Has this content, which a control center that lost its state may not know.
    Announce(Log),
    /// A page that the control center asked for.
    Page {
        /// Of which content.
        version: Version,
        /// The page.
        page: Page,
    },
    /// Stops.
    Bye,
    /// A probe came here.
    ProbeArrived {
        /// Its number.
        number: [u8; 16],
        /// Where its packets came from.
        seen_from: SocketAddr,
    },
    /// A probe that this node was told to make did not get through.
    ProbeFailed {
        /// Its number.
        number: [u8; 16],
        /// In words, for the operator.
        why: String,
    },
    /// A router forwards this address to the node; `None` when it does no more.
    MappedAddress(Option<SocketAddr>),
    /// Offers so much uplink from now on; 0 = serves nobody.
    UplinkOffer(Rate),
    /// Shows pages these certificates from now on: see [`Hello::page_certificates`].
    PageCertificates(Vec<Hash>),
}

/// How a node begins.
#[derive(Clone, PartialEq, Debug)]
pub struct Hello {
    /// Version of the protocol that it speaks.
    pub protocol: u32,
    /// Who it is and what it can do, all claimed.
    pub introduction: Introduction,
    /// Lets it in where the control center asks for one.
    pub join_token: Token,
    /// Epoch of the control center that it spoke to last; 0 for none.
    pub control_epoch_seen: u64,
    /// Its own clock, Unix milliseconds.
    pub local_unix_ms: u64,
    /// SHA-256 of the certificates that it shows to pages: the present one and the next one. Empty where pages cannot
    /// connect.
    pub page_certificates: Vec<Hash>,
}

/// A [`report::Join`] whose runs are not counted yet.
#[derive(Clone, PartialEq, Debug)]
pub struct Join {
    join: report::Join,
    runs: Option<Bitmap>,
    /// By the publisher's key ([`headwater_model::live::source_claim`]): the node is a source of the live stream.
    pub source: Option<[u8; 64]>,
    /// Lets it in where the content is not open to all.
    pub viewer_token: Token,
}

impl Join {
    /// For sending.
    pub fn new(mut join: report::Join, viewer_token: Token) -> Self {
        let runs = join.runs.take().map(|r| Bitmap::new(&r));
        Self { join, runs, source: None, viewer_token }
    }
    /// With the claim to be a source of the live stream.
    pub fn claiming(self, source: Option<[u8; 64]>) -> Self {
        Self { source, ..self }
    }
    /// The content that it is about.
    pub fn version(&self) -> Version {
        self.join.version
    }
    /// The join, with its runs where `runs_of` knows how many runs the version has. What it says of being a source counts
    /// when `is_source`: its claim was checked.
    ///
    /// # Errors
    /// [`WireError::Value`] for runs past the content's end.
    pub fn with_runs(
        self,
        runs_of: impl Fn(Version) -> Option<u32>,
        is_source: bool,
    ) -> Result<report::Join, WireError> {
        let runs = counted(self.runs, self.join.version, &runs_of)?;
        Ok(report::Join { runs, source: is_source, ..self.join })
    }
}

/// A [`report::Heartbeat`] whose runs are not counted yet.
#[derive(Clone, PartialEq, Debug)]
pub struct Heartbeat {
    heartbeat: report::Heartbeat,
    /// Per content of `heartbeat`.
    runs: Vec<Option<Bitmap>>,
    /// The node's clock when it was sent, in microseconds since an origin that it chose; returned in the reply.
    pub local_us: u64,
}

impl Heartbeat {
    /// For sending.
    pub fn new(mut heartbeat: report::Heartbeat, local_us: u64) -> Self {
        let runs = heartbeat.contents.iter_mut().map(|c| c.runs.take().map(|r| Bitmap::new(&r))).collect();
        Self { heartbeat, runs, local_us }
    }
    /// The heartbeat, with the runs of each content of which `runs_of` knows how many it has.
    ///
    /// # Errors
    /// [`WireError::Value`] for runs past a content's end.
    pub fn with_runs(mut self, runs_of: impl Fn(Version) -> Option<u32>) -> Result<report::Heartbeat, WireError> {
        for (content, runs) in self.heartbeat.contents.iter_mut().zip(self.runs) {
            content.runs = counted(runs, content.version, &runs_of)?;
        }
        Ok(self.heartbeat)
    }
}

fn counted(
    runs: Option<Bitmap>,
    version: Version,
    runs_of: &impl Fn(Version) -> Option<u32>,
) -> Result<Option<Bits>, WireError> {
    runs.zip(runs_of(version)).map(|(bitmap, len)| bitmap.bits(len)).transpose()
}

impl FromNode {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`WireError`] for anything that is not a message within its limits.
    pub fn decode(body: Bytes) -> Result<Self, WireError> {
        shape::check(&body, &shape::NODE_MESSAGE)?;
        let body = proto::NodeMessage::decode(body)?.body.ok_or(WireError::Missing("body"))?;
        Ok(match body {
            Body::Hello(h) => Self::Hello(hello(h)?),
            Body::Join(j) => Self::Join(join(j)?),
            Body::Leave(l) => Self::Leave(version(l.version)?),
            Body::Heartbeat(h) => Self::Heartbeat(heartbeat(h)?),
            Body::LeaseDone(l) => Self::LeaseDone { version: version(l.version)?, run: run(l.run)? },
            Body::LeaseFailed(l) => Self::LeaseFailed {
                version: version(l.version)?,
                run: run(l.run)?,
                why: l.why,
                content_changed: l.content_changed,
                forbidden: l.forbidden,
            },
            Body::Alarm(a) => Self::Alarm { version: version(a.version)?, alarm: alarm(a.what)? },
            Body::DialResult(d) => Self::DialResult(report::DialResult {
                node: node("node", &d.node)?,
                error: d.failed.then_some(d.error),
            }),
            Body::PageRequest(p) => Self::PageRequest { version: version(p.version)?, page: page_number(p.page)? },
            Body::Announce(a) => Self::Announce(log_from_proto(a.log.ok_or(WireError::Missing("log"))?)?),
            Body::Page(p) => Self::Page { version: version(p.version)?, page: page(p.page)? },
            Body::Bye(proto::Bye {}) => Self::Bye,
            Body::ProbeArrived(p) => Self::ProbeArrived {
                number: array("number", &p.number)?,
                seen_from: address("seen_from", &p.seen_from)?,
            },
            Body::ProbeFailed(p) => Self::ProbeFailed { number: array("number", &p.number)?, why: p.why },
            Body::UplinkOffer(m) => Self::UplinkOffer(Rate(m.up_bytes_per_s)),
            Body::PageCertificates(m) => Self::PageCertificates(page_certificates(m)?),
            Body::MappedAddress(m) => Self::MappedAddress(optional_address("address", &m.address)?),
        })
    }

    /// A frame of at most [`MAX_NODE_FRAME_BYTES`], if what is in it keeps its limits. Texts for people are cut to
    /// theirs.
    pub fn encode(&self) -> Bytes {
        let body = match self {
            Self::Hello(h) => Body::Hello(hello_to_proto(h)),
            Self::Join(j) => Body::Join(join_to_proto(j)),
            Self::Leave(v) => Body::Leave(proto::Leave { version: version_to_proto(*v) }),
            Self::Heartbeat(h) => Body::Heartbeat(heartbeat_to_proto(h)),
            Self::LeaseDone { version, run } => {
                Body::LeaseDone(proto::LeaseDone { version: version_to_proto(*version), run: *run })
            }
            Self::LeaseFailed { version, run, why, content_changed, forbidden } => {
                Body::LeaseFailed(proto::LeaseFailed {
                    version: version_to_proto(*version),
                    run: *run,
                    why: cut(why, MAX_WHY_BYTES),
                    content_changed: *content_changed,
                    forbidden: *forbidden,
                })
            }
            Self::Alarm { version, alarm } => Body::Alarm(proto::AlarmMessage {
                version: version_to_proto(*version),
                what: Some(alarm_to_proto(alarm)),
            }),
            Self::DialResult(d) => Body::DialResult(proto::DialResult {
                node: copy(&d.node.0),
                failed: d.error.is_some(),
                error: d.error.as_deref().map_or_else(String::new, |e| cut(e, MAX_WHY_BYTES)),
            }),
            Self::PageRequest { version, page } => {
                Body::PageRequest(proto::PageRequest { version: version_to_proto(*version), page: *page })
            }
            Self::Announce(log) => Body::Announce(proto::Announce { log: Some(log_to_proto(log)) }),
            Self::Page { version, page } => {
                Body::Page(proto::PageReply { version: version_to_proto(*version), page: page_to_proto(page) })
            }
            Self::Bye => Body::Bye(proto::Bye {}),
            Self::ProbeArrived { number, seen_from } => {
                Body::ProbeArrived(proto::ProbeArrived { number: copy(number), seen_from: seen_from.to_string() })
            }
            Self::ProbeFailed { number, why } => {
                Body::ProbeFailed(proto::ProbeFailed { number: copy(number), why: cut(why, MAX_WHY_BYTES) })
            }
            Self::UplinkOffer(up) => Body::UplinkOffer(proto::UplinkOffer { up_bytes_per_s: up.0 }),
            Self::PageCertificates(hashes) => Body::PageCertificates(page_certificates_to_proto(hashes)),
            Self::MappedAddress(address) => {
                Body::MappedAddress(proto::MappedAddress { address: optional_address_to_proto(*address) })
            }
        };
        crate::frame::encode(&proto::NodeMessage { body: Some(body) }, MAX_NODE_FRAME_BYTES)
    }
}

same_words!(role_to_proto, role_from_proto, "role", proto::Role, Role, Peer = Peer, Waypoint = Waypoint);
same_words!(sources_to_proto, sources_from_proto, "sources", proto::Sources, SourceAccess, Any = Any, Listed = Listed);
same_words!(
    forwards_to_proto,
    forwards_from_proto,
    "forwards",
    proto::Forwards,
    Forwards,
    Disk = Disk,
    Memory = Memory,
    Nothing = No
);

fn hello(h: proto::Hello) -> Result<Hello, WireError> {
    Ok(Hello {
        protocol: h.protocol,
        introduction: Introduction {
            role: role_from_proto(h.role)?,
            // Whatever a node says of itself is a claim (A3).
            capabilities: Capabilities {
                accepts: Known::claim(accepts_from_proto(h.accepts)?),
                listens: h.listens,
                sources: Known::claim(sources_from_proto(h.sources)?),
                forwards: Known::claim(forwards_from_proto(h.forwards)?),
                udp: Known::claim(true),
            },
            up: Rate(h.up_bytes_per_s),
            down: Rate(h.down_bytes_per_s),
            client: h.client,
            local_addresses: addresses("local_addresses", &h.local_addresses)?,
            https_port: match h.https_port {
                0 => None,
                port => Some(u16::try_from(port).map_err(|_| WireError::Value("https_port"))?),
            },
        },
        join_token: Token(h.join_token),
        control_epoch_seen: h.control_epoch_seen,
        local_unix_ms: h.local_unix_ms,
        page_certificates: page_certificates(h.page_certificates.unwrap_or_default())?,
    })
}

fn hello_to_proto(h: &Hello) -> proto::Hello {
    let i = &h.introduction;
    proto::Hello {
        protocol: h.protocol,
        role: role_to_proto(i.role),
        accepts: accepts_to_proto(i.capabilities.accepts.value),
        sources: sources_to_proto(i.capabilities.sources.value),
        forwards: forwards_to_proto(i.capabilities.forwards.value),
        up_bytes_per_s: i.up.0,
        down_bytes_per_s: i.down.0,
        client: cut(&i.client, MAX_CLIENT_BYTES),
        local_addresses: addresses_to_proto(&i.local_addresses),
        join_token: h.join_token.0.clone(),
        control_epoch_seen: h.control_epoch_seen,
        local_unix_ms: h.local_unix_ms,
        listens: i.capabilities.listens,
        https_port: i.https_port.map_or(0, u32::from),
        page_certificates: some_page_certificates(&h.page_certificates),
    }
}

fn join(j: proto::Join) -> Result<Join, WireError> {
    let give = j.parents_give.iter().copied().chain(std::iter::repeat(0)).map(Substreams);
    Ok(Join {
        join: report::Join {
            version: version(j.version)?,
            runs: None,
            complete: j.complete,
            parents: nodes("parents", &j.parents)?.into_iter().zip(give).collect(),
            leases: j.leases.into_iter().map(run).collect::<Result<_, _>>()?,
            looks_first: j.looks_first,
            source: false,
        },
        runs: j.has_runs.then_some(Bitmap(j.runs)),
        source: if j.source.is_empty() { None } else { Some(array("source", &j.source)?) },
        viewer_token: Token(j.viewer_token),
    })
}

fn join_to_proto(j: &Join) -> proto::Join {
    proto::Join {
        version: version_to_proto(j.join.version),
        has_runs: j.runs.is_some(),
        runs: runs_to_proto(&j.runs),
        complete: j.join.complete,
        parents: j.join.parents.iter().map(|(p, _)| copy(&p.0)).collect(),
        parents_give: j.join.parents.iter().map(|(_, s)| s.0).collect(),
        source: j.source.map_or_else(Bytes::new, |s| copy(&s)),
        leases: j.join.leases.clone(),
        viewer_token: j.viewer_token.0.clone(),
        looks_first: j.join.looks_first,
    }
}

fn runs_to_proto(runs: &Option<Bitmap>) -> Bytes {
    runs.as_ref().map_or_else(Bytes::new, |b| b.0.clone())
}

fn heartbeat(h: proto::Heartbeat) -> Result<Heartbeat, WireError> {
    let runs = h.contents.iter().map(|c| c.has_runs.then(|| Bitmap(c.runs.clone()))).collect();
    let heartbeat = report::Heartbeat {
        interval: h.interval,
        cpu_load_milli: h.cpu_load_milli,
        free_storage_bytes: h.free_storage_bytes,
        up_used: Rate(h.up_used),
        down_used: Rate(h.down_used),
        contents: h.contents.into_iter().map(content_report).collect::<Result<_, _>>()?,
    };
    Ok(Heartbeat { heartbeat, runs, local_us: h.local_us })
}

fn content_report(c: proto::ContentReport) -> Result<report::ContentReport, WireError> {
    let edges = |all: Vec<proto::Edge>| all.iter().map(edge).collect::<Result<Vec<_>, _>>();
    let priority = match c.priority() {
        proto::Priority::Normal => Priority::Normal,
        proto::Priority::Low => Priority::Low,
        proto::Priority::High => Priority::High,
    };
    Ok(report::ContentReport {
        version: version(c.version)?,
        runs: None,
        pieces_held: c.pieces_held,
        origin_bytes: c.origin_bytes,
        wasted_bytes: c.wasted_bytes,
        from: edges(c.from)?,
        to: edges(c.to)?,
        priority,
        live: c.live.map(|l| LiveReport {
            newest_entry: l.newest_entry,
            lag: Micros(l.lag_us),
            missing: l.missing,
            lost: l.lost,
        }),
    })
}

fn edge(e: &proto::Edge) -> Result<EdgeReport, WireError> {
    Ok(EdgeReport {
        node: node("node", &e.node)?,
        pieces: e.pieces,
        bytes: e.bytes,
        waited: Micros(e.waited_us),
        rtt: Micros(e.rtt_us),
        sent_packets: e.sent_packets,
        lost_packets: e.lost_packets,
        offers_nothing: e.offers_nothing,
        last_pieces: by_substream("last_pieces", e.substreams, &e.last_pieces)?,
    })
}

fn edge_to_proto(e: &EdgeReport) -> proto::Edge {
    let (substreams, last_pieces) = by_substream_to_proto(&e.last_pieces);
    proto::Edge {
        node: copy(&e.node.0),
        pieces: e.pieces,
        bytes: e.bytes,
        waited_us: e.waited.0,
        rtt_us: e.rtt.0,
        sent_packets: e.sent_packets,
        lost_packets: e.lost_packets,
        offers_nothing: e.offers_nothing,
        substreams,
        last_pieces,
    }
}

fn heartbeat_to_proto(h: &Heartbeat) -> proto::Heartbeat {
    let content = |(c, runs): (&report::ContentReport, &Option<Bitmap>)| proto::ContentReport {
        version: version_to_proto(c.version),
        has_runs: runs.is_some(),
        runs: runs_to_proto(runs),
        pieces_held: c.pieces_held,
        origin_bytes: c.origin_bytes,
        wasted_bytes: c.wasted_bytes,
        from: c.from.iter().map(edge_to_proto).collect(),
        to: c.to.iter().map(edge_to_proto).collect(),
        priority: match c.priority {
            Priority::Normal => proto::Priority::Normal,
            Priority::Low => proto::Priority::Low,
            Priority::High => proto::Priority::High,
        } as i32,
        live: c.live.map(|l| proto::LiveReport {
            newest_entry: l.newest_entry,
            lag_us: l.lag.0,
            missing: l.missing,
            lost: l.lost,
        }),
    };
    proto::Heartbeat {
        interval: h.heartbeat.interval,
        cpu_load_milli: h.heartbeat.cpu_load_milli,
        free_storage_bytes: h.heartbeat.free_storage_bytes,
        up_used: h.heartbeat.up_used.0,
        down_used: h.heartbeat.down_used.0,
        contents: h.heartbeat.contents.iter().zip(&h.runs).map(content).collect(),
        local_us: h.local_us,
    }
}

fn alarm(what: Option<What>) -> Result<Alarm, WireError> {
    Ok(match what.ok_or(WireError::Missing("what"))? {
        What::ParentLost(l) => Alarm::ParentLost { parent: node("parent", &l.parent)?, why: l.why },
        What::Silent(parent) => Alarm::Silent { parent: node("silent", &parent)? },
        What::Slow(parent) => Alarm::Slow { parent: node("slow", &parent)? },
        What::BadPieces(parent) => Alarm::BadPieces { parent: node("bad_pieces", &parent)? },
        What::AttackedFrom(from) => {
            Alarm::Attacked { from: from.parse().map_err(|_| WireError::Value("attacked_from"))? }
        }
        What::Behind(b) => Alarm::Behind { parent: node("parent", &b.parent)?, substreams: Substreams(b.substreams) },
        What::Reading(r) => Alarm::Reading { runs: r.runs.into_iter().map(run).collect::<Result<_, _>>()? },
        What::Starving(s) => Alarm::Starving { runs: s.runs.into_iter().map(run).collect::<Result<_, _>>()? },
    })
}

fn named(runs: &[u32]) -> proto::Starving {
    proto::Starving { runs: runs.iter().copied().take(MAX_STARVING_RUNS).collect() }
}

fn alarm_to_proto(alarm: &Alarm) -> What {
    match alarm {
        Alarm::ParentLost { parent, why } => {
            What::ParentLost(proto::ParentLost { parent: copy(&parent.0), why: cut(why, MAX_WHY_BYTES) })
        }
        Alarm::Silent { parent } => What::Silent(copy(&parent.0)),
        Alarm::Slow { parent } => What::Slow(copy(&parent.0)),
        Alarm::BadPieces { parent } => What::BadPieces(copy(&parent.0)),
        Alarm::Behind { parent, substreams } => {
            What::Behind(proto::Behind { parent: copy(&parent.0), substreams: substreams.0 })
        }
        Alarm::Attacked { from } => What::AttackedFrom(from.to_string()),
        Alarm::Reading { runs } => What::Reading(named(runs)),
        Alarm::Starving { runs } => What::Starving(named(runs)),
    }
}
