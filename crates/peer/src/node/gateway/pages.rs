//! The gateway's own pages: nothing in them runs, nothing frames them, and all that others named is escaped.

use crate::consents::{Consents, Site};
use headwater_model::{Hash, Name};
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

/// Characters of a name that are shown: more would push the buttons off the screen.
const MAX_SHOWN: usize = 120;

const STYLE: &str = "\
:root { color-scheme: light dark; --line: #8884; --quiet: color-mix(in srgb, CanvasText 62%, Canvas) }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; padding: 6vh 1rem; background: color-mix(in srgb, CanvasText 5%, Canvas) }
main { max-width: 40rem; margin: 0 auto; padding: 2rem; background: Canvas; border: 1px solid var(--line); border-radius: 12px }
h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 1.25rem }
dl { margin: 0 0 1.25rem; border: 1px solid var(--line); border-radius: 8px }
dl div { display: grid; grid-template-columns: 6.5rem 1fr; gap: .75rem; padding: .6rem .9rem }
dl div + div { border-top: 1px solid var(--line) }
dt, small, .quiet { color: var(--quiet) }
dd { margin: 0; overflow-wrap: anywhere }
.site { font-weight: 650; font-size: 1.1rem }
code { font: .875em/1.6 ui-monospace, monospace }
ul { padding-left: 1.2rem } li { margin: .25rem 0 }
form { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.5rem 0 0 }
td form { margin: 0; justify-content: flex-end }
button { font: inherit; padding: .55rem 1rem; border: 1px solid #8888; border-radius: 8px; background: Canvas; color: CanvasText; cursor: pointer; white-space: nowrap }
button:hover { background: color-mix(in srgb, CanvasText 8%, Canvas) }
form.ask button { animation: settle 1s step-end }
@keyframes settle { from { pointer-events: none; opacity: .45 } to { pointer-events: auto; opacity: 1 } }
table { width: 100%; border-collapse: collapse } td, th { text-align: left; padding: .5rem .4rem; border-top: 1px solid var(--line); overflow-wrap: anywhere }
.note { border-left: 3px solid #c80; padding-left: .75rem }
footer { max-width: 40rem; margin: 1rem auto 0; font-size: .875rem; color: var(--quiet) }";

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title} – Headwater</title><style>{STYLE}</style><main><h1>{title}</h1>{body}</main>\
         <footer>This page is shown by the Headwater peer on this machine.</footer>\n"
    )
}

/// What the user is asked, and the token that an answer comes with.
pub(super) struct Question<'a> {
    pub(super) site: &'a Site,
    pub(super) name: &'a Name,
    pub(super) token: &'a str,
    /// Why it is asked again.
    pub(super) note: Option<&'a str>,
}

impl Question<'_> {
    /// Where an answer is sent.
    fn answer(&self, choice: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("choice", choice);
        query.append_pair("token", self.token);
        query.append_pair("site", self.site.as_str());
        query.append_pair("content", &self.name.to_string());
        escaped(&format!("/consent?{}", query.finish()))
    }

    fn facts(&self) -> String {
        format!(
            "<dl><div><dt>Site<dd class=site>{}</div><div><dt>Content<dd>{}</div>\
             <div><dt>Publisher<dd>key <code>{}</code></div></dl>",
            escaped(self.site.as_str()),
            escaped(&shown(&self.name.name)),
            fingerprint(&self.name.key),
        )
    }

    pub(super) fn ask(&self) -> String {
        let note = self.note.map(|n| format!("<p class=note>{}", escaped(n))).unwrap_or_default();
        let (no, once, always) = (self.answer("no"), self.answer("once"), self.answer("always"));
        page(
            "May this site use your Headwater peer?",
            &format!(
                "{note}{}<p>If you allow it:<ul>\
                 <li>Your peer fetches this content if it is not here yet, and sends it to others as all that it fetches.\
                 <li>Pages of this site read it from this machine. They see nothing else of it.\
                 <li>What this site was allowed you can take back at any time.</ul>\
                 <form class=ask method=post action=\"{no}\"><button formaction=\"{once}\">Allow once</button>\
                 <button formaction=\"{always}\">Always for this site</button><button>No</button></form>\
                 <p><small>Once: this content, for twelve hours at most. Always: whatever this publisher publishes and this \
                 site asks for.</small>",
                self.facts()
            ),
        )
    }

    pub(super) fn allowed(&self) -> String {
        page(
            "Allowed",
            &format!(
                "{}<p>You can close this page: the site goes on by itself.\
                 <form method=post action=\"{}\"><button>Take it back</button></form>",
                self.facts(),
                self.answer("revoke"),
            ),
        )
    }
}

