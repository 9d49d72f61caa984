//! The publisher of a live demo, as its own lines tell.

use std::time::Instant;

use serde::Deserialize;

/// What `headwater publish --live --json` prints, a line each.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Told {
    Started {
        hw: String,
    },
    Active {
        active: bool,
    },
    Segment {
        bytes: u64,
        uploaded_bytes: u64,
    },
    Trouble {
        what: String,
    },
    /// Lines that the demo has no use for.
    #[serde(other)]
    Other,
}

/// A segment that went out.
#[derive(Debug)]
struct Published {
    at: Instant,
    bytes: u64,
    /// What the publisher had sent to viewers by then.
    sent_bytes: u64,
}

/// The publisher.
#[derive(Debug, Default)]
pub struct Publisher {
    /// The channel's name, once it told.
    pub hw: String,
    /// Whether viewers hear it.
    pub active: bool,
    segments: Vec<Published>,
}

impl Publisher {
    /// Takes a line that it printed at `at`; what people should know of it.
    ///
    /// # Errors
    /// What is wrong with the line, in words.
    pub fn hear(&mut self, line: &str, at: Instant) -> Result<Option<String>, String> {
        let told: Told = serde_json::from_str(line).map_err(|error| format!("unexpected output {line:?}: {error}"))?;
        match told {
            Told::Started { hw } => self.hw = hw,
            Told::Active { active } => self.active = active,
            Told::Segment { bytes, uploaded_bytes } => {
                self.segments.push(Published { at, bytes, sent_bytes: uploaded_bytes });
            }
            Told::Trouble { what } => return Ok(Some(what)),
            Told::Other => {}
        }
        Ok(None)
    }

    /// Bytes of the channel that went out after `from`, and bytes that the publisher sent to viewers for that.
    pub fn since(&self, from: Instant) -> (u64, u64) {
        let (before, after): (Vec<&Published>, Vec<&Published>) = self.segments.iter().partition(|one| one.at <= from);
        let sent = |of: &[&Published]| of.last().map_or(0, |one| one.sent_bytes);
        (after.iter().map(|one| one.bytes).sum(), sent(&after).saturating_sub(sent(&before)))
    }

    /// How many segments went out after `from`.
    pub fn segments_since(&self, from: Instant) -> u64 {
        self.segments.iter().filter(|one| one.at > from).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_went_out_is_counted_from_any_moment() {
        let begun = Instant::now();
        let at = |s: u64| begun + Duration::from_secs(s);
        let mut publisher = Publisher::default();
        publisher.hear(r#"{"event":"started","hw":"hw://x","node":"ab","substreams":8}"#, begun).unwrap();
        publisher.hear(r#"{"event":"active","active":true}"#, begun).unwrap();
        for (s, sent) in [(1, 0), (2, 0), (3, 30), (4, 60)] {
            let line = format!(r#"{{"event":"segment","sequence":{s},"bytes":20,"uploaded_bytes":{sent}}}"#);
            assert_eq!(publisher.hear(&line, at(s)), Ok(None));
        }
        assert!(publisher.active && publisher.hw == "hw://x");
        for (from, expected, segments) in [(0, (80, 60), 4), (2, (40, 60), 2), (3, (20, 30), 1), (4, (0, 0), 0)] {
            assert_eq!((publisher.since(at(from)), publisher.segments_since(at(from))), (expected, segments), "{from}");
        }
        let trouble = publisher.hear(r#"{"event":"trouble","what":"it goes on"}"#, begun);
        assert_eq!(trouble, Ok(Some("it goes on".into())));
        assert!(publisher.hear("thread main panicked", begun).is_err());
    }
}
