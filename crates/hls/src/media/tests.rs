//! Stories of segments, made here or by ffmpeg, and what is to be found in them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const VIDEO: u32 = 0x100;
const AUDIO: u32 = 0x101;

/// A segment as a story hands it over.
#[derive(Clone, Default, Debug)]
struct Given {
    init: Option<Vec<u8>>,
    bytes: Vec<u8>,
    fresh: bool,
}

fn reports(story: &[Given]) -> Vec<Report> {
    let mut continuity = Continuity::new();
    story.iter().map(|given| continuity.segment(given.init.as_deref(), &given.bytes, given.fresh)).collect()
}

/// What was found, one word a break, the segments parted by a bar; times in milliseconds.
fn told(reports: &[Report]) -> String {
    let word = |found: &Break| match found {
        Break::Gap { track, missing } => format!("gap:{track:x}:{}", missing.0.div_ceil(1000)),
        Break::Repeat { track, again } => format!("repeat:{track:x}:{}", again.0.div_ceil(1000)),
        Break::Lost { track } => format!("lost:{track:x}"),
        Break::Broken(fault) => format!("{fault:?}"),
    };
    let words = |report: &Report| report.breaks.iter().map(word).collect::<Vec<_>>().join(" ");
    reports.iter().map(words).collect::<Vec<_>>().join(" | ")
}

/// Writes MPEG-TS: video of 25 Hz in one PES packet a frame, audio in PES packets of 4 frames of AAC (48 kHz).
struct TsMuxer {
    counters: BTreeMap<u32, u8>,
    origin: u64,
    aac: bool,
}

impl TsMuxer {
    fn new() -> Self {
        Self { counters: BTreeMap::new(), origin: 126_000, aac: true }
    }

    fn packet(&mut self, pid: u32, starts: bool, payload: &[u8]) -> Vec<u8> {
        let counter = self.counters.entry(pid).or_insert(0);
        let mut packet = vec![0x47, (pid >> 8) as u8 | if starts { 0x40 } else { 0 }, pid as u8, 0x10 | *counter];
        *counter = (*counter + 1) % 16;
        let stuffing = 184 - payload.len();
        if stuffing > 0 {
            packet[3] |= 0x20;
            packet.push((stuffing - 1) as u8);
            packet.extend([0u8].iter().take(stuffing - 1));
            packet.extend(vec![0xff; stuffing.saturating_sub(2)]);
        }
        packet.extend(payload);
        assert_eq!(packet.len(), 188);
        packet
    }

    fn pes(&mut self, pid: u32, stream: u8, dts: u64, data: &[u8]) -> Vec<u8> {
        let stamp = |mark: u8, t: u64| {
            let t = t % (1 << 33);
            [
                mark << 4 | (t >> 29) as u8 & 0xe | 1,
                (t >> 22) as u8,
                (t >> 14) as u8 | 1,
                (t >> 7) as u8,
                (t << 1) as u8 | 1,
            ]
        };
        let mut pes = vec![0, 0, 1, stream, 0, 0, 0x80, 0xc0, 10];
        pes.extend(stamp(3, dts + 7200));
        pes.extend(stamp(1, dts));
        pes.extend(data);
        let packets = pes.chunks(184).enumerate().map(|(n, chunk)| self.packet(pid, n == 0, chunk));
        packets.collect::<Vec<_>>().concat()
    }

    /// Frames of video and PES packets of audio from the `n`th second on, one second.
    fn second(&mut self, n: u64) -> Vec<u8> {
        let mut bytes = self.packet(0, true, &[0, 0, 0xb0, 13]);
        for frame in n * 25..(n + 1) * 25 {
            let dts = self.origin + frame * 3600;
            bytes.extend(self.pes(VIDEO, 0xe0, dts, &[7; 400]));
        }
        let packets = |second: u64| (second * 90_000).div_ceil(7680);
        for packet in packets(n)..packets(n + 1) {
            let dts = self.origin + packet * 7680;
            let frame =
                [&[0xff, if self.aac { 0xf1 } else { 0xfb }, 0x4c, 0x80, 0x06, 0x1f, 0xfc][..], &[3; 41]].concat();
            bytes.extend(self.pes(AUDIO, 0xc0, dts, &frame.repeat(4)));
        }
        bytes
    }
}