/// The user said no, or took it back.
pub(super) fn not_allowed(site: &Site) -> String {
    page(
        "Not allowed",
        &format!(
            "<p>Pages of <b>{}</b> read nothing from this machine. You can close this page.",
            escaped(site.as_str())
        ),
    )
}

/// What was asked cannot be.
pub(super) fn refused(why: &str) -> String {
    let mut letters = why.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let why = escaped(&format!("{first}{}", letters.as_str()));
    page("This cannot be allowed", &format!("<p>{why}.<p>You can close this page."))
}

/// All consents, each with a button to take it back.
pub(super) fn consents<'a>(
    remembered: &Consents,
    once: impl Iterator<Item = (&'a Site, String, u64)>,
    trouble: Option<&str>,
) -> String {
    let mut rows = String::new();
    let mut row = |site: &Site, what: &str, when: String| {
        let query: String = url::form_urlencoded::byte_serialize(site.as_str().as_bytes()).collect();
        let _ = write!(
            rows,
            "<tr><td><b>{}</b><br><span class=quiet>{what}</span><td class=quiet>{when}<td>\
             <form method=post action=\"?revoke={query}\"><button>Revoke</button></form>",
            escaped(site.as_str()),
        );
    };
    for c in remembered.iter() {
        let what = format!(
            "all of the publisher with key <code>{}</code>, first {}",
            fingerprint(&c.publisher),
            escaped(&shown(&c.content))
        );
        row(&c.site, &what, format!("since {}", date(c.since_unix_ms)));
    }
    for (site, name, until) in once {
        row(site, &escaped(&shown(&name)), format!("until {}", date(until)));
    }
    let trouble = trouble.map(|t| format!("<p class=note>{}", escaped(t))).unwrap_or_default();
    let body = if rows.is_empty() {
        "<p>No site was allowed to read anything.".into()
    } else {
        format!("<p>These may read through this peer. What is revoked ends at once.<table>{rows}</table>")
    };
    page("Sites that you allowed", &format!("{trouble}{body}"))
}

pub(super) fn home() -> String {
    page(
        "The gateway of a Headwater peer",
        "<p>Programs on this machine read contents here, under the paths that <code>headwater peer</code> prints. It also \
         prints where the sites are listed that you allowed to read some. \
         <code>headwater consent list</code> lists them too.",
    )
}

fn date(unix_ms: u64) -> String {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(unix_ms.min(4_102_444_800_000)));
    // Without the day of the week and the seconds.
    format!("{} UTC", date.get(5..22).unwrap_or_default())
}

/// The beginning of a key's fingerprint, in groups that can be compared by eye.
fn fingerprint(key: &Hash) -> String {
    let hex = key.to_string();
    let groups: Vec<&str> = (0..4).filter_map(|i| hex.get(i * 4..i * 4 + 4)).collect();
    format!("{} …", groups.join(" "))
}

/// A name on one line that cannot pretend to be something else: without control characters, also those that turn the
/// direction of what follows.
fn shown(name: &str) -> String {
    let turns = |c: &char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let mut shown: String = name.chars().filter(|c| !c.is_control() && !turns(c)).take(MAX_SHOWN).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    shown
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_name_stays_text() {
        let name = "<img src=x onerror=alert(1)>\u{202e}\"'&\n";
        let name = Name { control: "c:1".into(), name: name.into(), key: Hash([7; 32]), log: None, control_id: None };
        let site: Site = "https://films.example".parse().unwrap();
        let question = Question { site: &site, name: &name, token: "t\">", note: Some("<b>") };
        for page in [question.ask(), question.allowed()] {
            assert!(!page.contains("<img") && !page.contains("<b>") && !page.contains('\u{202e}'), "{page}");
            assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;…"), "{page}");
        }
        assert!(question.ask().contains("choice=always&amp;token=t%22%3E&amp;site=https%3A%2F%2Ffilms.example"));
        assert_eq!(shown(&"x".repeat(500)).chars().count(), MAX_SHOWN + 1);
    }
}
