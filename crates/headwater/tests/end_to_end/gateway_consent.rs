//! Web sites that the user allows to read through the peer on this machine: the gateway as browsers see it.

use crate::gateway::{Got, MIB, ask, reader};
use crate::site::{Process, Site, check};
use std::io::{Read, Write};
use std::net::TcpStream;

const FILMS: &str = "https://films.example";
const EVIL: &str = "https://evil.example";

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// A gateway, and a content that somebody's site would like to read through it.
struct Wish {
    gateway: String,
    content: String,
}

impl Wish {
    fn session(&self, origin: &str) -> Got {
        ask("POST", &format!("{}/session?content={}", self.gateway, self.content), &[("Origin", origin)])
    }
    /// Opens the page that asks the user.
    fn page(&self, site: &str) -> String {
        let url = format!("{}/consent?site={}&content={}", self.gateway, encoded(site), self.content);
        let got = ask("GET", &url, &[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")]);
        let policy = &got.fields["content-security-policy"];
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("script-src"), "{policy}");
        assert_eq!(got.fields["cross-origin-opener-policy"], "same-origin");
        String::from_utf8(got.body).unwrap()
    }
    /// Where the button of a page leads that says `choice`.
    fn button(&self, page: &str, choice: &str) -> String {
        let links = page.split("action=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let link = links.map(|l| l.replace("&amp;", "&")).find(|l| l.contains(&format!("choice={choice}&")));
        format!("{}{}", self.gateway, link.unwrap_or_else(|| panic!("no {choice} in {page}")))
    }
    /// The user reads the page, then clicks. A click that comes too soon is asked for again.
    fn answer(&self, site: &str, choice: &str) -> Got {
        let link = self.button(&self.page(site), choice);
        loop {
            let got = ask("POST", &link, &[("Origin", &self.gateway), ("Sec-Fetch-Site", "same-origin")]);
            if got.status != 409 {
                return got;
            }
            assert!(String::from_utf8_lossy(&got.body).contains("very quick"));
        }
    }
}

/// The path that a site was given.
fn path(session: &Got) -> String {
    assert_eq!(session.status, 200, "{session:?}");
    let said: serde_json::Value = serde_json::from_slice(&session.body).unwrap();
    assert_eq!(said["version"], 1);
    said["url"].as_str().unwrap().to_owned()
}

fn start(site: &Site) -> (Process, Wish, Vec<u8>) {
    site.write("film", 24 * MIB, 61);
    let name = site.publish("film", &[]);
    let (peer, url) = reader(site, &name, "reader");
    peer.until("everything", |v| v["contents"][0]["complete"] == true);
    let gateway = url.split("/c/").next().unwrap().to_owned();
    (peer, Wish { gateway, content: encoded(&name) }, std::fs::read(site.path("www/film")).unwrap())
}

#[test]
fn a_site_reads_what_the_user_allows_and_nothing_else() {
    let site = Site::start("unlimited");
    let (_peer, wish, film) = start(&site);
    // Before consent a site learns nothing, and it cannot consent for itself.
    for origin in [FILMS, EVIL] {
        let refused = wish.session(origin);
        assert_eq!(refused.status, 403);
        assert!(!refused.fields.contains_key("access-control-allow-origin"), "{refused:?}");
    }
    let page = wish.page(FILMS);
    assert!(page.contains(FILMS) && page.contains("film"), "{page}");
    let always = wish.button(&page, "always");
    for origin in [FILMS, EVIL, "null", "http://127.0.0.1:1"] {
        assert_eq!(ask("POST", &always, &[("Origin", origin)]).status, 403, "{origin}");
    }
    assert_eq!(ask("POST", &always, &[]).status, 403);
    let own = [("Origin", wish.gateway.as_str())];
    assert_eq!(ask("POST", &always, &[own[0], ("Sec-Fetch-Site", "cross-site")]).status, 403);
    assert_eq!(
        ask("POST", &always.replace("films.example", "evil.example"), &own).status,
        409,
        "another question's token"
    );
    assert_eq!(ask("POST", &always.replace("token=", "token=9"), &own).status, 409);
    assert_eq!(wish.session(FILMS).status, 403);
    assert_eq!(wish.answer(FILMS, "no").status, 200);
    assert_eq!(wish.session(FILMS).status, 403);

    // Once: this content.
    assert_eq!(wish.answer(FILMS, "once").status, 200);
    let given = wish.session(FILMS);
    assert_eq!(given.fields["access-control-allow-origin"], FILMS);
    assert_eq!(given.fields["vary"], "origin");
    let file = format!("{}film", path(&given));
    let part = ask("GET", &file, &[("Origin", FILMS), ("Range", "bytes=100-199")]);
    assert_eq!((part.status, part.body == film[100..200]), (206, true));
    assert_eq!(part.fields["access-control-allow-origin"], FILMS);
    assert!(part.fields["access-control-expose-headers"].contains("content-range"));
    let preflight = [
        ("Origin", FILMS),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "range"),
        ("Access-Control-Request-Private-Network", "true"),
    ];
    let may = ask("OPTIONS", &file, &preflight);
    assert_eq!((may.status, may.fields["access-control-allow-private-network"].as_str()), (204, "true"));
    assert!(may.fields["access-control-allow-headers"].contains("range"));
    for fields in [&[("Origin", EVIL)][..], &[("Origin", "null")], &[("Origin", FILMS), ("Host", "films.example")], &[]]
    {
        let refused = ask("GET", &file, fields);
        assert!(matches!(refused.status, 404 | 421), "{fields:?}: {}", refused.status);
        assert!(!refused.fields.contains_key("access-control-allow-origin"));
    }
    assert_eq!(ask("OPTIONS", &file, &[("Origin", EVIL)]).status, 404);
    assert_eq!(wish.session(EVIL).status, 403);
    let other = Wish { content: wish.content.replace("film", "other"), gateway: wish.gateway.clone() };
    assert_eq!(other.session(FILMS).status, 403, "once is for one content");
    // What belongs to the user stays the user's.
    assert_eq!(ask("GET", &format!("{}/", wish.gateway), &[("Origin", FILMS)]).status, 403);
    let asked_wrongly = ask("GET", &format!("{}/consent?site=http://films.example&content=x", wish.gateway), &[]);
    assert_eq!(asked_wrongly.status, 400);
}

#[test]
fn consent_is_remembered_until_it_is_revoked() {
    let site = Site::start("unlimited");
    let (mut peer, wish, film) = start(&site);
    let data = site.path("reader");
    assert_eq!(wish.answer(FILMS, "always").status, 200);
    assert_eq!(wish.answer(EVIL, "always").status, 200);
    check(&["consent", "list", "--data", &data], 0, FILMS);

    // It outlives the process, sessions do not.
    let before = path(&wish.session(FILMS));
    peer.stop();
    peer.code();
    let address = wish.gateway.strip_prefix("http://").unwrap().to_owned();
    let peer = site.peer("reader", &["--gateway", &address]);
    let consents = peer.event("started")["consents"].as_str().unwrap().to_owned();
    assert_eq!(ask("GET", &format!("{before}film"), &[("Origin", FILMS)]).status, 404);
    // The site has the peer fetch it again; what it asks for meanwhile waits.
    let file = format!("{}film", path(&wish.session(FILMS)));
    assert!(ask("GET", &file, &[("Origin", FILMS)]).body == film);

    // The user's list, on the page that only the user's own programs were told of.
    let page = ask("GET", &consents, &[]);
    let page = String::from_utf8(page.body).unwrap();
    assert!(page.contains(FILMS) && page.contains("Revoke"), "{page}");
    assert_eq!(ask("GET", &format!("{}/consents/AAAAAAAAAAAAAAAAAAAAAA/", wish.gateway), &[]).status, 404);
    let revoke = format!("{consents}?revoke={}", encoded(EVIL));
    assert_eq!(ask("POST", &revoke, &[("Origin", EVIL)]).status, 403);
    assert_eq!(wish.session(EVIL).status, 200);
    assert_eq!(ask("POST", &revoke, &[("Origin", &wish.gateway)]).status, 200);
    assert_eq!(wish.session(EVIL).status, 403);

    // Revoked from outside while it is read: the response ends, the path is nobody's.
    let mut stream = TcpStream::connect(&address).unwrap();
    let path = file.strip_prefix(&wish.gateway).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: {FILMS}\r\n\r\n").unwrap();
    let mut some = [0; 1000];
    stream.read_exact(&mut some).unwrap();
    check(&["consent", "revoke", FILMS, "--data", &data], 0, "nothing any more");
    check(&["consent", "revoke", FILMS, "--data", &data], 3, "was allowed nothing");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while ask("GET", &file, &[("Origin", FILMS), ("Range", "bytes=0-0")]).status != 404 {
        assert!(std::time::Instant::now() < deadline, "it can still be read");
    }
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(ended.is_err() || rest.len() < film.len() - 1000, "{} bytes more came", rest.len());
    assert_eq!(wish.session(FILMS).status, 403);

    // Also where nothing is read at that moment.
    assert_eq!(wish.answer(FILMS, "always").status, 200);
    check(&["consent", "revoke", "--all", "--data", &data], 0, "consents taken back: 1");
    assert_eq!(wish.session(FILMS).status, 403);
}
