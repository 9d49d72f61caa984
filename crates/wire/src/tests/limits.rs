//! Every field of the schema that can be long has a limit, and every limit is kept.

use super::*;
use crate::limits::MAX_NODE_FRAME_BYTES;
use crate::shape::{self, Field, Holds, Shape, check};
use prost::encoding::{WireType, encode_key, encode_varint};
use std::collections::BTreeMap;

const ROOTS: [&Shape; 5] =
    [&shape::NODE_MESSAGE, &shape::CONTROL_MESSAGE, &shape::PEER_MESSAGE, &shape::STATIC_LOG, &shape::DATA_HEADER];

fn put(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// `inner` and an unknown field, so that the message of `shape` is at least as long as it must be.
fn padded(mut inner: Vec<u8>, shape: &Shape) -> Vec<u8> {
    if inner.len() < shape.least_bytes {
        put(&mut inner, 1000, &vec![0; shape.least_bytes]);
    }
    inner
}

/// `count` times `field`, each as short as it can be.
fn times(field: &Field, count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    match field.holds {
        Holds::Bytes => (0..count).for_each(|_| put(&mut out, field.number, &[])),
        Holds::Message(s) => (0..count).for_each(|_| put(&mut out, field.number, &padded(vec![], s))),
        Holds::Numbers => {
            // One number alone, the others packed.
            encode_key(field.number, WireType::Varint, &mut out);
            encode_varint(300, &mut out);
            put(&mut out, field.number, &[0x80, 1].repeat(count - 1));
        }
    }
    out
}

/// `field` once, with a value of `len` bytes.
fn once(field: &Field, len: usize) -> Vec<u8> {
    let mut value = Vec::new();
    if let Holds::Message(_) = field.holds {
        put(&mut value, 1000, &vec![0; len - 2 - prost::length_delimiter_len(len)]);
        assert_eq!(value.len(), len, "exactly as long as asked for");
    } else {
        value.resize(len, 0);
    }
    let mut out = Vec::new();
    put(&mut out, field.number, &value);
    out
}

/// Tries the limits of all fields of `shape`; `wrap` puts an encoded message of `shape` into one of `root`.
fn try_limits(root: &'static Shape, shape: &'static Shape, wrap: &dyn Fn(Vec<u8>) -> Vec<u8>, tried: &mut usize) {
    for field in shape.fields {
        let checked = |inner: Vec<u8>| check(&wrap(padded(inner, shape)), root);
        let over = |got, limit| Err(WireError::Length { field: field.name, got, limit });
        assert_eq!(checked(times(field, field.most)), Ok(()), "{} {}", shape.message, field.name);
        assert_eq!(checked(times(field, field.most + 1)), over(field.most + 1, field.most), "{}", shape.message);
        if field.most_bytes < usize::MAX {
            assert_eq!(checked(once(field, field.most_bytes)), Ok(()), "{} {}", shape.message, field.name);
            let got = checked(once(field, field.most_bytes + 1));
            assert_eq!(got, over(field.most_bytes + 1, field.most_bytes), "{}", shape.message);
        }
        *tried += 1;
        if let Holds::Message(inner) = field.holds {
            let deeper = |message: Vec<u8>| {
                let mut out = Vec::new();
                put(&mut out, field.number, &message);
                wrap(padded(out, shape))
            };
            if inner.least_bytes > 0 {
                assert_eq!(check(&deeper(vec![]), root), Err(WireError::Missing(inner.message)));
            }
            try_limits(root, inner, &deeper, tried);
        }
    }
}

#[test]
fn every_limit_is_kept() {
    let mut tried = 0;
    for root in ROOTS {
        try_limits(root, root, &|message| padded(message, root), &mut tried);
    }
    assert!(tried > 150, "{tried}");
}

fn collect(shape: &'static Shape, all: &mut BTreeMap<&'static str, &'static Shape>) {
    if all.insert(shape.message, shape).is_none() {
        for field in shape.fields {
            if let Holds::Message(inner) = field.holds {
                collect(inner, all);
            }
        }
    }
}

/// (Message, field, number) of each field of the schema that is repeated or has a length.
fn long_fields_of_the_schema() -> BTreeSet<(String, String, u32)> {
    let schema: String = include_str!("../../proto/headwater.proto")
        .lines()
        .map(|l| l.split("//").next().unwrap_or("").to_owned() + "\n")
        .collect();
    let mut found = BTreeSet::new();
    for part in schema.split("message ").skip(1) {
        let (message, rest) = part.split_once('{').unwrap();
        for statement in rest.split("\nenum ").next().unwrap().split(['{', ';', '}']) {
            let words: Vec<&str> = statement.split_whitespace().collect();
            if let [.., kind, name, "=", number] = words[..]
                && (words[0] == "repeated" || !["bool", "uint32", "uint64"].contains(&kind))
                && !schema.contains(&format!("enum {kind} "))
            {
                found.insert((message.trim().to_owned(), name.to_owned(), number.parse().unwrap()));
            }
        }
    }
    found
}

#[test]
fn every_field_of_the_schema_that_can_be_long_has_a_limit() {
    let mut shapes = BTreeMap::new();
    let web = [&shape::WEB_HELLO, &shape::WEB_PROOF, &shape::WEB_ANSWER, &shape::HTTPS_TICKET];
    ROOTS.into_iter().chain(web).for_each(|root| collect(root, &mut shapes));
    let limited: BTreeSet<(String, String, u32)> = shapes
        .values()
        .flat_map(|s| s.fields.iter().map(|f| (s.message.to_owned(), f.name.to_owned(), f.number)))
        .collect();
    let schema = long_fields_of_the_schema();
    assert!(schema.len() > 90, "{} found", schema.len());
    assert_eq!(limited, schema);
}

#[test]
fn a_frame_of_tiny_messages_is_refused_before_it_is_decoded() {
    // Two bytes on the wire, hundreds in memory: an empty edge, again and again.
    let mut content = Vec::new();
    put(&mut content, 1, &padded(vec![], &shape::DATA_HEADER));
    content.extend([0x3A, 0].repeat(2_000_000));
    let (mut heartbeat, mut message) = (Vec::new(), Vec::new());
    put(&mut heartbeat, 6, &content);
    put(&mut message, 4, &heartbeat);
    assert!(message.len() < MAX_NODE_FRAME_BYTES as usize);
    assert_eq!(FromNode::decode(message.into()), Err(WireError::Missing("Edge")));
}