fn ts(seconds: impl IntoIterator<Item = u64>) -> Vec<Given> {
    let mut muxer = TsMuxer::new();
    seconds.into_iter().map(|n| Given { bytes: muxer.second(n), ..Given::default() }).collect()
}

fn boxed(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], name, body].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Video of 25 Hz with default durations of `trex`, audio of 48 kHz.
fn init() -> Vec<u8> {
    let trak = |id: u32, timescale: u32, handler: &[u8; 4]| {
        let tkhd = boxed(b"tkhd", &words(&[0, 0, 0, id, 0, 0]));
        let mdhd = boxed(b"mdhd", &words(&[1 << 24, 0, 0, 0, 0, timescale, 0, 0]));
        let hdlr = boxed(b"hdlr", &[&[0; 8][..], handler, &[0; 13]].concat());
        boxed(b"trak", &[tkhd, boxed(b"mdia", &[mdhd, hdlr].concat())].concat())
    };
    let trex = |id, duration| boxed(b"trex", &words(&[0, id, 1, duration, 0, 0]));
    let mvex = boxed(b"mvex", &[trex(1, 512), trex(2, 0)].concat());
    let moov = [trak(1, 12_800, b"vide"), trak(2, 48_000, b"soun"), trak(3, 1000, b"meta"), mvex].concat();
    [boxed(b"ftyp", b"iso5\0\0\0\0"), boxed(b"moov", &moov)].concat()
}

/// One fragment of a fifth of a second of video and what there is of audio.
fn fragment(number: u32, fifth: u64) -> Vec<u8> {
    let frames = |fifth: u64| (fifth * 9600).div_ceil(1024);
    let audio = frames(fifth) * 1024;
    let count = (frames(fifth + 1) - frames(fifth)) as usize;
    let tfdt0 = boxed(b"tfdt", &words(&[0, (fifth * 2560) as u32]));
    let tfdt1 = boxed(b"tfdt", &[&words(&[1 << 24])[..], &audio.to_be_bytes()].concat());
    let runs =
        [boxed(b"trun", &words(&[0x201, 2, 0, 9, 9])), boxed(b"trun", &words(&[0x205, 3, 0, 0, 9, 9, 9]))].concat();
    let run = boxed(b"trun", &[words(&[0x300, count as u32]), words(&[1024, 5]).repeat(count)].concat());
    let video = boxed(b"traf", &[boxed(b"tfhd", &words(&[0x02_0000, 1])), tfdt0, runs].concat());
    let audio = boxed(b"traf", &[boxed(b"tfhd", &words(&[0x02_000b, 2, 0, 0, 1, 77])), tfdt1, run].concat());
    let moof = boxed(b"moof", &[boxed(b"mfhd", &words(&[0, number])), video, audio].concat());
    [boxed(b"prft", &[0; 20]), moof, boxed(b"mdat", &[1; 45])].concat()
}

fn fmp4(seconds: impl IntoIterator<Item = u64>) -> Vec<Given> {
    let mut number = 0;
    let mut init = Some(init());
    let mut given = Vec::new();
    for n in seconds {
        let mut bytes = boxed(b"styp", b"msdh\0\0\0\0");
        for fifth in n * 5..(n + 1) * 5 {
            number += 1;
            bytes.extend(fragment(number, fifth));
        }
        given.push(Given { init: init.take(), bytes, fresh: false });
    }
    given
}

#[test]
fn what_goes_on_has_no_breaks() {
    for (name, given) in [("ts", ts(0..5)), ("fmp4", fmp4(0..5))] {
        let reports = reports(&given);
        assert_eq!(told(&reports), " |  |  |  | ", "{name}");
        for (n, report) in reports.iter().enumerate() {
            assert!(report.duration.0.abs_diff(1_000_000) < 100_000, "{name}: {report:?}");
            let origin = if name == "ts" { 1_400_000 } else { 0 };
            assert_eq!(report.begins, Some(Micros(origin + n as u64 * 1_000_000)), "{name}");
        }
    }
}

/// Changes a story that went well.
type Change = fn(&mut Vec<Given>);

