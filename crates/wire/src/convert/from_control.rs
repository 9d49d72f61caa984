//! What the control center says to a node.

use super::static_log::{log_from_proto, log_to_proto};
use super::*;
use crate::limits::*;
use crate::shape;
use headwater_model::assignment::{
    Assignment, Child, ChildrenChange, Generation, Lease, LeaseSource, Parent, Reach, Refusal,
};
use headwater_model::log::Log;
use headwater_model::reach::Probe;
use headwater_model::ticket::ParentKey;
use headwater_model::{Accepts, Lacks};
use prost::Message;
use proto::RefusalCode;
use proto::control_message::Body;
use std::collections::BTreeMap;

/// A message of the control center.
#[derive(Clone, PartialEq, Debug)]
pub enum FromControl {
    /// The answer to a hello.
    Welcome(Welcome),
    /// The content that was joined.
    Content {
        /// What its publisher says.
        log: Log,
        /// How to fetch from the origin.
        access: OriginAccess,
    },
    /// The node gets nothing of this version.
    Refused {
        /// Which.
        version: Version,
        /// Why.
        refusal: Refusal,
    },
    /// All parents, spares, helpers and children in one content.
    Assignment {
        /// Them.
        assignment: Assignment,
        /// One for each of the senders that asks for one, in their order; others are not sent.
        tickets: Vec<GivenTicket>,
        /// To a page: of its parents and children. Else empty.
        page_certificates: PageCertificatesOf,
    },
    /// Some children changed, and nothing else of the assignment.
    ChangeChildren(ChildrenChange),
    /// Leave to fetch a run from the origin or a waypoint.
    Lease {
        /// It.
        lease: Lease,
        /// For the waypoint, where one is the source.
        ticket: Option<Box<GivenTicket>>,
    },
    /// That leave is withdrawn.
    LeaseRevoked {
        /// Of which content.
        version: Version,
        /// Which.
        run: u32,
    },
    /// The answer to a heartbeat.
    HeartbeatReply {
        /// Control time, Unix milliseconds.
        control_unix_ms: u64,
        /// What the heartbeat gave as `local_us`.
        echo_local_us: u64,
        /// Of contents that the heartbeat told of, how many nodes hold all of it.
        holders: Vec<(ContentId, u32)>,
        /// In the first reply of a session, and when it changed.
        found: Option<Found>,
    },
    /// Keys under which the node, as a parent, checks tickets; they replace the former ones. (Number, key).
    ParentKeys(Vec<(u64, ParentKey)>),
    /// A page that the node asked for.
    Page {
        /// Of which content.
        version: Version,
        /// The page.
        page: Page,
    },
    /// Such a page is not here.
    PageUnavailable {
        /// Of which content.
        version: Version,
        /// Which.
        page: u32,
    },
    /// The control center lacks this page after it lost its state.
    PageRequest {
        /// Of which content.
        version: Version,
        /// Which.
        page: u32,
    },
    /// Join this content to serve it.
    Fetch {
        /// Which.
        content: ContentId,
        /// Keep it when nobody wants it any more.
        keep: bool,
    },
    /// A content is gone.
    Withdrawn {
        /// Which.
        content: ContentId,
        /// In words.
        why: String,
    },
    /// The connection ends.
    Goodbye {
        /// In words.
        why: String,
        /// Whether the node should dial again.
        come_back: bool,
    },
    /// Dial an address once.
    Probe(Probe),
}

/// The answer to a hello.
#[derive(Clone, PartialEq, Debug)]
pub struct Welcome {
    /// Version of the protocol that the control center speaks.
    pub protocol: u32,
    /// Its durable epoch.
    pub control_epoch: u64,
    /// Control time, Unix milliseconds.
    pub control_unix_ms: u64,
    /// Time between heartbeats, milliseconds.
    pub heartbeat_ms: u32,
    /// Longest wait between dials while the control center is away, milliseconds.
    pub backoff_cap_ms: u32,
    /// Where it sees the node.
    pub observed_address: Option<SocketAddr>,
    /// As in [`FromControl::ParentKeys`].
    pub parent_keys: Vec<(u64, ParentKey)>,
}

/// How others reach a node, as far as the control center knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// What it accepts.
    pub accepts: Accepts,
    /// By test; else as the node claims.
    pub tested: bool,
    /// Where the control center sees it.
    pub observed: SocketAddr,
    /// The address that its router forwards, where they reach it there.
    pub via: Option<SocketAddr>,
    /// In words.
    pub why: String,
}

/// Credentials for the origin. Not printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct OriginAccess {
    /// (Name, value) of each header to send.
    pub headers: Vec<(String, String)>,
    /// Query to add to the URL; empty for none.
    pub query: String,
}

