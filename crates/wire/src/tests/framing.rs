//! Frames in pieces, oversized frames, and headers of pieces.

use super::*;
use crate::frame::{DelayDatagram, FrameDecoder, FrameError, PieceHeader};
use crate::limits::{MAX_NODE_FRAME_BYTES, MAX_PEER_FRAME_BYTES};
use headwater_model::Rng;
use headwater_model::layout::{MAX_PIECE_BYTES, MAX_PIECES};
use proptest::prelude::*;

#[test]
fn frames_come_out_however_they_arrive() {
    let sent = FromNode::samples();
    let stream: Vec<u8> = sent.iter().flat_map(|m| m.encode()).collect();
    let mut rng = Rng::new(2, "splits");
    for most in [1, 2, 3, 7, 100, 5000] {
        let (mut frames, mut got, mut rest) = (FrameDecoder::new(MAX_NODE_FRAME_BYTES), Vec::new(), &stream[..]);
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + rng.below(most) as usize).min(rest.len()));
            frames.push(now);
            rest = later;
            while let Some(body) = frames.next_frame().unwrap() {
                got.push(FromNode::decode(body).unwrap());
            }
        }
        assert!(frames.is_empty());
        assert_eq!(got, sent);
    }
}

#[test]
fn an_oversized_length_is_refused_at_once_and_for_good() {
    let mut frames = FrameDecoder::new(MAX_PEER_FRAME_BYTES);
    frames.push(&(MAX_PEER_FRAME_BYTES + 1).to_be_bytes()[..3]);
    assert_eq!(frames.next_frame(), Ok(None));
    frames.push(&(MAX_PEER_FRAME_BYTES + 1).to_be_bytes()[3..]);
    let error = FrameError { got_bytes: MAX_PEER_FRAME_BYTES + 1, limit_bytes: MAX_PEER_FRAME_BYTES };
    assert_eq!(frames.next_frame(), Err(error));
    frames.push(&[0; 8]);
    assert_eq!(frames.next_frame(), Err(error));
}

#[test]
fn the_largest_and_the_empty_frame_pass() {
    let mut frames = FrameDecoder::new(10);
    frames.push(&[0, 0, 0, 10]);
    frames.push(&[7; 10]);
    frames.push(&[0; 4]);
    frames.push(&[0, 0, 0, 11]);
    assert_eq!(frames.next_frame(), Ok(Some(vec![7; 10].into())));
    assert_eq!(frames.next_frame(), Ok(Some(Bytes::new())));
    assert!(frames.next_frame().is_err());
}

#[test]
fn piece_headers_keep_their_limits() {
    let read = |piece, len| PieceHeader::decode(PieceHeader { piece, len }.encode());
    for (piece, len) in [(0, 1), (MAX_PIECES - 1, MAX_PIECE_BYTES), (0x0102_0304 >> 4, 5)] {
        assert_eq!(read(piece, len), Ok(PieceHeader { piece, len }));
    }
    assert_eq!(PieceHeader { piece: 1, len: 2 }.encode(), [0, 0, 0, 1, 0, 0, 0, 2]);
    assert!(read(MAX_PIECES, 1).is_err() && read(0, 0).is_err() && read(0, MAX_PIECE_BYTES + 1).is_err());
}

#[test]
fn datagrams_are_read_as_they_are_written_and_nothing_else_is() {
    for sent in [DelayDatagram::Probe { number: 7 }, DelayDatagram::Echo { number: u64::MAX, arrived_us: 9 }] {
        let bytes = sent.encode();
        assert_eq!(DelayDatagram::decode(&bytes), Ok(sent));
        assert!(DelayDatagram::decode(&bytes[1..]).is_err());
        assert!(DelayDatagram::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
    assert_eq!(DelayDatagram::Probe { number: 1 }.encode()[..], [1, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert!(DelayDatagram::decode(&[]).is_err() && DelayDatagram::decode(&[3; 9]).is_err());
}

proptest! {
    #[test]
    fn any_stream_is_cut_or_refused(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..40)) {
        let mut frames = FrameDecoder::new(20);
        let mut taken = 0;
        for chunk in &chunks {
            frames.push(chunk);
            while let Ok(Some(body)) = frames.next_frame() {
                prop_assert!(body.len() <= 20);
                taken += 4 + body.len();
            }
        }
        prop_assert!(taken <= chunks.iter().map(Vec::len).sum());
    }
}
