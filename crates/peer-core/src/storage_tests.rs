use super::*;
use proptest::prelude::*;

/// Contents a, b, … from words: size in MB, `pinned` or `used` where it is, copies elsewhere as `3x`, hours unused as `5h`.
fn story(words: &str) -> Vec<Kept> {
    let lines = words.split(';').map(str::trim).filter(|line| !line.is_empty());
    let kept = lines.zip(b'a'..).map(|(line, name)| {
        let mut kept = Kept {
            content: ContentId([name; 32]),
            bytes: 0,
            pinned: false,
            in_use: false,
            others: 0,
            unused: Micros(0),
        };
        for word in line.split(' ') {
            match word {
                "pinned" => kept.pinned = true,
                "used" => kept.in_use = true,
                _ => {
                    let number: u64 = word[..word.len() - 1].parse().unwrap();
                    match &word[word.len() - 1..] {
                        "M" => kept.bytes = number * 1_000_000,
                        "x" => kept.others = number as u32,
                        _ => kept.unused = Micros::from_secs(number * 3600),
                    }
                }
            }
        }
        kept
    });
    kept.collect()
}

/// Whether with so many MB allowed and needed those go, in this order, and so many MB are still too much.
fn check(words: &str, quota_mb: u64, needed_mb: u64, expected: &str, short_mb: u64) {
    let evicted = evict(&story(words), quota_mb * 1_000_000, needed_mb * 1_000_000);
    let names: String = evicted.contents.iter().map(|c| char::from(c.0[0])).collect();
    assert_eq!((names.as_str(), evicted.short_bytes), (expected, short_mb * 1_000_000), "{words}");
}

#[test]
fn what_is_worth_least_goes() {
    check("10M 1h; 10M 9h", 20, 0, "", 0);
    check("10M 1h; 10M 9h", 20, 1, "b", 0);
    check("10M 1h; 10M 9h", 20, 15, "ba", 0);
    // Copies elsewhere weigh as much as hours.
    check("10M 1h 9x; 10M 6h; 10M 2h 1x", 20, 0, "a", 0);
    check("10M 1h 1x; 10M 6h; 10M 4h", 20, 0, "b", 0);
    check("10M 9x; 10M; 10M 99x", 20, 0, "c", 0);
    // The user's own stay, and what is being used.
    check("10M 99h pinned; 10M 1h; 10M 50h used", 20, 0, "b", 0);
    check("10M 99h pinned; 10M 1h; 10M 50h used", 20, 5, "b", 5);
    check("10M pinned; 10M pinned", 15, 0, "", 5);
    // Larger than everything.
    check("10M 1h", 20, 30, "a", 10);
    check("", 20, 30, "", 10);
    check("", 0, 0, "", 0);
    // Equals go in the order of their names.
    check("10M 2h; 10M 2h; 10M 2h", 10, 0, "ab", 0);
    // What takes no room is not in the way.
    check("0M 9h; 10M 1h", 5, 0, "b", 0);
}

fn any_kept() -> impl Strategy<Value = Vec<Kept>> {
    let one = (0..50u64, any::<bool>(), any::<bool>(), 0..5u32, 0..100u64);
    prop::collection::vec(one, 0..30).prop_map(|all| {
        let kept = all.into_iter().zip(0u8..).map(|((bytes, pinned, in_use, others, unused), name)| Kept {
            content: ContentId([name; 32]),
            bytes,
            pinned,
            in_use,
            others,
            unused: Micros(unused),
        });
        kept.collect()
    })
}

proptest! {
    #[test]
    fn the_quota_is_kept_and_nothing_goes_in_vain(kept in any_kept(), quota in 0..600u64, needed in 0..200u64) {
        let evicted = evict(&kept, quota, needed);
        let gone = |k: &Kept| evicted.contents.contains(&k.content);
        let (out, rest): (Vec<&Kept>, Vec<&Kept>) = kept.iter().partition(|k| gone(k));
        prop_assert_eq!(out.len(), evicted.contents.len());
        prop_assert!(out.iter().all(|k| !k.pinned && !k.in_use));
        let left: u64 = needed + rest.iter().map(|k| k.bytes).sum::<u64>();
        prop_assert_eq!(left.saturating_sub(quota), evicted.short_bytes);
        if evicted.short_bytes > 0 {
            prop_assert!(rest.iter().all(|k| k.pinned || k.in_use || k.bytes == 0));
        }
        // Who stays is worth no less than who goes.
        for stays in rest.iter().filter(|k| !k.pinned && !k.in_use && k.bytes > 0) {
            prop_assert!(out.iter().all(|k| worthlessness(k) >= worthlessness(stays)));
        }
        // Without the last of them it would not fit.
        if let Some(last) = evicted.contents.last() {
            let last = kept.iter().find(|k| k.content == *last).unwrap();
            prop_assert!(left + last.bytes > quota);
        }
    }
}
