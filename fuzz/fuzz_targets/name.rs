//! Names: read or refused, and what is read prints as a name that is the same.
#![no_main]

use headwater_model::Name;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<Name>() {
        // Printing escapes, so that a name near the limit of its length may print as one past it.
        let printed = name.to_string();
        if printed.len() <= 8192 {
            assert_eq!(printed.parse().as_ref(), Ok(&name));
        }
    }
});
