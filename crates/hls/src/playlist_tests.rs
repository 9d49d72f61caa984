use super::*;
use proptest::prelude::*;

const LIVE: &str = "#EXTM3U\r
#EXT-X-VERSION:7\r
#EXT-X-TARGETDURATION:2\r
#EXT-X-MEDIA-SEQUENCE:41\r
#EXT-X-SERVER-CONTROL:HOLD-BACK=6,CAN-BLOCK-RELOAD=YES\r
#EXT-X-MAP:URI=\"init,1.mp4\",BYTERANGE=\"700@0\"\r
#EXT-X-PROGRAM-DATE-TIME:2026-11-29T10:00:00.250+0100\r
#EXTINF:2.002,a title, with commas\r
a.m4s\r
#EXTINF:1.998\r
#EXT-X-BYTERANGE:1000@500\r
all.m4s\r
# a comment\r
#EXTINF:2,\r
#EXT-X-BYTERANGE:200\r
#EXT-X-UNHEARD-OF:X=1\r
all.m4s\r
#EXT-X-DISCONTINUITY\r
#EXT-X-MAP:URI=\"init2.mp4\"\r
#EXT-X-GAP\r
#EXTINF:2.0,\r
b.m4s\r
";

fn media(text: &str) -> MediaPlaylist {
    match parse(text).unwrap() {
        Playlist::Media(list) => list,
        Playlist::Multivariant(_) => panic!("multivariant"),
    }
}

#[test]
fn a_live_playlist_is_understood() {
    let list = media(LIVE);
    assert_eq!((list.target_duration, list.media_sequence, list.ended), (Micros::from_secs(2), 41, false));
    assert!(list.can_block);
    assert!(!media(&LIVE.replace("RELOAD=YES", "RELOAD=NO")).can_block);
    let first_us = 1_795_942_800_250_000;
    let map = |uri: &str, range| Some(Arc::new(Map { uri: uri.into(), range }));
    let init = map("init,1.mp4", Some(ByteRange { from: 0, bytes: 700 }));
    let segment = |sequence, uri: &str, us, duration| Segment {
        sequence,
        uri: uri.into(),
        duration: Micros(duration),
        map: init.clone(),
        recorded_unix_us: us,
        ..Segment::default()
    };
    let expected = [
        segment(41, "a.m4s", Some(first_us), 2_002_000),
        Segment {
            range: Some(ByteRange { from: 500, bytes: 1000 }),
            ..segment(42, "all.m4s", Some(first_us + 2_002_000), 1_998_000)
        },
        Segment {
            range: Some(ByteRange { from: 1500, bytes: 200 }),
            ..segment(43, "all.m4s", Some(first_us + 4_000_000), 2_000_000)
        },
        Segment {
            discontinuity: true,
            gap: true,
            map: map("init2.mp4", None),
            ..segment(44, "b.m4s", None, 2_000_000)
        },
    ];
    for (found, expected) in list.segments.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(list.segments.len(), 4);
    assert!(media(&format!("{LIVE}#EXT-X-ENDLIST\r\n")).ended);
}

