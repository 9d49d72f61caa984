//! Limits on everything that comes from outside. Counts are per message, sizes in bytes.

use headwater_model::layout::MAX_PIECES;
use headwater_model::{merkle, report, sums};

/// Version of the protocol that this crate speaks.
pub const PROTOCOL: u32 = 1;

/// Frame from control center to node: a log fits, with access and room for what later versions add.
pub const MAX_CONTROL_FRAME_BYTES: u32 = 8 << 20;
/// Frame from node to control center: an announced log fits.
pub const MAX_NODE_FRAME_BYTES: u32 = 5 << 20;
/// A message of a WebSocket before both ends have proved who they are.
pub const MAX_UNPROVED_MESSAGE_BYTES: usize = 4 << 10;
/// An X.509 certificate of a node or a control center.
pub const MAX_CERTIFICATE_BYTES: usize = 3 << 10;
/// Frame between peers: a bitmap of all pieces (512 KiB) fits.
pub const MAX_PEER_FRAME_BYTES: u32 = 1 << 20;
/// Frame at the start of a data stream.
pub const MAX_DATA_HEADER_FRAME_BYTES: u32 = 128;
/// A whole static log: 128 MiB of leaf hashes, 32 MiB of sums and the log.
pub const MAX_STATIC_LOG_BYTES: usize = 176 << 20;
/// A log, encoded.
pub const MAX_LOG_BYTES: usize = 4 << 20;

/// Tokens of admission and of viewers.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;
/// Reasons in words.
pub const MAX_WHY_BYTES: usize = 1 << 10;
/// A node's client, version and platform.
pub const MAX_CLIENT_BYTES: usize = 256;
/// A socket address as text.
pub const MAX_ADDRESS_BYTES: usize = 64;
/// Addresses of one node.
pub const MAX_ADDRESSES: usize = 16;
/// Headers of an access to the origin.
pub const MAX_HEADERS: usize = 32;
/// Name of such a header.
pub const MAX_HEADER_NAME_BYTES: usize = 256;
/// Value of such a header.
pub const MAX_HEADER_VALUE_BYTES: usize = 8 << 10;
/// Query that is added to the origin's URL.
pub const MAX_QUERY_BYTES: usize = 4 << 10;

/// Parents of a node in one content; spares likewise.
pub const MAX_PARENTS: usize = 64;
/// Children of a node in one content.
pub const MAX_CHILDREN: usize = 4096;
/// Leases that a joining node says it is working on.
pub const MAX_LEASES: usize = 256;
/// Contents of one heartbeat.
pub const MAX_REPORTED_CONTENTS: usize = 1024;
/// Parents, and children, that a heartbeat names for one content.
pub const MAX_REPORTED_EDGES: usize = 4096;
/// Pieces that one message names.
pub const MAX_NAMED_PIECES: usize = 4096;
/// Runs named in one alarm.
pub const MAX_STARVING_RUNS: usize = report::MAX_STARVING_RUNS;
/// Entries of a live stream in one message.
pub const MAX_LIVE_ENTRIES: usize = 64;
/// Entries of a live stream that its published log gives at once.
pub const MAX_LOGGED_ENTRIES: usize = 1024;
/// Pieces of a live stream that one message asks for.
pub const MAX_LIVE_REQUEST: usize = 1024;
/// Certificates that a node shows to pages: the present one, the next, and room for one more.
pub const MAX_PAGE_CERTIFICATES: usize = 3;
/// A P-256 key as SubjectPublicKeyInfo.
pub const MAX_KEY_BYTES: usize = 91;
/// Keys of a parent: the current, the previous and the next.
pub const MAX_PARENT_KEYS: usize = 4;

/// Bitmap of complete runs.
pub const MAX_RUNS_BITMAP_BYTES: usize = (headwater_model::layout::MAX_RUNS / 8) as usize;
/// Bitmap of pieces.
pub const MAX_PIECES_BITMAP_BYTES: usize = (MAX_PIECES / 8) as usize;
/// Leaf hashes of a page.
pub const MAX_PAGE_BYTES: usize = 32 * merkle::PAGE_LEAVES as usize;
/// Sums of a page.
pub const MAX_PAGE_SUMS_BYTES: usize = sums::SUM_BYTES * merkle::PAGE_LEAVES as usize;
/// Proof of a page.
pub const MAX_PROOF_BYTES: usize = 32 * merkle::MAX_PROOF_HASHES;
/// Sums of a static log.
pub const MAX_SUMS_BYTES: usize = sums::SUM_BYTES * MAX_PIECES as usize;
/// Leaf hashes of a static log.
pub const MAX_LEAVES_BYTES: usize = 32 * MAX_PIECES as usize;
