//! Bodies of frames: read or refused, and what is read is written so that it is read the same.
#![no_main]

use bytes::Bytes;
use headwater_wire::FromNode;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(message) = FromNode::decode(Bytes::copy_from_slice(body)) {
        assert_eq!(FromNode::decode(message.encode().slice(4..)).as_ref(), Ok(&message));
    }
});