/// What is told of a stream after each change.
fn check(stories: &[(&str, Change, &str)], stream: impl Fn() -> Vec<Given>) {
    let mut wrong = Vec::new();
    for (name, change, expected) in stories {
        let mut story = stream();
        change(&mut story);
        let found = told(&reports(&story));
        if found != *expected {
            wrong.push(format!("{name}: {found}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn cut(given: &mut Given, from: usize, to: usize) {
    given.bytes.drain(from..to);
}

#[test]
fn stories_of_transport_streams() {
    let stories: &[(&str, Change, &str)] = &[
        ("one is lost", |s| drop(s.remove(2)), " |  | gap:100:1000 gap:101:1024 | "),
        ("one comes twice", |s| s.insert(2, s[1].clone()), " |  | repeat:100:1000 repeat:101:1024 |  |  | "),
        (
            "two are swapped",
            |s| s.swap(2, 3),
            " |  | gap:100:1000 gap:101:1024 | repeat:100:2000 repeat:101:1963 | gap:100:1000 gap:101:939",
        ),
        ("a packet that only continues is lost", |s| cut(&mut s[2], 188 * 2, 188 * 3), " |  | lost:100 |  | "),
        (
            "the last packet is lost",
            |s| {
                let end = s[1].bytes.len();
                cut(&mut s[1], end - 188, end);
            },
            " |  | lost:101 |  | ",
        ),
        ("four frames are lost", |s| cut(&mut s[2], 188 * 10, 188 * 22), " |  | gap:100:160 |  | "),
        (
            "a packet comes twice",
            |s| {
                let again = s[2].bytes[188..376].to_vec();
                s[2].bytes.splice(376..376, again);
            },
            " |  |  |  | ",
        ),
        (
            "a packet comes three times",
            |s| {
                let again = s[2].bytes[188..376].repeat(2);
                s[2].bytes.splice(376..376, again);
            },
            " |  | lost:100 |  | ",
        ),
        (
            "a null packet",
            |s| {
                let null = [&[0x47, 0x1f, 0xff, 0x15][..], &[0; 184]].concat();
                s[2].bytes.splice(376..376, null);
            },
            " |  |  |  | ",
        ),
        (
            "an announced jump of the counter",
            |s| {
                let announced = [&[0x47, 0x01, 0x00, 0x20, 183, 0x80][..], &[0xff; 182]].concat();
                s[2].bytes.splice(376..564, announced);
            },
            " |  |  |  | ",
        ),
        (
            "cut off",
            |s| {
                let end = s[2].bytes.len();
                cut(&mut s[2], end - 1000, end);
            },
            " |  | CutOff | gap:101:256 | ",
        ),
        ("nothing", |s| s[2].bytes.clear(), " |  | CutOff | gap:100:1000 gap:101:1024 | "),
        (
            "a page of HTML",
            |s| s[2].bytes = b"<html>Not here</html>".repeat(30),
            " |  | Unknown | gap:100:1000 gap:101:1024 | ",
        ),
        ("garbage inside", |s| s[2].bytes[188 * 2..188 * 2 + 300].fill(3), " |  | NoSync lost:100 |  | "),
        ("garbage before", |s| drop(s[2].bytes.splice(0..0, [9; 77])), " |  | NoSync |  | "),
        ("only tables", |s| s[2].bytes.truncate(188), " |  | NoMedia | gap:100:1000 gap:101:1024 | "),
        ("another kind", |s| s[2] = fmp4([2]).remove(0), " |  | OtherKind | OtherKind gap:100:1000 gap:101:1024 | "),
        (
            "another kind, announced",
            |s| {
                s[2] = fmp4([2]).remove(0);
                s[2].fresh = true;
                s[3].fresh = true;
            },
            " |  |  |  | ",
        ),
        (
            "a jump that is announced",
            |s| {
                s.remove(2);
                s[2].fresh = true;
            },
            " |  |  | ",
        ),
    ];
    check(stories, || ts(0..5));
}

#[test]
fn muxers_of_transport_streams() {
    let second = |muxer: &mut TsMuxer, n| Given { bytes: muxer.second(n), ..Given::default() };
    let mut wraps = TsMuxer { origin: (1 << 33) - 225_000, ..TsMuxer::new() };
    let story: Vec<_> = (0..5).map(|n| second(&mut wraps, n)).collect();
    assert_eq!(told(&reports(&story)), " |  |  |  | ", "timestamps wrap around");
    let lost = [&story[..2], &story[3..]].concat();
    assert_eq!(told(&reports(&lost)), " |  | gap:100:1000 gap:101:1024 | ", "lost where timestamps wrap around");

    let story: Vec<_> = (0..5).map(|n| second(&mut TsMuxer::new(), n)).collect();
    assert_eq!(told(&reports(&story)), " |  |  |  | ", "counters begin anew");

    let mut other = TsMuxer { aac: false, ..TsMuxer::new() };
    let mut story: Vec<_> = (0..5).map(|n| second(&mut other, n)).collect();
    assert_eq!(told(&reports(&story)), " |  |  |  | ", "audio that is not read");
    story.remove(2);
    assert_eq!(told(&reports(&story)), " |  | gap:100:1000 gap:101:1024 | ", "a gap of audio that is not read");
}

#[test]
fn stories_of_fragmented_mp4() {
    let one = fragment(1, 0).len();
    assert!(one > 100);
    let stories: &[(&str, Change, &str)] = &[
        ("one is lost", |s| drop(s.remove(2)), " |  | gap:1:1000 gap:2:1003 | "),
        ("one comes twice", |s| s.insert(2, s[1].clone()), " |  | repeat:1:1000 repeat:2:1003 |  |  | "),
        (
            "two are swapped",
            |s| s.swap(2, 3),
            " |  | gap:1:1000 gap:2:1003 | repeat:1:2000 repeat:2:2006 | gap:1:1000 gap:2:1003",
        ),
        (
            "a fragment is lost",
            |s| s[2].bytes = [fragment(11, 10), fragment(12, 11), fragment(14, 13), fragment(15, 14)].concat(),
            " |  | gap:1:200 gap:2:192 |  | ",
        ),
        (
            "numbers jump",
            |s| {
                s[2].bytes =
                    [fragment(11, 10), fragment(12, 11), fragment(14, 12), fragment(15, 13), fragment(16, 14)].concat()
            },
            " |  | lost:1 |  | ",
        ),
        (
            "one number for all",
            |s| s[2].bytes = (10..15).flat_map(|fifth| fragment(3, fifth)).collect(),
            " |  |  |  | ",
        ),
        (
            "media cut off",
            |s| {
                let end = s[2].bytes.len();
                s[2].bytes.truncate(end - 10);
            },
            " |  | CutOff |  | ",
        ),
        (
            "before the media",
            |s| {
                let end = s[2].bytes.len();
                s[2].bytes.truncate(end - 53);
            },
            " |  | CutOff |  | ",
        ),
        (
            "cut off in a moof",
            |s| {
                let end = s[2].bytes.len();
                s[2].bytes.truncate(end - 100);
            },
            " |  | CutOff | gap:1:200 gap:2:193 | ",
        ),
        ("nothing", |s| s[2].bytes.clear(), " |  | CutOff | gap:1:1000 gap:2:1003 | "),
        ("no fragment", |s| s[2].bytes.truncate(16), " |  | NoMedia | gap:1:1000 gap:2:1003 | "),
        ("another kind", |s| s[2] = ts([2]).remove(0), " |  | OtherKind | OtherKind gap:1:1000 gap:2:1003 | "),
        ("garbage", |s| s[2].bytes.fill(0xee), " |  | Unknown | gap:1:1000 gap:2:1003 | "),
        (
            "a jump that is announced",
            |s| {
                s.remove(2);
                s[2].fresh = true;
            },
            " |  |  | ",
        ),
        (
            "the same init again",
            |s| {
                s.remove(2);
                s[2].init = Some(init());
            },
            " |  | gap:1:1000 gap:2:1003 | ",
        ),
        (
            "no init",
            |s| s[0].init = None,
            "NoInit NoMedia | NoInit NoMedia | NoInit NoMedia | NoInit NoMedia | NoInit NoMedia",
        ),
        (
            "an init cut off",
            |s| s[0].init.as_mut().unwrap().truncate(200),
            "CutOff NoInit NoMedia | NoInit NoMedia | NoInit NoMedia | NoInit NoMedia | NoInit NoMedia",
        ),
        (
            "init in the segment",
            |s| {
                s[0].bytes = [init(), s[0].bytes.clone()].concat();
                s[0].init = None;
            },
            " |  |  |  | ",
        ),
        (
            "a last box to the end",
            |s| {
                let at = s[2].bytes.len() - 53;
                s[2].bytes[at..at + 4].fill(0);
            },
            " |  |  |  | ",
        ),
    ];
    check(stories, || fmp4(0..5));
}

#[test]
fn other_kinds_are_told_once() {
    for bytes in
        [&b"WEBVTT\n\n00:01.000 --> 00:02.000\nWords"[..], b"ID3\x04\0\0\0\0\0\x3fPRIV", &[0xff, 0xf1, 0x4c, 0x80]]
    {
        let story = vec![Given { bytes: bytes.repeat(40), ..Given::default() }; 3];
        assert_eq!(told(&reports(&story)), "Unknown |  | ");
    }
}

#[test]
fn a_report_is_bounded() {
    let mut muxer = TsMuxer::new();
    let bytes = (0..200).flat_map(|n| muxer.pes(VIDEO, 0xe0, n * 3600 + n % 2 * 900_000, &[0; 9])).collect();
    assert_eq!(reports(&[Given { bytes, ..Given::default() }])[0].breaks.len(), MAX_BREAKS);
}

fn mutated() -> impl Strategy<Value = Vec<Given>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..20);
    (any::<bool>(), edits, any::<bool>(), 0usize..3).prop_map(|(transport, edits, in_init, which)| {
        let mut story = if transport { ts(0..3) } else { fmp4(0..3) };
        let in_init = in_init && story[which].init.is_some();
        let given = &mut story[which];
        let bytes = if in_init { given.init.as_mut().unwrap() } else { &mut given.bytes };
        for (at, byte, what) in edits {
            let at = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match what {
                _ if bytes.is_empty() => {}
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, byte),
                _ => bytes[at..].iter_mut().take(8).for_each(|slot| *slot = 0xff),
            }
        }
        story
    })
}

fn noise(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

proptest! {
    #[test]
    fn noise_is_survived(
        noise in prop::collection::vec((prop::option::of(noise(300)), noise(900), any::<bool>()), 0..4),
        what in 0u8..3,
    ) {
        let mut continuity = Continuity::new();
        for (init, mut bytes, fresh) in noise {
            match what {
                0 => bytes.iter_mut().step_by(188).for_each(|byte| *byte = 0x47),
                1 => drop(bytes.splice(0..0, *b"\0\0\0\0moof\0\0\0\x10mfhd\0\0\0\0\0\0\0\x01")),
                _ => {}
            }
            prop_assert!(continuity.segment(init.as_deref(), &bytes, fresh).breaks.len() <= MAX_BREAKS);
        }
    }

    #[test]
    fn mutated_segments_are_survived(story in mutated()) {
        prop_assert!(reports(&story).iter().all(|report| report.breaks.len() <= MAX_BREAKS));
    }
}

/// What ffmpeg makes of 8 s in segments of 2 s; `None` where it cannot be had.
fn ffmpeg(dir: &Path, source: &str, output: &str) -> Option<Vec<Given>> {
    let run = |arguments: &str| Command::new("ffmpeg").args(arguments.split_whitespace()).current_dir(dir).output();
    let encoders = run("-v error -encoders").ok()?.stdout;
    if !String::from_utf8_lossy(&encoders).contains("libx264") {
        return None;
    }
    let made = run(&format!(
        "-v error -y {source} -t 8 -c:v libx264 -preset ultrafast -bf 2 -pix_fmt yuv420p -b:a 64k \
         -f hls -hls_time 2 -hls_list_size 0 {output} list.m3u8"
    ))
    .ok()?;
    assert!(made.status.success(), "{output}: {}", String::from_utf8_lossy(&made.stderr));
    let read = |name: &str| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::open(dir.join(name)).unwrap(), &mut bytes).unwrap();
        bytes
    };
    let list = String::from_utf8(read("list.m3u8")).unwrap();
    let mut init = list.contains("EXT-X-MAP").then(|| read("init.mp4"));
    let names = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    Some(names.map(|name| Given { init: init.take(), bytes: read(name), fresh: false }).collect())
}

