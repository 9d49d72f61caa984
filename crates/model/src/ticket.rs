//! Tickets: a parent serves whom the control center sent, and nobody else.
//!
//! The MAC is made under a key that only the control center and that one parent know. The child also gets a secret
//! derived from the ticket and proves that it has it over the parent's nonce and certificate, so that a ticket seen by
//! others is useless, on another connection and at another parent.

use crate::id::{Hash, NodeId, Version};
use crate::live::Substreams;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Longest life of a ticket in milliseconds: 6 h, also the time between two parent keys.
pub const MAX_LIFE_MS: u64 = 6 * 3600 * 1000;

/// A key of one parent. Not printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ParentKey(pub [u8; 32]);

impl std::fmt::Debug for ParentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ParentKey(..)")
    }
}

/// What the MAC covers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// Who may fetch.
    pub child: NodeId,
    /// From whom.
    pub parent: NodeId,
    /// What.
    pub version: Version,
    /// Highest piece that may be asked for.
    pub highest_piece: u32,
    /// Substreams that may be asked for, of a live stream.
    pub substreams: Substreams,
    /// Which of the parent's keys.
    pub key_number: u64,
    /// Epoch of the control center that gave it.
    pub control_epoch: u64,
    /// Control time after which it is void, Unix milliseconds.
    pub expires_unix_ms: u64,
    /// HMAC-SHA-256 under the parent's key.
    pub mac: [u8; 32],
}

/// Why a ticket is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TicketError {
    /// Not for this child or parent.
    #[error("the ticket is for another node")]
    OtherNode,
    /// Past its time.
    #[error("the ticket has expired")]
    Expired,
    /// Neither the current nor the previous key.
    #[error("the ticket was made under a key that is no longer accepted")]
    OldKey,
    /// The MAC is wrong.
    #[error("the ticket is forged")]
    Forged,
    /// The child has not the ticket's secret, or shows it on another connection.
    #[error("the ticket is not this connection's: the proof of possession is wrong")]
    Stolen,
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length, so that this never fails; an error would make an all-zero MAC that nothing matches.
    let Ok(mut m) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for p in parts {
        m.update(p);
    }
    m.finalize().into_bytes().into()
}

/// Key `number` of `parent`, derived from the control center's identity secret, so that keys outlive its state.
pub fn parent_key(secret: &[u8; 32], parent: &NodeId, number: u64) -> ParentKey {
    ParentKey(mac(secret, &[b"headwater parent key", &parent.0, &number.to_be_bytes()]))
}

/// The key number in force at a control time: it changes every [`MAX_LIFE_MS`].
pub fn key_number(control_unix_ms: u64) -> u64 {
    control_unix_ms / MAX_LIFE_MS
}

impl Ticket {
    fn covered(&self) -> Vec<u8> {
        [
            &self.child.0[..],
            &self.parent.0,
            &self.version.content.0,
            &self.version.epoch.to_be_bytes(),
            &self.highest_piece.to_be_bytes(),
            &self.substreams.0.to_be_bytes(),
            &self.key_number.to_be_bytes(),
            &self.control_epoch.to_be_bytes(),
            &self.expires_unix_ms.to_be_bytes(),
        ]
        .concat()
    }
    /// Fills in the MAC.
    pub fn seal(mut self, key: &ParentKey) -> Ticket {
        self.mac = mac(&key.0, &[b"ticket", &self.covered()]);
        self
    }
    /// The secret that the child gets with its ticket.
    pub fn secret(&self, key: &ParentKey) -> [u8; 32] {
        mac(&key.0, &[b"secret", &self.covered()])
    }
    /// The child's proof over the parent's nonce and certificate hash.
    pub fn prove(secret: &[u8; 32], nonce: &[u8; 32], parent_certificate: &Hash) -> [u8; 32] {
        mac(secret, &[b"proof", nonce, &parent_certificate.0])
    }
    /// The parent's check. `keys` are those it accepts: (number, key).
    ///
    /// # Errors
    /// [`TicketError`], cheapest test first.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the connection that the ticket must fit")]
    pub fn check(
        &self,
        keys: &[(u64, ParentKey)],
        child: &NodeId,
        parent: &NodeId,
        control_unix_ms: u64,
        proof: &[u8; 32],
        nonce: &[u8; 32],
        own_certificate: &Hash,
    ) -> Result<(), TicketError> {
        if (&self.child, &self.parent) != (child, parent) {
            return Err(TicketError::OtherNode);
        }
        if control_unix_ms > self.expires_unix_ms {
            return Err(TicketError::Expired);
        }
        let (_, key) = keys.iter().find(|(n, _)| *n == self.key_number).ok_or(TicketError::OldKey)?;
        if !bool::from(self.clone().seal(key).mac.ct_eq(&self.mac)) {
            return Err(TicketError::Forged);
        }
        let wanted = Ticket::prove(&self.secret(key), nonce, own_certificate);
        if !bool::from(wanted.ct_eq(proof)) {
            return Err(TicketError::Stolen);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    #[test]
    fn only_the_right_child_on_the_right_connection_in_time() {
        let key = parent_key(&[9; 32], &id(2), 4);
        let ticket = Ticket {
            child: id(1),
            parent: id(2),
            version: Version::default(),
            highest_piece: 10,
            substreams: Substreams(3),
            key_number: 4,
            control_epoch: 1,
            expires_unix_ms: 1000,
            mac: [0; 32],
        }
        .seal(&key);
        let (nonce, cert) = ([7; 32], Hash([8; 32]));
        let proof = Ticket::prove(&ticket.secret(&key), &nonce, &cert);
        let keys = [(4, key), (3, parent_key(&[9; 32], &id(2), 3))];
        let check = |t: &Ticket, child: u8, now, proof: &[u8; 32], nonce: &[u8; 32], cert: &Hash| {
            t.check(&keys, &id(child), &id(2), now, proof, nonce, cert)
        };
        assert_eq!(check(&ticket, 1, 1000, &proof, &nonce, &cert), Ok(()));
        assert_eq!(check(&ticket, 3, 1000, &proof, &nonce, &cert), Err(TicketError::OtherNode), "stolen by a node");
        assert_eq!(check(&ticket, 1, 1001, &proof, &nonce, &cert), Err(TicketError::Expired));
        assert_eq!(check(&ticket, 1, 1, &proof, &[1; 32], &cert), Err(TicketError::Stolen), "replayed on a connection");
        assert_eq!(check(&ticket, 1, 1, &proof, &nonce, &Hash([1; 32])), Err(TicketError::Stolen), "at another parent");
        let mut more = ticket.clone();
        more.highest_piece = 99;
        assert_eq!(check(&more, 1, 1, &proof, &nonce, &cert), Err(TicketError::Forged));
        let more = Ticket { substreams: Substreams(7), ..ticket.clone() };
        assert_eq!(check(&more, 1, 1, &proof, &nonce, &cert), Err(TicketError::Forged));
        let old = Ticket { key_number: 2, ..ticket.clone() };
        assert_eq!(check(&old, 1, 1, &proof, &nonce, &cert), Err(TicketError::OldKey));
        let other = ticket.clone().seal(&parent_key(&[1; 32], &id(2), 4));
        assert_eq!(check(&other, 1, 1, &proof, &nonce, &cert), Err(TicketError::Forged));
    }
}