impl fmt::Debug for OriginAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OriginAccess({} headers, {} bytes of query)", self.headers.len(), self.query.len())
    }
}

/// What a child needs to prove that a ticket is its own. Not printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TicketSecret(pub [u8; 32]);

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(..)")
    }
}

/// By which certificates a page knows nodes, as SHA-256 each.
pub type PageCertificatesOf = BTreeMap<NodeId, Vec<Hash>>;

/// A ticket for the parent that it names, and its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenTicket {
    /// The ticket.
    pub ticket: Ticket,
    /// Stays with the child.
    pub secret: TicketSecret,
}

impl FromControl {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`WireError`] for anything that is not a message within its limits.
    pub fn decode(body: Bytes) -> Result<Self, WireError> {
        shape::check(&body, &shape::CONTROL_MESSAGE)?;
        let body = proto::ControlMessage::decode(body)?.body.ok_or(WireError::Missing("body"))?;
        Ok(match body {
            Body::Welcome(w) => Self::Welcome(welcome(w)?),
            Body::Content(c) => Self::Content {
                log: log_from_proto(c.log.ok_or(WireError::Missing("log"))?)?,
                access: access(c.access.unwrap_or_default()),
            },
            Body::Refused(r) => Self::Refused { version: version(r.version.clone())?, refusal: refusal(r)? },
            Body::Assignment(a) => assignment(a)?,
            Body::Lease(l) => lease(l)?,
            Body::ChangeChildren(c) => Self::ChangeChildren(change(c)?),
            Body::LeaseRevoked(l) => Self::LeaseRevoked { version: version(l.version)?, run: run(l.run)? },
            Body::HeartbeatReply(h) => {
                let holders = h.holders.iter().map(|h| Ok((content(&h.content)?, h.nodes)));
                Self::HeartbeatReply {
                    control_unix_ms: h.control_unix_ms,
                    echo_local_us: h.echo_local_us,
                    holders: holders.collect::<Result<_, WireError>>()?,
                    found: h.found.map(found).transpose()?,
                }
            }
            Body::ParentKeys(k) => Self::ParentKeys(parent_keys(k)?),
            Body::Page(p) => Self::Page { version: version(p.version)?, page: page(p.page)? },
            Body::PageUnavailable(p) => {
                Self::PageUnavailable { version: version(p.version)?, page: page_number(p.page)? }
            }
            Body::PageRequest(p) => Self::PageRequest { version: version(p.version)?, page: page_number(p.page)? },
            Body::Fetch(f) => Self::Fetch { content: content(&f.content)?, keep: f.keep },
            Body::Withdrawn(w) => Self::Withdrawn { content: content(&w.content)?, why: w.why },
            Body::Goodbye(g) => Self::Goodbye { why: g.why, come_back: g.come_back },
            Body::Probe(p) => Self::Probe(Probe {
                number: array("number", &p.number)?,
                node: node("node", &p.node)?,
                address: address("address", &p.address)?,
                fresh_socket: p.fresh_socket,
            }),
        })
    }

    /// A frame of at most [`MAX_CONTROL_FRAME_BYTES`], if what is in it keeps its limits. Texts for people are cut to
    /// theirs.
    pub fn encode(&self) -> Bytes {
        let body = match self {
            Self::Welcome(w) => Body::Welcome(welcome_to_proto(w)),
            Self::Content { log, access } => Body::Content(proto::ContentInfo {
                log: Some(log_to_proto(log)),
                access: Some(access_to_proto(access)),
            }),
            Self::Refused { version, refusal } => Body::Refused(refusal_to_proto(*version, refusal)),
            Self::Assignment { assignment, tickets, page_certificates } => {
                Body::Assignment(assignment_to_proto(assignment, tickets, page_certificates))
            }
            Self::ChangeChildren(change) => Body::ChangeChildren(change_to_proto(change)),
            Self::Lease { lease, ticket } => Body::Lease(lease_to_proto(lease, ticket.as_deref())),
            Self::LeaseRevoked { version, run } => {
                Body::LeaseRevoked(proto::LeaseRevoked { version: version_to_proto(*version), run: *run })
            }
            Self::HeartbeatReply { control_unix_ms, echo_local_us, holders, found } => {
                let holders = holders.iter().take(MAX_REPORTED_CONTENTS);
                Body::HeartbeatReply(proto::HeartbeatReply {
                    control_unix_ms: *control_unix_ms,
                    echo_local_us: *echo_local_us,
                    holders: holders
                        .map(|(content, nodes)| proto::Holders { content: copy(&content.0), nodes: *nodes })
                        .collect(),
                    found: found.as_ref().map(found_to_proto),
                })
            }
            Self::ParentKeys(keys) => Body::ParentKeys(parent_keys_to_proto(keys)),
            Self::Page { version, page } => {
                Body::Page(proto::PageReply { version: version_to_proto(*version), page: page_to_proto(page) })
            }
            Self::PageUnavailable { version, page } => {
                Body::PageUnavailable(proto::PageUnavailable { version: version_to_proto(*version), page: *page })
            }
            Self::PageRequest { version, page } => {
                Body::PageRequest(proto::PageRequest { version: version_to_proto(*version), page: *page })
            }
            Self::Fetch { content, keep } => Body::Fetch(proto::Fetch { content: copy(&content.0), keep: *keep }),
            Self::Withdrawn { content, why } => {
                Body::Withdrawn(proto::Withdrawn { content: copy(&content.0), why: cut(why, MAX_WHY_BYTES) })
            }
            Self::Goodbye { why, come_back } => {
                Body::Goodbye(proto::Goodbye { why: cut(why, MAX_WHY_BYTES), come_back: *come_back })
            }
            Self::Probe(p) => Body::Probe(proto::Probe {
                number: copy(&p.number),
                node: copy(&p.node.0),
                address: p.address.to_string(),
                fresh_socket: p.fresh_socket,
            }),
        };
        crate::frame::encode(&proto::ControlMessage { body: Some(body) }, MAX_CONTROL_FRAME_BYTES)
    }
}

