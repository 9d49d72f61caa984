//! Finding pieces in whatever bytes by whatever sums: it ends, stays within them, and hashes no more than it earns.
#![no_main]

use headwater_model::log::Object;
use headwater_model::{Bits, Layout, Sum};
use headwater_peer_core::Finder;

libfuzzer_sys::fuzz_target!(|input: (Vec<u64>, u8, u16, Vec<u8>)| {
    let (sums, repeat, tail, old) = input;
    let size_bytes = sums.len().saturating_sub(1) as u64 * 4096 + u64::from(tail % 4096);
    let object = Object { path: "p".into(), media_type: String::new(), size_bytes };
    let Ok(layout) = Layout::new(4096, &[object]) else { return };
    let old = old.repeat(1 + usize::from(repeat));
    let sums = sums.into_iter().take(layout.pieces() as usize).map(Sum).collect();
    let mut finder = Finder::new(layout.clone(), &[], sums, &Bits::new(layout.pieces()));
    let (mut at, mut vain_bytes) = (0, 0);
    while at < old.len() {
        let end = (at + 10_000).min(old.len());
        let done = finder.search(&old[at..end], end == old.len(), &mut |piece, data: &[u8]| {
            assert_eq!(data.len() as u32, layout.piece_len(piece));
            vain_bytes += data.len();
            Ok::<_, ()>(false)
        });
        let done = done.unwrap_or(0);
        assert!(done > 0 && done <= end - at);
        at += done;
    }
    assert!(vain_bytes <= 2 * old.len() + 64 * 4096);
});
