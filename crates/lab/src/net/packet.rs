//! What the forwarder must know of a packet: a virtio header and an IP packet, possibly one that stands for several
//! segments (generic segmentation offload).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of `struct virtio_net_hdr`, little-endian as this machine is: flags, kind of segmentation, header length (2),
/// segment size (2), where a checksum starts (2) and goes (2).
pub const VNET_BYTES: usize = 10;
/// The longest that a device hands over.
pub const FRAME_BYTES_MAX: usize = VNET_BYTES + 65_535;

const GSO_NONE: u8 = 0;
const NEEDS_CHECKSUM: u8 = 1;
const CHECKSUM_VALID: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A packet at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    pub from: IpAddr,
    pub to: IpAddr,
    /// IP bytes of all its segments, each with its headers.
    pub bytes: u32,
    /// Segments.
    pub packets: u32,
}

/// Reads what routing and counting need; `None` for what is no whole IP packet.
pub fn glance(frame: &[u8]) -> Option<Glance> {
    let (virtio, packet) = frame.split_at_checked(VNET_BYTES)?;
    let (from, to) = match packet.first()? >> 4 {
        4 => {
            let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            (IpAddr::from(Ipv4Addr::from(from)), IpAddr::from(Ipv4Addr::from(to)))
        }
        6 => {
            let from: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (IpAddr::from(Ipv6Addr::from(from)), IpAddr::from(Ipv6Addr::from(to)))
        }
        _ => return None,
    };
    let mut bytes = packet.len() as u32;
    let mut packets = 1;
    let segment = u32::from(u16::from_le_bytes([virtio[4], virtio[5]]));
    if virtio[1] != GSO_NONE && segment > 0 {
        let headers = payload_at(packet)? as u32;
        packets = bytes.saturating_sub(headers).div_ceil(segment).max(1);
        bytes += (packets - 1) * headers;
    }
    Some(Glance { from, to, bytes, packets })
}

/// Where the payload of TCP or UDP starts; `None` for other protocols and extension headers.
fn payload_at(packet: &[u8]) -> Option<usize> {
    let (protocol, transport) = match packet.first()? >> 4 {
        4 => (*packet.get(9)?, usize::from(packet.first()? & 15) * 4),
        _ => (*packet.get(6)?, 40),
    };
    match protocol {
        UDP => Some(transport + 8),
        TCP => Some(transport + usize::from(packet.get(transport + 12)? >> 4) * 4),
        _ => None,
    }
}

/// Flips a bit of the payload, which one `random` says, and has the checksum taken as right: what a faulty device does
/// behind its own checksum. Packets without payload stay as they are.
pub fn corrupt(frame: &mut [u8], random: u64) {
    let Some((virtio, packet)) = frame.split_at_mut_checked(VNET_BYTES) else { return };
    let Some(payload) = payload_at(packet).and_then(|at| packet.get_mut(at..)).filter(|payload| !payload.is_empty())
    else {
        return;
    };
    let bit = random % (payload.len() as u64 * 8);
    payload[(bit / 8) as usize] ^= 1 << (bit % 8);
    if virtio[0] & NEEDS_CHECKSUM == 0 {
        virtio[0] |= CHECKSUM_VALID;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(payload: usize, gso_size: u16) -> Vec<u8> {
        let mut frame = vec![0; VNET_BYTES + 28 + payload];
        if gso_size > 0 {
            frame[1] = 5;
            frame[4..6].copy_from_slice(&gso_size.to_le_bytes());
        }
        let packet = &mut frame[VNET_BYTES..];
        packet[0] = 0x45;
        packet[9] = UDP;
        packet[12..16].copy_from_slice(&[20, 1, 1, 2]);
        packet[16..20].copy_from_slice(&[20, 2, 1, 2]);
        frame
    }

    #[test]
    fn a_packet_for_several_counts_their_headers() {
        let one = glance(&udp(1000, 0)).expect("a packet");
        assert_eq!((one.bytes, one.packets), (1028, 1));
        assert_eq!(one.from.to_string(), "20.1.1.2");
        assert_eq!(one.to.to_string(), "20.2.1.2");
        let several = glance(&udp(2500, 1000)).expect("a packet");
        assert_eq!((several.bytes, several.packets), (2500 + 3 * 28, 3));
    }

    #[test]
    fn garbage_is_no_packet() {
        assert_eq!(glance(&[0; VNET_BYTES]), None);
        assert_eq!(glance(&[0; VNET_BYTES + 40]), None);
        assert_eq!(glance(&udp(0, 0)[..VNET_BYTES + 19]), None);
    }

    #[test]
    fn one_bit_of_the_payload_flips() {
        for random in [0, 1, 7999, u64::MAX] {
            let (before, mut after) = (udp(1000, 0), udp(1000, 0));
            corrupt(&mut after, random);
            let flipped: u32 = before.iter().zip(&after).skip(VNET_BYTES).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(flipped, 1);
            assert_eq!(before[VNET_BYTES..VNET_BYTES + 28], after[VNET_BYTES..VNET_BYTES + 28]);
            assert_eq!(after[0], CHECKSUM_VALID);
        }
    }
}