fn found(f: proto::Found) -> Result<Found, WireError> {
    Ok(Found {
        accepts: accepts_from_proto(f.accepts)?,
        tested: f.tested,
        observed: address("observed", &f.observed)?,
        via: optional_address("via", &f.via)?,
        why: f.why,
    })
}

fn found_to_proto(f: &Found) -> proto::Found {
    proto::Found {
        accepts: accepts_to_proto(f.accepts),
        tested: f.tested,
        observed: f.observed.to_string(),
        via: optional_address_to_proto(f.via),
        why: cut(&f.why, MAX_WHY_BYTES),
    }
}

fn welcome(w: proto::Welcome) -> Result<Welcome, WireError> {
    Ok(Welcome {
        protocol: w.protocol,
        control_epoch: w.control_epoch,
        control_unix_ms: w.control_unix_ms,
        heartbeat_ms: w.heartbeat_ms,
        backoff_cap_ms: w.backoff_cap_ms,
        observed_address: optional_address("observed_address", &w.observed_address)?,
        parent_keys: parent_keys(w.parent_keys.unwrap_or_default())?,
    })
}

fn welcome_to_proto(w: &Welcome) -> proto::Welcome {
    proto::Welcome {
        protocol: w.protocol,
        control_epoch: w.control_epoch,
        control_unix_ms: w.control_unix_ms,
        heartbeat_ms: w.heartbeat_ms,
        backoff_cap_ms: w.backoff_cap_ms,
        observed_address: optional_address_to_proto(w.observed_address),
        parent_keys: Some(parent_keys_to_proto(&w.parent_keys)),
    }
}

fn parent_keys(keys: proto::ParentKeys) -> Result<Vec<(u64, ParentKey)>, WireError> {
    keys.keys.iter().map(|k| Ok((k.number, ParentKey(array("key", &k.key)?)))).collect()
}

fn parent_keys_to_proto(keys: &[(u64, ParentKey)]) -> proto::ParentKeys {
    let key = |(number, key): &(u64, ParentKey)| proto::ParentKey { number: *number, key: copy(&key.0) };
    proto::ParentKeys { keys: keys.iter().map(key).collect() }
}

fn access(a: proto::OriginAccess) -> OriginAccess {
    OriginAccess { headers: a.headers.into_iter().map(|h| (h.name, h.value)).collect(), query: a.query }
}

fn access_to_proto(a: &OriginAccess) -> proto::OriginAccess {
    let header = |(name, value): &(String, String)| proto::Header { name: name.clone(), value: value.clone() };
    proto::OriginAccess { headers: a.headers.iter().map(header).collect(), query: a.query.clone() }
}

