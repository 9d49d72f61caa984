//! Who may ask the gateway for what: decided from a request's head alone.
//!
//! Programs and the user's own tabs come without an `Origin`, or with the gateway's. Browsers name the site of the page
//! that asks, and pages cannot change that name: a site's word is its `Origin`, the user's a click on the gateway's own page.

use crate::consents::Site;
use hyper::Method;
use hyper::header::{self, HeaderMap};
use hyper::http::HeaderName;

/// What a path stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place<'a> {
    Home,
    /// What the user may read: the secret, and the path within the content.
    Content(&'a str, &'a str),
    /// What a site may read.
    Session(&'a str, &'a str),
    /// Where a site is given a session.
    Sessions,
    /// Where the user is asked.
    Consent,
    /// Where the user sees all consents, by the secret.
    Consents(&'a str),
    Unknown,
}

impl<'a> Place<'a> {
    pub(super) fn of(path: &'a str) -> Place<'a> {
        let below = |prefix| path.strip_prefix(prefix).and_then(|rest: &str| rest.split_once('/'));
        match path {
            "/" => Place::Home,
            "/session" => Place::Sessions,
            "/consent" => Place::Consent,
            _ => match (below("/c/"), below("/s/"), below("/consents/")) {
                (Some((secret, rest)), ..) => Place::Content(secret, rest),
                (_, Some((secret, rest)), _) => Place::Session(secret, rest),
                (.., Some((secret, ""))) => Place::Consents(secret),
                _ => Place::Unknown,
            },
        }
    }
}

/// What the head of a request says of who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) host: &'a str,
    pub(super) origin: Option<&'a str>,
    /// `Sec-Fetch-Site`, `-Mode` and `-Dest`, where the browser says them.
    from: Option<&'a str>,
    mode: Option<&'a str>,
    dest: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(super) fn of(method: &'a Method, fields: &'a HeaderMap) -> Asked<'a> {
        // What is no text is nobody's name.
        let said = |name: HeaderName| fields.get(name).map(|v| v.to_str().unwrap_or("?"));
        let named = |name: &'static str| said(HeaderName::from_static(name));
        Asked {
            method,
            host: said(header::HOST).unwrap_or_default(),
            origin: said(header::ORIGIN),
            from: named("sec-fetch-site"),
            mode: named("sec-fetch-mode"),
            dest: named("sec-fetch-dest"),
        }
    }

    fn is_of_gateway(&self) -> bool {
        self.origin.and_then(|o| o.strip_prefix("http://")) == Some(self.host)
    }

    /// A program, a page of the gateway, or a tab that goes there: no page of another site sees the answer.
    fn is_users(&self) -> bool {
        let own = self.origin.is_none() || self.is_of_gateway();
        let tab = self.mode == Some("navigate") && self.dest.is_none_or(|d| d == "document");
        own && (tab || self.from.is_none_or(|site| matches!(site, "none" | "same-origin")))
    }

    /// A click on a page of the gateway: no other page can make a browser say so.
    fn is_click(&self) -> bool {
        self.is_of_gateway() && self.from.is_none_or(|site| site == "same-origin")
    }

    fn reads(&self) -> bool {
        matches!(*self.method, Method::GET | Method::HEAD)
    }
}

/// Who is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// The user.
    User,
    /// The user, who clicked.
    Click,
    /// A page of this site.
    Site(Site),
    /// A browser that asks for this site's page whether it may ask.
    Preflight(Site),
    Refused(Refusal),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// Another name was made to point here (DNS rebinding).
    OtherHost,
    /// It says nothing else: not to any site whether it is known here.
    OtherSite,
    Method,
    /// It says nothing else: not whether there is something for others.
    NotFound,
}

