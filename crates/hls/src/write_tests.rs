use super::*;
use crate::playlist::{Map, MediaPlaylist, Playlist, Segment, parse};
use proptest::prelude::*;
use std::sync::Arc;

const TARGET: Micros = Micros::from_secs(2);

fn segment(sequence: u64) -> WindowSegment {
    WindowSegment { sequence, duration: TARGET, uri: format!("{sequence}.ts"), ..WindowSegment::default() }
}

fn window(segments: &[WindowSegment]) -> Window<'_> {
    Window { target_duration: TARGET, discontinuity_sequence: 0, segments, ended: false }
}

fn read(text: &str) -> MediaPlaylist {
    match parse(text).unwrap() {
        Playlist::Media(list) => list,
        Playlist::Multivariant(_) => panic!("multivariant"),
    }
}

fn numbers(list: &MediaPlaylist) -> Vec<(u64, bool)> {
    list.segments.iter().map(|s| (s.sequence, s.gap)).collect()
}

#[test]
fn a_window_is_written() {
    let first_us = 1_795_946_400_250_999;
    let map = |uri: &str| Some(uri.to_owned());
    let segments = [
        WindowSegment { map_uri: map("i1.mp4"), recorded_unix_us: Some(first_us), ..segment(41) },
        WindowSegment { duration: Micros(1_998_000), map_uri: map("i1.mp4"), ..segment(42) },
        WindowSegment { discontinuity: true, map_uri: map("i2.mp4"), uri: "a \"b\".m4s".into(), ..segment(44) },
    ];
    let list = Window { discontinuity_sequence: 3, ended: true, ..window(&segments) };
    let expected = "#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:41
#EXT-X-DISCONTINUITY-SEQUENCE:3
#EXT-X-MAP:URI=\"i1.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2026-11-29T10:00:00.250Z
#EXTINF:2.000000,
41.ts
#EXTINF:1.998000,
42.ts
#EXT-X-GAP
#EXTINF:2.000000,
gap-43.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI=\"i2.mp4\"
#EXTINF:2.000000,
a%20%22b%22.m4s
#EXT-X-ENDLIST
";
    assert_eq!(media_playlist(&list), expected);
    assert_eq!(read(&media_playlist(&window(&[]))).segments, []);
}

#[test]
fn no_segment_exceeds_the_target_when_rounded() {
    for (target, duration, expected) in [
        (2_000_000, 2_000_000, 2),
        (2_000_000, 2_499_999, 2),
        (2_000_000, 2_500_000, 3),
        (2_000_001, 1, 3),
        (200_000, 200_000, 1),
    ] {
        let segments = [WindowSegment { duration: Micros(duration), ..segment(1) }];
        let text = media_playlist(&Window { target_duration: Micros(target), ..window(&segments) });
        assert!(text.contains(&format!("#EXT-X-TARGETDURATION:{expected}\n")), "{target} {duration}: {text}");
    }
}

#[test]
fn behind_a_long_hole_it_begins_anew() {
    let with = |sequences: &[u64]| -> Vec<WindowSegment> {
        let discontinuity = |n| WindowSegment { discontinuity: n % 10 == 0, ..segment(n) };
        sequences.iter().map(|n| discontinuity(*n)).collect()
    };
    let all = with(&[10, 11, 12 + MAX_GAPS]);
    assert_eq!(read(&media_playlist(&window(&all))).segments.len() as u64, 3 + MAX_GAPS);
    let longer = with(&[10, 11, 20, 21 + MAX_GAPS + 1, 21 + MAX_GAPS + 3]);
    let text = media_playlist(&window(&longer));
    let first = 22 + MAX_GAPS;
    assert_eq!(numbers(&read(&text)), [(first, false), (first + 1, true), (first + 2, false)]);
    assert!(text.contains("#EXT-X-DISCONTINUITY-SEQUENCE:2\n"), "{text}");
    let huge = with(&[1, u64::MAX - 1]);
    assert_eq!(numbers(&read(&media_playlist(&window(&huge)))), [(u64::MAX - 1, false)]);
    // One whose number went by is left out.
    assert_eq!(numbers(&read(&media_playlist(&window(&with(&[3, 5, 4, 5, 6]))))).len(), 4);
}