fn refusal(r: proto::Refused) -> Result<Refusal, WireError> {
    Ok(match RefusalCode::try_from(r.code).map_err(|_| WireError::Value("code"))? {
        RefusalCode::UnknownContent => Refusal::UnknownContent,
        RefusalCode::Unpublished => Refusal::Unpublished,
        RefusalCode::OtherVersion => Refusal::OtherVersion { current: r.current_epoch },
        RefusalCode::NotPermitted => Refusal::NotPermitted(r.why),
        RefusalCode::Limit => Refusal::Limit(r.why),
        RefusalCode::Lightweight if r.stand_in.is_empty() => return Err(WireError::Value("stand_in")),
        RefusalCode::Lightweight => Refusal::Lightweight {
            stand_in: r.stand_in,
            lacks: match proto::Lacks::try_from(r.lacks).map_err(|_| WireError::Value("lacks"))? {
                proto::Lacks::Connections => Lacks::Connections,
                proto::Lacks::Sources => Lacks::Sources,
                proto::Lacks::Forwarding => Lacks::Forwarding,
            },
        },
    })
}

fn refusal_to_proto(version: Version, refusal: &Refusal) -> proto::Refused {
    let of = |code: RefusalCode, why: &str| proto::Refused {
        version: version_to_proto(version),
        code: code.into(),
        why: cut(why, MAX_WHY_BYTES),
        ..Default::default()
    };
    match refusal {
        Refusal::UnknownContent => of(RefusalCode::UnknownContent, ""),
        Refusal::Unpublished => of(RefusalCode::Unpublished, ""),
        Refusal::OtherVersion { current } => {
            proto::Refused { current_epoch: *current, ..of(RefusalCode::OtherVersion, "") }
        }
        Refusal::NotPermitted(why) => of(RefusalCode::NotPermitted, why),
        Refusal::Limit(why) => of(RefusalCode::Limit, why),
        Refusal::Lightweight { stand_in, lacks } => proto::Refused {
            stand_in: stand_in.clone(),
            lacks: match lacks {
                Lacks::Connections => proto::Lacks::Connections,
                Lacks::Sources => proto::Lacks::Sources,
                Lacks::Forwarding => proto::Lacks::Forwarding,
            }
            .into(),
            ..of(RefusalCode::Lightweight, "")
        },
    }
}

fn assignment(mut a: proto::Assignment) -> Result<FromControl, WireError> {
    let generation = a.generation.ok_or(WireError::Missing("generation"))?;
    let (mut tickets, mut certificates) = (Vec::new(), PageCertificatesOf::new());
    let mut shown = |node: &[u8], shown: Option<proto::PageCertificates>| -> Result<(), WireError> {
        if let Some(shown) = shown {
            let shown = page_certificates(shown)?;
            if !shown.is_empty() {
                certificates.insert(self::node("node", node)?, shown);
            }
        }
        Ok(())
    };
    for child in &mut a.children {
        shown(&child.node, child.page_certificates.take())?;
    }
    for parent in [&mut a.parents, &mut a.spares, &mut a.helpers].into_iter().flatten() {
        shown(&parent.node, parent.page_certificates.take())?;
    }
    let mut parents = |all: Vec<proto::Parent>| -> Result<Vec<Parent>, WireError> {
        all.into_iter().map(|p| parent(p, &mut tickets)).collect()
    };
    let assignment = Assignment {
        version: version(a.version)?,
        generation: Generation { epoch: generation.epoch, counter: generation.counter },
        parents: parents(a.parents)?,
        spares: parents(a.spares)?,
        helpers: parents(a.helpers)?,
        children: a.children.into_iter().map(child).collect::<Result<_, _>>()?,
        source: a.source,
    };
    let place = |n: &NodeId| assignment.senders().position(|p| p.node == *n);
    tickets.sort_by_key(|t| place(&t.ticket.parent));
    Ok(FromControl::Assignment { assignment, tickets, page_certificates: certificates })
}

fn parent(p: proto::Parent, tickets: &mut Vec<GivenTicket>) -> Result<Parent, WireError> {
    let node = node("node", &p.node)?;
    if let Some(t) = p.ticket {
        let ticket = ticket(t)?;
        if ticket.parent != node {
            return Err(WireError::Value("a ticket for another parent"));
        }
        let secret = TicketSecret(array("ticket_secret", &p.ticket_secret)?);
        // A node that is parent, spare and helper needs one ticket.
        if tickets.iter().all(|t: &GivenTicket| t.ticket.parent != node) {
            tickets.push(GivenTicket { ticket, secret });
        }
    }
    Ok(Parent {
        node,
        class: class_from_proto(p.class)?,
        dial: p.dial,
        promised: Rate(p.promised_bytes_per_s),
        reach: reach(p.reach)?,
        substreams: Substreams(p.substreams),
    })
}

