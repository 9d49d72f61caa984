//! What precedes a session over a WebSocket, and tickets by HTTPS: either refused, or read and then written so that it is
//! read the same.
#![no_main]

use headwater_wire::web::{HttpsTicket, WebAnswer, WebHello, WebProof};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let body = || bytes::Bytes::copy_from_slice(body);
    if let Ok(m) = WebHello::decode(body()) {
        assert_eq!(WebHello::decode(m.encode()), Ok(m));
    }
    if let Ok(m) = WebProof::decode(body()) {
        assert_eq!(WebProof::decode(m.encode()), Ok(m));
    }
    if let Ok(m) = WebAnswer::decode(body()) {
        assert_eq!(WebAnswer::decode(m.encode()), Ok(m));
    }
    if let Ok(m) = HttpsTicket::decode(body()) {
        assert_eq!(HttpsTicket::decode(m.encode()), Ok(m));
    }
});
