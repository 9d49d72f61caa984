//! Entries of live streams, and pieces by substream.

use super::*;
use headwater_model::live::{Listed, LiveEntry, ObjectKind, OriginPlace, SignedLiveEntry};

pub(crate) fn live_entry(e: proto::LiveEntry) -> Result<SignedLiveEntry, WireError> {
    let kind = match e.kind() {
        proto::ObjectKind::Ts => ObjectKind::Ts,
        proto::ObjectKind::Mp4 => ObjectKind::Mp4,
        proto::ObjectKind::Mp4Init => ObjectKind::Mp4Init,
        proto::ObjectKind::Aac => ObjectKind::Aac,
        proto::ObjectKind::Vtt => ObjectKind::Vtt,
    };
    Ok(SignedLiveEntry {
        signature: array("signature", &e.signature)?,
        entry: LiveEntry {
            epoch: e.epoch,
            number: e.number,
            previous: e.previous,
            time_unix_ms: e.time_unix_ms,
            object: e.object,
            kind,
            offset: e.offset,
            first_piece: e.first_piece,
            bytes: e.bytes,
            leaves: hashes("leaves", &e.leaves)?,
            complete: e.complete,
            listed: e.listed.map(listed),
            last: e.last,
        },
    })
}

fn listed(l: proto::Listed) -> Listed {
    Listed {
        sequence: l.sequence,
        duration: Micros(l.duration_us),
        target_duration: Micros(l.target_duration_us),
        discontinuity: l.discontinuity,
        map: l.map,
        recorded_unix_us: l.recorded_unix_us,
        origin: (!l.origin_url.is_empty()).then_some(OriginPlace { url: l.origin_url, from: l.origin_from }),
    }
}

pub(crate) fn live_entry_to_proto(signed: &SignedLiveEntry) -> proto::LiveEntry {
    let e = &signed.entry;
    let kind = match e.kind {
        ObjectKind::Ts => proto::ObjectKind::Ts,
        ObjectKind::Mp4 => proto::ObjectKind::Mp4,
        ObjectKind::Mp4Init => proto::ObjectKind::Mp4Init,
        ObjectKind::Aac => proto::ObjectKind::Aac,
        ObjectKind::Vtt => proto::ObjectKind::Vtt,
    };
    proto::LiveEntry {
        epoch: e.epoch,
        number: e.number,
        previous: e.previous,
        time_unix_ms: e.time_unix_ms,
        object: e.object,
        kind: kind as i32,
        offset: e.offset,
        first_piece: e.first_piece,
        bytes: e.bytes,
        leaves: join_hashes(&e.leaves),
        complete: e.complete,
        listed: e.listed.as_ref().map(|l| proto::Listed {
            sequence: l.sequence,
            duration_us: l.duration.0,
            target_duration_us: l.target_duration.0,
            discontinuity: l.discontinuity,
            map: l.map,
            recorded_unix_us: l.recorded_unix_us,
            origin_url: l.origin.as_ref().map(|o| o.url.clone()).unwrap_or_default(),
            origin_from: l.origin.as_ref().map_or(0, |o| o.from),
        }),
        last: e.last,
        signature: copy(&signed.signature),
    }
}

/// A piece for each substream of a set, in rising order: so none is past the limit, and none occurs twice.
pub(crate) fn by_substream(field: &'static str, substreams: u32, pieces: &[u64]) -> Result<Vec<(u8, u64)>, WireError> {
    let substreams = Substreams(substreams);
    if substreams.len() as usize != pieces.len() {
        return Err(WireError::Value(field));
    }
    Ok(substreams.iter().zip(pieces.iter().copied()).collect())
}

/// The set, and the piece of each of them. What keeps no limit is left out, so that the rest is still read.
pub(crate) fn by_substream_to_proto(pieces: &[(u8, u64)]) -> (u32, Vec<u64>) {
    let mut substreams = Substreams::default();
    pieces.iter().for_each(|(substream, _)| substreams.insert(*substream));
    let of = |substream: u8| pieces.iter().find(|(s, _)| *s == substream).map(|(_, piece)| *piece);
    (substreams.0, substreams.iter().filter_map(of).collect())
}