#[test]
fn keys_are_seen() {
    let with = |tag: &str| media(&format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{tag}\n#EXTINF:2,\na.ts\n")).encrypted;
    assert!(!with("#EXT-X-KEY:METHOD=NONE"));
    for tag in
        ["#EXT-X-KEY:METHOD=AES-128,URI=\"METHOD=NONE\"", "#EXT-X-KEY:URI=\"k\",METHOD=SAMPLE-AES", "#EXT-X-KEY:"]
    {
        assert!(with(tag), "{tag}");
    }
}

#[test]
fn renditions_are_listed() {
    let text = "#EXTM3U\n#EXT-X-STREAM-INF:CODECS=\"avc1,mp4a\",BANDWIDTH=2000000\nlow/index.m3u8\n\
                #EXT-X-MEDIA:TYPE=AUDIO,URI=\"x\"\n#EXT-X-STREAM-INF:BANDWIDTH=8000000\nhigh.m3u8?a=b\n";
    let variant = |uri: &str, bandwidth| Variant { uri: uri.into(), bandwidth: Rate(bandwidth) };
    let expected = vec![variant("low/index.m3u8", 250_000), variant("high.m3u8?a=b", 1_000_000)];
    assert_eq!(parse(text), Ok(Playlist::Multivariant(expected)));
}

#[test]
fn dates_are_unix_times() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("1970-01-01T01:00:00.5+01:00", Some(500_000)),
        ("2000-02-29T23:59:59.999999-00:30", Some(951_870_599_999_999)),
        ("2026-11-29T10:00:00", Some(1_795_946_400_000_000)),
        ("1969-12-31T23:59:59Z", None),
        ("1970-01-01T00:00:00+01:00", None),
        ("2026-13-01T00:00:00Z", None),
        ("2026-11-29 10:00:00", None),
        ("2026-11-29T10:00", None),
        ("2026-11-29T10:00:00+x", None),
        ("", None),
    ] {
        assert_eq!(unix_us(text), expected, "{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let line = |line, what: &str| format!("line {line} of the playlist: {what}");
    let head = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n";
    for (text, said) in [
        ("", "no playlist".into()),
        ("<html>", "no playlist".into()),
        ("#EXTM3U8\n", "no playlist".into()),
        ("#EXTM3U\n#EXTINF:2,\na\n", "no EXT-X-TARGETDURATION".into()),
        (&format!("{head}a.ts\n"), line(3, "a segment without EXTINF")),
        (&format!("{head}#EXTINF:2,\na\nb\n"), line(5, "a segment without EXTINF")),
        (&format!("{head}#EXTINF:-1,\na\n"), line(3, "the duration is none")),
        (&format!("{head}#EXTINF:NaN,\na\n"), line(3, "the duration is none")),
        (&format!("{head}#EXTINF:1e9,\na\n"), line(3, "the duration is none")),
        (&format!("{head}#EXT-X-BYTERANGE:0@4\n"), line(3, "the byte range is none")),
        (&format!("{head}#EXTINF:2,\n#EXT-X-BYTERANGE:4\na\n"), line(5, "a byte range without")),
        (&format!("{head}#EXTINF:2,\n#EXT-X-BYTERANGE:4@{}\na\n", u64::MAX), line(5, "the byte range is too high")),
        (&format!("{head}#EXT-X-MAP:BYTERANGE=\"1@0\"\n"), line(3, "EXT-X-MAP without a URI")),
        (&format!("{head}#EXT-X-MEDIA-SEQUENCE:-1\n"), line(3, "the media sequence is no number")),
        (
            &format!("{head}#EXT-X-MEDIA-SEQUENCE:{}\n#EXTINF:1,\na\n#EXTINF:1,\nb\n", u64::MAX),
            line(5, "the media sequence is too high"),
        ),
        (&format!("{head}#EXTINF:1,\na\n#EXT-X-MEDIA-SEQUENCE:7\n"), line(5, "the media sequence after a segment")),
        (&format!("{head}#EXTINF:1,\n{}\n", "a".repeat(MAX_URI_BYTES + 1)), line(4, "an address that is too long")),
        (&format!("{head}#EXT-X-MAP:URI=\"{}\"\n", "a".repeat(MAX_URI_BYTES + 1)), line(3, "an address that is")),
        (&format!("{head}#EXT-X-TARGETDURATION:0\n"), line(3, "the target duration is none")),
        (&format!("{head}{}", "#EXTINF:2,\na\n".repeat(MAX_ENTRIES + 1)), "more than".into()),
        (&"#EXTM3U\n".repeat(MAX_PLAYLIST_BYTES / 4), "bytes, more than".into()),
    ] {
        let found = parse(text).unwrap_err().to_string();
        assert!(found.contains(&said), "{found:?} has no {said:?}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC{0,200}", lines in proptest::collection::vec("#EXT(INF|-X-(BYTERANGE|MAP|MEDIA-SEQUENCE|PROGRAM-DATE-TIME|SERVER-CONTROL|STREAM-INF|TARGETDURATION)):\\PC{0,30}|[a-z]{1,5}", 0..12)) {
        let _ = parse(&text);
        let _ = parse(&format!("#EXTM3U\n{}", lines.join("\n")));
    }
}
