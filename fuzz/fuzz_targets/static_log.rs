//! Static logs: read or refused, and verifying what is read does no harm.
#![no_main]

use headwater_wire::StaticLog;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    if let Ok(log) = StaticLog::decode(file) {
        let _ = log.verify(&log.log.name, None);
        assert_eq!(StaticLog::decode(&log.encode()).as_ref(), Ok(&log));
    }
});
