//! What peers say to each other.

use super::live::{by_substream, by_substream_to_proto, live_entry, live_entry_to_proto};
use super::*;
use crate::limits::*;
use crate::shape;
use headwater_model::live::SignedLiveEntry;
use prost::Message;
use proto::peer_message::Body;

/// A message of the other end of a connection between peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromPeer {
    /// First of all.
    Hello {
        /// Version of the protocol that it speaks.
        protocol: u32,
        /// For proofs of possession.
        nonce: [u8; 32],
        /// Differs between two runs of one node.
        instance: u64,
        /// Whether the sender has a connection with this node in use.
        linked: bool,
    },
    /// A page's hello, which answers the peer's and proves who it is.
    PageHello {
        /// Version of the protocol that it speaks.
        protocol: u32,
        /// For proofs of possession.
        nonce: [u8; 32],
        /// Differs between two runs of one page.
        instance: u64,
        /// Its public key (SubjectPublicKeyInfo, DER), whose SHA-256 is its node id.
        key: Bytes,
        /// Over [`web::page_covered`].
        signature: [u8; web::SIGNATURE_BYTES],
    },
    /// A child shows its ticket.
    OpenEdge {
        /// For which content.
        version: Version,
        /// The ticket.
        ticket: Ticket,
        /// See [`Ticket::prove`].
        proof: [u8; 32],
    },
    /// A parent's answer.
    EdgeAnswer {
        /// For which content.
        version: Version,
        /// Why not, also in words; `None` when the child is accepted.
        refusal: Option<(EdgeRefusal, String)>,
    },
    /// What a parent has.
    Have {
        /// Of which content.
        version: Version,
        /// Which pieces.
        held: Held,
    },
    /// A child asks for pieces.
    Request {
        /// Of which content.
        version: Version,
        /// Which, in the order wanted.
        pieces: Vec<u32>,
    },
    /// It needs them no more.
    Cancel {
        /// Of which content.
        version: Version,
        /// Which.
        pieces: Vec<u32>,
    },
    /// One end has done with the edge.
    CloseEdge {
        /// Of which content.
        version: Version,
        /// Whether the sender is the child.
        as_child: bool,
        /// In words.
        why: String,
    },
    /// Asks for a page of leaf hashes.
    PageRequest {
        /// Of which content.
        version: Version,
        /// Which.
        page: u32,
    },
    /// A page that was asked for.
    Page {
        /// Of which content.
        version: Version,
        /// The page.
        page: Page,
    },
    /// A piece that came was not the content's.
    BadPiece {
        /// Of which content.
        version: Version,
        /// Which.
        piece: u32,
    },
    /// A child of a live stream wants these substreams pushed, and no others.
    Subscribe {
        /// Of which content.
        version: Version,
        /// Which.
        substreams: Substreams,
        /// From this piece on; from where a newcomer begins where `None`.
        from: Option<u64>,
    },
    /// Entries of a live stream.
    LiveEntries {
        /// Of which content.
        version: Version,
        /// The entries; nothing is verified yet.
        entries: Vec<SignedLiveEntry>,
    },
    /// Asks for the entries after one.
    EntriesWanted {
        /// Of which content.
        version: Version,
        /// Number of that one.
        after: u64,
    },
    /// A child of a live stream asks for pieces.
    LiveRequest {
        /// Of which content.
        version: Version,
        /// Which, in the order wanted.
        pieces: Vec<u64>,
        /// They are sent when nothing is to be pushed, and when they are there.
        patient: bool,
    },
    /// A child of a live stream takes these pieces from elsewhere: they need not be sent.
    LiveCancel {
        /// Of which content.
        version: Version,
        /// Which.
        pieces: Vec<u64>,
    },
    /// A parent of a live stream is alive.
    LivePosition {
        /// Of which content.
        version: Version,
        /// Number of its newest entry.
        newest_entry: u64,
        /// What it sends next of each substream that it pushes.
        next: Vec<(u8, u64)>,
    },
}

/// Pieces that a parent holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Held {
    /// All that it holds; replaces what it said before.
    All(Bitmap),
    /// Some that are new.
    More(Vec<u32>),
}

/// Why a parent does not serve a child.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EdgeRefusal {
    /// It has nothing of this content and version.
    NoSuchContent,
    /// See [`TicketError`](headwater_model::ticket::TicketError).
    BadTicket,
    /// Its own limit is reached.
    TooManyChildren,
    /// It is about to stop.
    Leaving,
}

