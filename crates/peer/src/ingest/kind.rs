//! What a segment is.

use headwater_model::live::ObjectKind;
use url::Url;

/// So many bytes tell it.
pub(super) const ENOUGH_BYTES: usize = 8;

/// By its name, or because it needs an initialisation section.
pub(super) fn by_name(url: &Url, has_map: bool) -> Option<ObjectKind> {
    let name = url.path().rsplit_once('/').map_or(url.path(), |(_, name)| name);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "vtt" | "webvtt" => Some(ObjectKind::Vtt),
        _ if has_map => Some(ObjectKind::Mp4),
        "ts" => Some(ObjectKind::Ts),
        "m4s" | "mp4" | "m4v" | "m4a" | "cmfv" | "cmfa" => Some(ObjectKind::Mp4),
        "aac" => Some(ObjectKind::Aac),
        _ => None,
    }
}

/// By its first bytes: the sync byte of a transport stream, or the type of the first box.
pub(super) fn by_bytes(head: &[u8]) -> Option<ObjectKind> {
    if head.first() == Some(&0x47) {
        return Some(ObjectKind::Ts);
    }
    let is_box = matches!(head.get(4..8)?, b"styp" | b"ftyp" | b"sidx" | b"moof" | b"emsg" | b"prft");
    is_box.then_some(ObjectKind::Mp4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ObjectKind::*;

    #[test]
    fn names_and_bytes_tell_the_kind() {
        for (url, has_map, expected) in [
            ("http://o/a/1.ts", false, Some(Ts)),
            ("http://o/a/1.TS?x=.mp4", false, Some(Ts)),
            ("http://o/a.b/1.m4s", false, Some(Mp4)),
            ("http://o/1.cmfv", false, Some(Mp4)),
            ("http://o/1.aac", false, Some(Aac)),
            ("http://o/1.vtt", true, Some(Vtt)),
            ("http://o/1.bin", true, Some(Mp4)),
            ("http://o/1", true, Some(Mp4)),
            ("http://o/1.bin", false, None),
            ("http://o/a.ts/1", false, None),
        ] {
            assert_eq!(by_name(&Url::parse(url).unwrap(), has_map), expected, "{url}");
        }
        for (bytes, expected) in [
            (&b"G@\0\x10"[..], Some(Ts)),
            (b"\0\0\0\x18styp", Some(Mp4)),
            (b"\0\0\0\x18moofx", Some(Mp4)),
            (b"<!doctype html>", None),
            (b"\0\0\0\x18moo", None),
            (b"", None),
        ] {
            assert_eq!(by_bytes(bytes), expected, "{bytes:?}");
        }
    }
}