/// Whether a request for `place` is answered, and to whom. `is_own` says whether a `Host` is the gateway's; `holder` which
/// site a session path belongs to; `knows` whether the user allowed a site anything.
pub(super) fn decide(
    asked: &Asked<'_>,
    place: &Place<'_>,
    is_own: bool,
    holder: Option<&Site>,
    knows: impl Fn(&Site) -> bool,
) -> Access {
    let refused = Access::Refused;
    if !is_own {
        return refused(Refusal::OtherHost);
    }
    let site = asked.origin.and_then(Site::of_origin);
    match place {
        Place::Session(..) => match (site, holder) {
            (Some(site), Some(holder)) if site == *holder => match *asked.method {
                Method::GET | Method::HEAD => Access::Site(site),
                Method::OPTIONS => Access::Preflight(site),
                _ => refused(Refusal::Method),
            },
            _ => refused(Refusal::NotFound),
        },
        Place::Sessions => match site.filter(knows) {
            Some(site) if asked.method == Method::POST => Access::Site(site),
            Some(site) if asked.method == Method::OPTIONS => Access::Preflight(site),
            _ => refused(Refusal::OtherSite),
        },
        Place::Consent | Place::Consents(_) if asked.method == Method::POST => {
            if asked.is_click() {
                Access::Click
            } else {
                refused(Refusal::OtherSite)
            }
        }
        _ if !asked.is_users() => refused(Refusal::OtherSite),
        _ if !asked.reads() => refused(Refusal::Method),
        Place::Unknown => refused(Refusal::NotFound),
        Place::Home | Place::Content(..) | Place::Consent | Place::Consents(_) => Access::User,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "127.0.0.1:7480";
    const FILMS: &str = "https://films.example";

    /// A request as `METHOD path` with further fields as `name: value`, to a gateway that gave films.example the session
    /// path `/s/films/` and remembers a consent for it.
    fn check(request: &str, expected: &str) {
        let mut lines = request.lines().map(str::trim);
        let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
        let mut fields = HeaderMap::new();
        fields.insert(header::HOST, OWN.parse().unwrap());
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            fields.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let method = method.parse().unwrap();
        let asked = Asked::of(&method, &fields);
        let place = Place::of(path);
        let films: Site = FILMS.parse().unwrap();
        let holder = matches!(place, Place::Session("films", _)).then_some(&films);
        let access = decide(&asked, &place, asked.host == OWN, holder, |site| *site == films);
        let said = match &access {
            Access::User => "user".into(),
            Access::Click => "click".into(),
            Access::Site(site) => format!("site {site}"),
            Access::Preflight(site) => format!("preflight {site}"),
            Access::Refused(refusal) => format!("{refusal:?}"),
        };
        assert_eq!(said, expected, "{request}");
    }

    #[test]
    fn programs_and_tabs() {
        check("GET /c/x/film", "user");
        check("HEAD /c/x/film", "user");
        check("GET /", "user");
        check("GET /consents/x/", "user");
        check("GET /c/x/film\norigin: http://127.0.0.1:7480", "user");
        // Typed in; from a page of the gateway; a link on another page.
        check("GET /c/x/film\nsec-fetch-site: none\nsec-fetch-mode: navigate\nsec-fetch-dest: document", "user");
        check("GET /c/x/film\nsec-fetch-site: same-origin\nsec-fetch-mode: no-cors\nsec-fetch-dest: video", "user");
        check("GET /c/x/film\nsec-fetch-site: cross-site\nsec-fetch-mode: navigate\nsec-fetch-dest: document", "user");
        check("POST /c/x/film", "Method");
        check("DELETE /consents/x/", "Method");
        check("GET /elsewhere", "NotFound");
        check("GET /consents/x", "NotFound");
    }

    #[test]
    fn pages_of_other_sites_have_no_access() {
        for path in ["/", "/c/x/film", "/consent", "/consents/x/", "/elsewhere"] {
            check(&format!("GET {path}\nhost: films.example"), "OtherHost");
            check(&format!("GET {path}\norigin: https://films.example"), "OtherSite");
            check(&format!("GET {path}\norigin: null"), "OtherSite");
            check(&format!("OPTIONS {path}\norigin: https://films.example"), "OtherSite");
            // A frame, an image, a film in a page; another port is another site.
            check(
                &format!("GET {path}\nsec-fetch-site: cross-site\nsec-fetch-mode: navigate\nsec-fetch-dest: iframe"),
                "OtherSite",
            );
            check(
                &format!("GET {path}\nsec-fetch-site: cross-site\nsec-fetch-mode: no-cors\nsec-fetch-dest: image"),
                "OtherSite",
            );
            check(
                &format!("GET {path}\nsec-fetch-site: same-site\nsec-fetch-mode: no-cors\nsec-fetch-dest: video"),
                "OtherSite",
            );
        }
    }

    #[test]
    fn a_session_is_for_one_site() {
        check("GET /s/films/a\norigin: https://films.example", "site https://films.example");
        check("OPTIONS /s/films/a\norigin: https://films.example", "preflight https://films.example");
        check("POST /s/films/a\norigin: https://films.example", "Method");
        check("GET /s/films/a\norigin: https://films.example\nhost: films.example", "OtherHost");
        for other in [
            "https://evil.example",
            "http://films.example",
            "https://films.example:444",
            "https://FILMS.example",
            "https://films.example/",
            "https://films.example.evil.example",
            "null",
            "http://127.0.0.1:7480",
        ] {
            check(&format!("GET /s/films/a\norigin: {other}"), "NotFound");
        }
        check("GET /s/films/a", "NotFound");
        check("GET /s/other/a\norigin: https://films.example", "NotFound");
        check("GET /s/films\norigin: https://films.example", "OtherSite");
    }

    #[test]
    fn a_site_gets_sessions_after_consent_only() {
        check("POST /session\norigin: https://films.example", "site https://films.example");
        check("OPTIONS /session\norigin: https://films.example", "preflight https://films.example");
        check("GET /session\norigin: https://films.example", "OtherSite");
        check("POST /session\norigin: https://evil.example", "OtherSite");
        check("OPTIONS /session\norigin: https://evil.example", "OtherSite");
        check("POST /session", "OtherSite");
        check("POST /session\norigin: null", "OtherSite");
    }

    #[test]
    fn only_the_user_consents() {
        check("GET /consent\nsec-fetch-site: cross-site\nsec-fetch-mode: navigate\nsec-fetch-dest: document", "user");
        check("POST /consent\norigin: http://127.0.0.1:7480\nsec-fetch-site: same-origin", "click");
        check("POST /consents/x/\norigin: http://127.0.0.1:7480", "click");
        for path in ["/consent", "/consents/x/"] {
            check(&format!("POST {path}"), "OtherSite");
            check(&format!("POST {path}\norigin: null"), "OtherSite");
            check(&format!("POST {path}\norigin: https://films.example"), "OtherSite");
            check(&format!("POST {path}\norigin: http://127.0.0.1:9999\nsec-fetch-site: same-site"), "OtherSite");
            check(&format!("POST {path}\norigin: http://127.0.0.1:7480\nsec-fetch-site: cross-site"), "OtherSite");
            check(&format!("POST {path}\norigin: http://127.0.0.1:7480\nhost: evil.example"), "OtherHost");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let words = ["/", "c", "s", "films", "consent", "consents", "session", "%", "..", "\u{e9}", "?", "//"];
        for _ in 0..20_000 {
            let path: String = (0..next() % 6).map(|_| words[next() % words.len()]).collect();
            let mut fields = HeaderMap::new();
            for name in ["host", "origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest"] {
                let value: Vec<u8> =
                    (0..next() % 12).map(|_| (next() % 95 + 32) as u8 | (next() % 2 * 128) as u8).collect();
                if let Ok(value) = value.as_slice().try_into() {
                    fields.insert(HeaderName::from_static(name), value);
                }
            }
            let method = [Method::GET, Method::POST, Method::OPTIONS, Method::CONNECT][next() % 4].clone();
            let asked = Asked::of(&method, &fields);
            let access = decide(&asked, &Place::of(&path), false, None, |_| true);
            assert_eq!(access, Access::Refused(Refusal::OtherHost));
            let access = decide(&asked, &Place::of(&path), true, None, |_| false);
            assert!(!matches!(access, Access::Site(_) | Access::Preflight(_)), "{asked:?} {path}");
        }
    }
}
