//! Names of contents: `hw://CONTROL/NAME#key=FP&log=URL&cc=FP`.

use crate::id::{ContentId, Hash, NodeId};
use std::fmt;
use std::str::FromStr;

/// Port of a control center where a name gives none.
pub const DEFAULT_CONTROL_PORT: u16 = 7400;

/// A parsed name. Trust starts here: it pins the publisher's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// Control center, `host:port`.
    pub control: String,
    /// Name of the content.
    pub name: String,
    /// Fingerprint of the publisher's key.
    pub key: Hash,
    /// URL of the static log, for clients that reach no control center.
    pub log: Option<String>,
    /// Node id of the control center, where it has no public certificate.
    pub control_id: Option<NodeId>,
}

/// Why a text is not a name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{problem} in {text:?}; a name looks like hw://control.example:7400/NAME#key=FINGERPRINT (the line that `headwater publish` printed)"
)]
pub struct NotAName {
    /// What was read.
    pub text: String,
    /// What is wrong.
    pub problem: &'static str,
}

impl Name {
    /// The content that is meant.
    pub fn content(&self) -> ContentId {
        ContentId::of(&self.key, &self.name)
    }
}

impl FromStr for Name {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<Self, NotAName> {
        let no = |problem| NotAName { text: text.chars().take(200).collect(), problem };
        if text.len() > 8192 {
            return Err(no("more than 8,192 bytes"));
        }
        let rest = text.strip_prefix("hw://").ok_or(no("no hw:// at the start"))?;
        let (place, fragment) = rest.split_once('#').ok_or(no("no #key="))?;
        let (control, name) = place.split_once('/').ok_or(no("no name after the control center"))?;
        if control.is_empty() || control.contains(char::is_whitespace) {
            return Err(no("no control center"));
        }
        let name = unescape(name).filter(|n| !n.is_empty()).ok_or(no("no name, or a broken % escape"))?;
        let (mut key, mut log, mut control_id) = (None, None, None);
        for part in fragment.split('&') {
            match part.split_once('=') {
                Some(("key", v)) => key = Some(v.parse().map_err(|_| no("key= is not 64 hexadecimal digits"))?),
                Some(("log", v)) => log = Some(unescape(v).ok_or(no("a broken % escape"))?),
                Some(("cc", v)) => control_id = Some(v.parse().map_err(|_| no("cc= is not 64 hexadecimal digits"))?),
                // Later versions may add hints; a client that does not know one does not need it.
                _ => {}
            }
        }
        let has_port = control.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
        let control = if has_port { control.into() } else { format!("{control}:{DEFAULT_CONTROL_PORT}") };
        Ok(Name { control, name, key: key.ok_or(no("no key="))?, log, control_id })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hw://{}/{}#key={}", self.control, escape(&self.name), self.key)?;
        if let Some(log) = &self.log {
            write!(f, "&log={}", escape(log))?;
        }
        if let Some(id) = &self.control_id {
            write!(f, "&cc={id}")?;
        }
        Ok(())
    }
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => out.push(b as char),
            _ => out.push_str(&format!("%{b:02X}")),
        }
        out
    })
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let digit = |b: Option<u8>| (b? as char).to_digit(16);
            out.push((digit(bytes.next())? * 16 + digit(bytes.next())?) as u8);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_round_trip() {
        let fp = "ab".repeat(32);
        let n: Name =
            format!("hw://cc.example/films/a%20b#key={fp}&x=1&log=https://o/f.hwlog%3Fa%26b&cc={fp}").parse().unwrap();
        assert_eq!((n.control.as_str(), n.name.as_str()), ("cc.example:7400", "films/a b"));
        assert_eq!(n.log.as_deref(), Some("https://o/f.hwlog?a&b"));
        assert_eq!(n.to_string().parse(), Ok(n));
        let v6: Name = format!("hw://[::1]:9/x#key={fp}").parse().unwrap();
        assert_eq!(v6.control, "[::1]:9");
    }

    #[test]
    fn bad_names_say_what_is_wrong() {
        let fp = "ab".repeat(32);
        for (text, says) in [
            ("http://x/y", "no hw://"),
            ("hw://x/y", "no #key="),
            ("hw://x/y#key=12", "64 hexadecimal"),
            (&format!("hw:///y#key={fp}"), "no control center"),
            (&format!("hw://x/#key={fp}"), "no name"),
            (&format!("hw://x/%zz#key={fp}"), "no name"),
            (&"h".repeat(9000), "8,192"),
        ] {
            let said = text.parse::<Name>().unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            if let Ok(n) = text.parse::<Name>() { prop_assert_eq!(n.to_string().parse::<Name>(), Ok(n)); }
        }
        #[test]
        fn any_name_round_trips(name in ".{1,40}") {
            let n = Name { control: "h:1".into(), name, key: Hash::default(), log: None, control_id: None };
            prop_assert_eq!(n.to_string().parse::<Name>(), Ok(n));
        }
    }
}