impl fmt::Display for EdgeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EdgeRefusal::NoSuchContent => "it does not have the content",
            EdgeRefusal::BadTicket => "it does not accept the ticket",
            EdgeRefusal::TooManyChildren => "it has too many children",
            EdgeRefusal::Leaving => "it is leaving",
        })
    }
}

impl FromPeer {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`WireError`] for anything that is not a message within its limits.
    pub fn decode(body: Bytes) -> Result<Self, WireError> {
        shape::check(&body, &shape::PEER_MESSAGE)?;
        let body = proto::PeerMessage::decode(body)?.body.ok_or(WireError::Missing("body"))?;
        Ok(match body {
            Body::Hello(h) if !h.key.is_empty() => Self::PageHello {
                protocol: h.protocol,
                nonce: array("nonce", &h.nonce)?,
                instance: h.instance,
                key: h.key,
                signature: array("signature", &h.signature)?,
            },
            Body::Hello(h) => Self::Hello {
                protocol: h.protocol,
                nonce: array("nonce", &h.nonce)?,
                instance: h.instance,
                linked: h.linked,
            },
            Body::OpenEdge(o) => Self::OpenEdge {
                version: version(o.version)?,
                ticket: ticket(o.ticket.ok_or(WireError::Missing("ticket"))?)?,
                proof: array("proof", &o.proof)?,
            },
            Body::EdgeAnswer(a) => Self::EdgeAnswer {
                version: version(a.version)?,
                refusal: edge_refusal(a.refusal)?.map(|refusal| (refusal, a.why)),
            },
            Body::Have(h) => Self::Have {
                version: version(h.version)?,
                held: if h.all { Held::All(Bitmap(h.bitmap)) } else { Held::More(pieces(h.pieces)?) },
            },
            Body::Request(r) => Self::Request { version: version(r.version)?, pieces: pieces(r.pieces)? },
            Body::Cancel(c) => Self::Cancel { version: version(c.version)?, pieces: pieces(c.pieces)? },
            Body::CloseEdge(c) => Self::CloseEdge { version: version(c.version)?, as_child: c.as_child, why: c.why },
            Body::PageRequest(p) => Self::PageRequest { version: version(p.version)?, page: page_number(p.page)? },
            Body::Page(p) => Self::Page { version: version(p.version)?, page: page(p.page)? },
            Body::BadPiece(b) => Self::BadPiece { version: version(b.version)?, piece: piece(b.piece)? },
            Body::Subscribe(s) => {
                Self::Subscribe { version: version(s.version)?, substreams: Substreams(s.substreams), from: s.from }
            }
            Body::LiveEntries(l) => Self::LiveEntries {
                version: version(l.version)?,
                entries: l.entries.into_iter().map(live_entry).collect::<Result<_, _>>()?,
            },
            Body::EntriesWanted(e) => Self::EntriesWanted { version: version(e.version)?, after: e.after },
            Body::LiveRequest(r) => {
                Self::LiveRequest { version: version(r.version)?, pieces: r.pieces, patient: r.patient }
            }
            Body::LiveCancel(c) => Self::LiveCancel { version: version(c.version)?, pieces: c.pieces },
            Body::LivePosition(p) => {
                let next = by_substream("next", p.substreams, &p.next)?;
                Self::LivePosition { version: version(p.version)?, newest_entry: p.newest_entry, next }
            }
        })
    }

    /// A frame of at most [`MAX_PEER_FRAME_BYTES`], if what is in it keeps its limits. Texts for people are cut to
    /// theirs.
    pub fn encode(&self) -> Bytes {
        let body = match self {
            Self::Hello { protocol, nonce, instance, linked } => Body::Hello(proto::PeerHello {
                protocol: *protocol,
                nonce: copy(nonce),
                instance: *instance,
                linked: *linked,
                key: Bytes::new(),
                signature: Bytes::new(),
            }),
            Self::PageHello { protocol, nonce, instance, key, signature } => Body::Hello(proto::PeerHello {
                protocol: *protocol,
                nonce: copy(nonce),
                instance: *instance,
                linked: false,
                key: key.clone(),
                signature: copy(signature),
            }),
            Self::OpenEdge { version, ticket, proof } => Body::OpenEdge(proto::OpenEdge {
                version: version_to_proto(*version),
                ticket: Some(ticket_to_proto(ticket)),
                proof: copy(proof),
            }),
            Self::EdgeAnswer { version, refusal } => Body::EdgeAnswer(proto::EdgeAnswer {
                version: version_to_proto(*version),
                refusal: edge_refusal_to_proto(refusal.as_ref().map(|(refusal, _)| *refusal)),
                why: refusal.as_ref().map_or_else(String::new, |(_, why)| cut(why, MAX_WHY_BYTES)),
            }),
            Self::Have { version, held } => {
                let (all, bitmap, pieces) = match held {
                    Held::All(bitmap) => (true, bitmap.0.clone(), Vec::new()),
                    Held::More(pieces) => (false, Bytes::new(), pieces.clone()),
                };
                Body::Have(proto::Have { version: version_to_proto(*version), all, bitmap, pieces })
            }
            Self::Request { version, pieces } => {
                Body::Request(proto::Request { version: version_to_proto(*version), pieces: pieces.clone() })
            }
            Self::Cancel { version, pieces } => {
                Body::Cancel(proto::Cancel { version: version_to_proto(*version), pieces: pieces.clone() })
            }
            Self::CloseEdge { version, as_child, why } => Body::CloseEdge(proto::CloseEdge {
                version: version_to_proto(*version),
                as_child: *as_child,
                why: cut(why, MAX_WHY_BYTES),
            }),
            Self::PageRequest { version, page } => {
                Body::PageRequest(proto::PageRequest { version: version_to_proto(*version), page: *page })
            }
            Self::Page { version, page } => {
                Body::Page(proto::PageReply { version: version_to_proto(*version), page: page_to_proto(page) })
            }
            Self::BadPiece { version, piece } => {
                Body::BadPiece(proto::BadPiece { version: version_to_proto(*version), piece: *piece })
            }
            Self::Subscribe { version, substreams, from } => Body::Subscribe(proto::Subscribe {
                version: version_to_proto(*version),
                substreams: substreams.0,
                from: *from,
            }),
            Self::LiveEntries { version, entries } => Body::LiveEntries(proto::LiveEntries {
                version: version_to_proto(*version),
                entries: entries.iter().map(live_entry_to_proto).collect(),
            }),
            Self::EntriesWanted { version, after } => {
                Body::EntriesWanted(proto::EntriesWanted { version: version_to_proto(*version), after: *after })
            }
            Self::LiveRequest { version, pieces, patient } => Body::LiveRequest(proto::LiveRequest {
                version: version_to_proto(*version),
                pieces: pieces.clone(),
                patient: *patient,
            }),
            Self::LiveCancel { version, pieces } => {
                Body::LiveCancel(proto::LiveCancel { version: version_to_proto(*version), pieces: pieces.clone() })
            }
            Self::LivePosition { version, newest_entry, next } => {
                let (substreams, next) = by_substream_to_proto(next);
                Body::LivePosition(proto::LivePosition {
                    version: version_to_proto(*version),
                    newest_entry: *newest_entry,
                    substreams,
                    next,
                })
            }
        };
        crate::frame::encode(&proto::PeerMessage { body: Some(body) }, MAX_PEER_FRAME_BYTES)
    }
}

