//! The file of consents: read or refused, and what is read as a site is written as one.
#![no_main]
use headwater_peer::consents::{Consents, Site};
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Consents::decode(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(site) = text.parse::<Site>()
    {
        assert_eq!(Site::of_origin(site.as_str()), Some(site));
    }
});