fn lease(l: proto::Lease) -> Result<FromControl, WireError> {
    let (version, run, within) = (version(l.version)?, run(l.run)?, Micros(l.within_us));
    let mut tickets = Vec::new();
    let source = match l.from {
        None => LeaseSource::Origin,
        Some(from) => {
            let parent = parent(from, &mut tickets)?;
            if parent.class != SourceClass::Waypoint {
                return Err(WireError::Value("from"));
            }
            LeaseSource::Waypoint { node: parent.node, reach: parent.reach }
        }
    };
    Ok(FromControl::Lease { lease: Lease { version, run, within, source }, ticket: tickets.pop().map(Box::new) })
}

fn lease_to_proto(l: &Lease, ticket: Option<&GivenTicket>) -> proto::Lease {
    let from = match &l.source {
        LeaseSource::Origin => None,
        LeaseSource::Waypoint { node, reach } => Some(proto::Parent {
            node: copy(&node.0),
            class: class_to_proto(SourceClass::Waypoint),
            dial: true,
            promised_bytes_per_s: 0,
            reach: reach_to_proto(reach),
            ticket: ticket.map(|g| ticket_to_proto(&g.ticket)),
            ticket_secret: ticket.map_or_else(Bytes::new, |g| copy(&g.secret.0)),
            substreams: 0,
            page_certificates: None,
        }),
    };
    proto::Lease { version: version_to_proto(l.version), run: l.run, within_us: l.within.0, from }
}

fn child(c: proto::Child) -> Result<Child, WireError> {
    let (node, reach) = (node("node", &c.node)?, reach(c.reach)?);
    Ok(Child { node, dial: c.dial, punch: c.punch, reach, substreams: Substreams(c.substreams) })
}

fn change(c: proto::ChildrenChange) -> Result<ChildrenChange, WireError> {
    let generation = c.generation.ok_or(WireError::Missing("generation"))?;
    Ok(ChildrenChange {
        version: version(c.version)?,
        generation: Generation { epoch: generation.epoch, counter: generation.counter },
        came: c.came.into_iter().map(child).collect::<Result<_, _>>()?,
        left: c.left.iter().map(|n| node("left", n)).collect::<Result<_, _>>()?,
    })
}

fn change_to_proto(c: &ChildrenChange) -> proto::ChildrenChange {
    proto::ChildrenChange {
        version: version_to_proto(c.version),
        generation: Some(generation_to_proto(c.generation)),
        came: c.came.iter().map(child_to_proto).collect(),
        left: c.left.iter().map(|n| copy(&n.0)).collect(),
    }
}

fn generation_to_proto(g: Generation) -> proto::Generation {
    proto::Generation { epoch: g.epoch, counter: g.counter }
}

fn child_to_proto(c: &Child) -> proto::Child {
    proto::Child {
        node: copy(&c.node.0),
        dial: c.dial,
        reach: reach_to_proto(&c.reach),
        punch: c.punch,
        substreams: c.substreams.0,
        page_certificates: None,
    }
}

fn reach(r: Option<proto::Reach>) -> Result<Reach, WireError> {
    let r = r.ok_or(WireError::Missing("reach"))?;
    Ok(Reach {
        addresses: addresses("addresses", &r.addresses)?.into(),
        certificate: hash("certificate", &r.certificate)?,
    })
}

fn reach_to_proto(r: &Reach) -> Option<proto::Reach> {
    Some(proto::Reach { addresses: addresses_to_proto(&r.addresses), certificate: copy(&r.certificate.0) })
}

fn assignment_to_proto(
    a: &Assignment,
    tickets: &[GivenTicket],
    certificates: &PageCertificatesOf,
) -> proto::Assignment {
    let shown = |node: &NodeId| certificates.get(node).and_then(|hashes| some_page_certificates(hashes));
    let parent = |p: &Parent| {
        let given = tickets.iter().find(|t| t.ticket.parent == p.node);
        proto::Parent {
            node: copy(&p.node.0),
            class: class_to_proto(p.class),
            dial: p.dial,
            promised_bytes_per_s: p.promised.0,
            reach: reach_to_proto(&p.reach),
            ticket: given.map(|g| ticket_to_proto(&g.ticket)),
            ticket_secret: given.map_or_else(Bytes::new, |g| copy(&g.secret.0)),
            substreams: p.substreams.0,
            page_certificates: shown(&p.node),
        }
    };
    let child = |c: &Child| proto::Child { page_certificates: shown(&c.node), ..child_to_proto(c) };
    proto::Assignment {
        version: version_to_proto(a.version),
        generation: Some(generation_to_proto(a.generation)),
        parents: a.parents.iter().map(parent).collect(),
        spares: a.spares.iter().map(parent).collect(),
        helpers: a.helpers.iter().map(parent).collect(),
        children: a.children.iter().map(child).collect(),
        source: a.source,
    }
}