fn edge_refusal(value: i32) -> Result<Option<EdgeRefusal>, WireError> {
    use proto::EdgeRefusal as P;
    Ok(match P::try_from(value).map_err(|_| WireError::Value("refusal"))? {
        P::Accepted => None,
        P::NoSuchContent => Some(EdgeRefusal::NoSuchContent),
        P::BadTicket => Some(EdgeRefusal::BadTicket),
        P::TooManyChildren => Some(EdgeRefusal::TooManyChildren),
        P::Leaving => Some(EdgeRefusal::Leaving),
    })
}

fn edge_refusal_to_proto(refusal: Option<EdgeRefusal>) -> i32 {
    use proto::EdgeRefusal as P;
    (match refusal {
        None => P::Accepted,
        Some(EdgeRefusal::NoSuchContent) => P::NoSuchContent,
        Some(EdgeRefusal::BadTicket) => P::BadTicket,
        Some(EdgeRefusal::TooManyChildren) => P::TooManyChildren,
        Some(EdgeRefusal::Leaving) => P::Leaving,
    }) as i32
}

/// What a parent sends first on a data stream; [`PieceHeader`](crate::frame::PieceHeader)s and pieces follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataHeader {
    /// The content whose pieces follow.
    pub version: Version,
}

impl DataHeader {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`WireError`] for anything that is not a message within its limits.
    pub fn decode(body: Bytes) -> Result<Self, WireError> {
        shape::check(&body, &shape::DATA_HEADER)?;
        Ok(Self { version: version(proto::DataHeader::decode(body)?.version)? })
    }
    /// A frame of at most [`MAX_DATA_HEADER_FRAME_BYTES`].
    pub fn encode(&self) -> Bytes {
        let message = proto::DataHeader { version: version_to_proto(self.version) };
        crate::frame::encode(&message, MAX_DATA_HEADER_FRAME_BYTES)
    }
}
