//! Bodies of frames: read or refused, and what is read is written so that it is read the same.
#![no_main]

use bytes::Bytes;
use headwater_wire::FromPeer;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(message) = FromPeer::decode(Bytes::copy_from_slice(body)) {
        assert_eq!(FromPeer::decode(message.encode().slice(4..)).as_ref(), Ok(&message));
    }
});
