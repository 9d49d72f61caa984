//! The messages before a session over a WebSocket, and tickets by HTTPS.

use super::{mutations, samples};
use crate::WireError;
use crate::limits::MAX_UNPROVED_MESSAGE_BYTES;
use crate::web::*;
use bytes::Bytes;
use headwater_model::Hash;

fn hello() -> WebHello {
    WebHello { nonce: [1; 32], certificate: Bytes::from_static(&[0x30; 400]), page: false }
}

fn page() -> WebHello {
    WebHello { nonce: [1; 32], certificate: Bytes::from_static(&[0x30; 91]), page: true }
}

fn proof() -> WebProof {
    WebProof { nonce: [2; 32], certificate: Bytes::from_static(&[0x31; 410]), tls: Hash([3; 32]), signature: [4; 64] }
}

fn https() -> HttpsTicket {
    HttpsTicket { ticket: samples::ticket(2), proof: [7; 32] }
}

#[test]
fn they_round_trip() {
    assert_eq!(WebHello::decode(hello().encode()), Ok(hello()));
    assert_eq!(WebHello::decode(page().encode()), Ok(page()));
    assert_eq!(WebProof::decode(proof().encode()), Ok(proof()));
    let answer = WebAnswer { signature: [5; 64] };
    assert_eq!(WebAnswer::decode(answer.encode()), Ok(answer));
    assert_eq!(HttpsTicket::decode(https().encode()), Ok(https()));
}

#[test]
fn random_damage_does_no_harm() {
    let bodies =
        [hello().encode().to_vec(), proof().encode().to_vec(), https().encode().to_vec(), vec![0x0A, 1, 0, 0x12]];
    mutations("web", &bodies, |body| {
        let body = Bytes::copy_from_slice(body);
        let read = [
            WebHello::decode(body.clone()).map(|m| assert_eq!(WebHello::decode(m.encode()), Ok(m))).is_ok(),
            WebProof::decode(body.clone()).map(|m| assert_eq!(WebProof::decode(m.encode()), Ok(m))).is_ok(),
            WebAnswer::decode(body.clone()).is_ok(),
            HttpsTicket::decode(body).map(|m| assert_eq!(HttpsTicket::decode(m.encode()), Ok(m))).is_ok(),
        ];
        read.contains(&true)
    });
}

#[test]
fn limits_hold() {
    let large = WebHello { certificate: vec![0; 3200].into(), ..hello() };
    assert!(matches!(WebHello::decode(large.encode()), Err(WireError::Length { field: "certificate", .. })));
    let larger = WebHello { certificate: vec![0; MAX_UNPROVED_MESSAGE_BYTES].into(), ..hello() };
    assert!(matches!(WebHello::decode(larger.encode()), Err(WireError::Length { field: "message", .. })));
    let long = WebHello { certificate: vec![0; 92].into(), ..page() };
    assert!(matches!(WebHello::decode(long.encode()), Err(WireError::Length { field: "key", .. })));
    assert_eq!(WebHello::decode(Bytes::new()), Err(WireError::Missing("nonce")));
    let none = WebHello { certificate: Bytes::new(), ..hello() };
    assert_eq!(WebHello::decode(none.encode()), Err(WireError::Missing("certificate")));
    assert_eq!(HttpsTicket::decode(Bytes::new()), Err(WireError::Missing("ticket")));
}

#[test]
fn a_signature_covers_who_where_and_when() {
    let (h, tls) = (hello(), Hash([3; 32]));
    let base = covered(Signer::Node, &h, &[2; 32], &tls, b"control");
    let other_hello = WebHello { nonce: [9; 32], ..hello() };
    let other_node = WebHello { certificate: Bytes::from_static(b"x"), ..hello() };
    for other in [
        covered(Signer::Control, &h, &[2; 32], &tls, b"control"),
        covered(Signer::Node, &other_hello, &[2; 32], &tls, b"control"),
        covered(Signer::Node, &other_node, &[2; 32], &tls, b"control"),
        covered(Signer::Node, &h, &[8; 32], &tls, b"control"),
        covered(Signer::Node, &h, &[2; 32], &Hash([8; 32]), b"control"),
        covered(Signer::Node, &h, &[2; 32], &tls, b"other"),
    ] {
        assert_ne!(base, other);
    }
    assert_ne!(https_nonce("/a"), https_nonce("/b"));
}