#[test]
fn dates_are_of_the_calendar() {
    for (us, expected) in [
        (0, Some("1970-01-01T00:00:00.000Z")),
        (951_870_599_999_999, Some("2000-03-01T00:29:59.999Z")),
        (951_782_400_000_000, Some("2000-02-29T00:00:00.000Z")),
        (4_107_542_399_000_000, Some("2100-02-28T23:59:59.000Z")),
        (4_107_542_400_000_000, Some("2100-03-01T00:00:00.000Z")),
        (253_402_300_799_999_000, Some("9999-12-31T23:59:59.999Z")),
        (253_402_300_800_000_000, None),
        (u64::MAX, None),
    ] {
        assert_eq!(date_time(us).as_deref(), expected, "{us}");
    }
}

/// What a reader is to find.
fn expected(list: &Window<'_>) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    for s in list.segments {
        let counted_on = |out: &[Segment]| out.last().and_then(|b| Some(b.recorded_unix_us? + b.duration.0));
        while let Some(last) = out.last().filter(|l| l.sequence + 1 < s.sequence) {
            let sequence = last.sequence + 1;
            let (duration, map, recorded_unix_us) = (list.target_duration, last.map.clone(), counted_on(&out));
            let uri = gap_uri(sequence, &s.uri);
            out.push(Segment { sequence, uri, duration, gap: true, map, recorded_unix_us, ..Segment::default() });
        }
        let own = s.recorded_unix_us.map(|us| us / 1000 * 1000);
        out.push(Segment {
            sequence: s.sequence,
            uri: s.uri.clone(),
            duration: s.duration,
            discontinuity: s.discontinuity,
            map: s.map_uri.clone().map(|uri| Arc::new(Map { uri, range: None })),
            recorded_unix_us: own.or_else(|| counted_on(&out).filter(|_| !s.discontinuity)),
            ..Segment::default()
        });
    }
    out
}

prop_compose! {
    fn a_segment()(
        ahead in 1u64..4,
        duration in 0u64..3_600_000_000,
        uri in "[a-z0-9/?=&%._~é-]{1,20}",
        discontinuity: bool,
        recorded_unix_us in proptest::option::of(0u64..253_402_000_000_000_000),
    ) -> (u64, WindowSegment) {
        let duration = Micros(duration);
        (ahead, WindowSegment { sequence: 0, duration, uri, map_uri: None, discontinuity, recorded_unix_us })
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        first in 0u64..1 << 60,
        target in 1u64..3_600_000_000,
        discontinuity_sequence in 0u64..9,
        ended: bool,
        maps in proptest::collection::vec("[a-z]{1,3}", 0..3),
        mut segments in proptest::collection::vec(a_segment(), 0..12),
    ) {
        let mut sequence = first;
        for (n, (ahead, segment)) in segments.iter_mut().enumerate() {
            sequence += if n == 0 { 0 } else { *ahead };
            segment.sequence = sequence;
            segment.map_uri = maps.get(n * maps.len() / 12).cloned();
        }
        let segments: Vec<WindowSegment> = segments.into_iter().map(|(_, s)| s).collect();
        let target_duration = Micros(target);
        let list = Window { target_duration, discontinuity_sequence, segments: &segments, ended };
        let found = read(&media_playlist(&list));
        prop_assert_eq!(&found.segments, &expected(&list));
        prop_assert_eq!(found.ended, ended);
        prop_assert!(found.target_duration >= target_duration && found.target_duration.0.is_multiple_of(1_000_000));
        let exceeds = |s: &Segment| (s.duration.0 + 500_000) / 1_000_000 > found.target_duration.0 / 1_000_000;
        prop_assert!(!found.segments.iter().any(exceeds));
    }

    #[test]
    fn no_address_breaks_the_lines(uri in "\\PC{1,20}|[#\"\r\n a]{1,9}") {
        let segments = [WindowSegment { uri: uri.clone(), map_uri: Some(uri), ..segment(1) }, segment(2)];
        prop_assert_eq!(numbers(&read(&media_playlist(&window(&segments)))), [(1, false), (2, false)]);
    }
}
