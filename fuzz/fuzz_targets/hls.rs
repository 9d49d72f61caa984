//! Playlists and media of somebody's packager: read or refused, and checked without harm.
#![no_main]

use headwater_hls::media::Continuity;
use headwater_hls::playlist::parse;

libfuzzer_sys::fuzz_target!(|input: (String, Vec<u8>, Vec<u8>, bool)| {
    let (text, init, media, fresh) = input;
    let _ = parse(&text);
    let _ = parse(&format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{text}"));
    let mut continuity = Continuity::new();
    continuity.segment(Some(&init), &media, false);
    continuity.segment(None, &media, fresh);
});
