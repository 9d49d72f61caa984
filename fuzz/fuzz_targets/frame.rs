//! A stream cut anywhere gives the same frames as the stream in one; a datagram is read or refused.
#![no_main]

use headwater_wire::frame::{DelayDatagram, FrameDecoder};

fn frames(chunks: &[&[u8]]) -> (Vec<bytes::Bytes>, bool) {
    let (mut decoder, mut out) = (FrameDecoder::new(1000), Vec::new());
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next_frame() {
                Ok(Some(body)) => out.push(body),
                Ok(None) => break,
                Err(_) => return (out, true),
            }
        }
    }
    (out, false)
}

libfuzzer_sys::fuzz_target!(|input: (u16, &[u8])| {
    let (at, stream) = input;
    let (a, b) = stream.split_at(usize::from(at).min(stream.len()));
    assert_eq!(frames(&[a, b]), frames(&[stream]));
    if let Ok(datagram) = DelayDatagram::decode(stream) {
        assert_eq!(datagram.encode(), stream);
    }
});