#[test]
fn media_by_ffmpeg() {
    let pal = "-f lavfi -i testsrc=size=320x180:rate=25 -f lavfi -i sine=frequency=440:sample_rate=48000 -g 50";
    let ntsc =
        "-f lavfi -i testsrc=size=320x180:rate=30000/1001 -f lavfi -i sine=frequency=440:sample_rate=44100 -g 60";
    let fmp4 = "-hls_segment_type fmp4 -c:a aac";
    let chunks = "-hls_segment_type fmp4 -c:a aac -hls_segment_options frag_duration=500000:movflags=+frag_keyframe";
    let split = format!("{fmp4} -hls_time 1 -hls_flags split_by_time");
    let sparse = |output: &str| format!("{output} -vf select=not(eq(mod(n\\,7)\\,3)) -vsync vfr");
    let (sparse_ts, sparse_fmp4) = (sparse("-c:a aac"), sparse(fmp4));
    // (name, source, output, tracks, how exactly audio is told, ms)
    let cases = [
        ("ts", pal, "-c:a aac", 2, 50),
        ("ts of 29.97 Hz", ntsc, "-c:a aac", 2, 50),
        ("ts with one AAC frame a PES packet", pal, "-c:a aac -hls_segment_options pes_payload_size=0", 2, 50),
        ("ts with MP2", ntsc, "-c:a mp2", 2, 400),
        ("ts with AC-3", pal, "-c:a ac3", 2, 400),
        ("ts with frames left out", pal, &sparse_ts, 2, 100),
        ("ts of audio", ntsc, "-vn -c:a aac", 1, 50),
        ("fmp4", pal, fmp4, 2, 50),
        ("fmp4 of 29.97 Hz", ntsc, fmp4, 2, 50),
        ("fmp4 in chunks", pal, chunks, 2, 50),
        ("fmp4 split by time", pal, &split, 2, 50),
        ("fmp4 with frames left out", pal, &sparse_fmp4, 2, 50),
    ];
    for (name, source, output, tracks, exact_ms) in cases {
        let dir = tempfile::tempdir().unwrap();
        let Some(story) = ffmpeg(dir.path(), source, output) else {
            eprintln!("skipped: no ffmpeg with libx264");
            return;
        };
        let whole = reports(&story);
        eprintln!(
            "{name}: {:?}",
            whole.iter().map(|r| (r.duration.0, r.begins.unwrap_or_default().0)).collect::<Vec<_>>()
        );
        assert!(story.len() >= 4, "{name}");
        let fragments = story[1].bytes.windows(4).filter(|name| name == b"moof").count();
        assert!(fragments > 1 || output != chunks, "{name}: {fragments} fragments");
        assert!(whole.iter().all(|report| report.breaks.is_empty()), "{name}: {}", told(&whole));
        for n in 1..story.len() - 1 {
            let expected = whole[n + 1].begins.unwrap().0 - whole[n].begins.unwrap().0;
            let near = |found: Micros| found.0.abs_diff(expected) <= exact_ms * 1000;
            let without = reports(&[&story[..n], &story[n + 1..]].concat());
            for (at, report) in without.iter().enumerate() {
                let gaps = report.breaks.iter().filter(|b| matches!(b, Break::Gap { missing, .. } if near(*missing)));
                let count = if at == n { tracks } else { 0 };
                assert_eq!(
                    (gaps.count(), report.breaks.len()),
                    (count, count),
                    "{name} without {n}: {}",
                    told(&without)
                );
            }
            let twice = reports(&[&story[..=n], &story[n..]].concat());
            for (at, report) in twice.iter().enumerate() {
                let repeats = report.breaks.iter().filter(|b| matches!(b, Break::Repeat { again, .. } if near(*again)));
                let count = if at == n + 1 { tracks } else { 0 };
                assert_eq!(
                    (repeats.count(), report.breaks.len()),
                    (count, count),
                    "{name} twice {n}: {}",
                    told(&twice)
                );
            }
        }
    }
}
