use super::*;

fn consent(site: &str, publisher: u8) -> Consent {
    let site = site.parse().unwrap();
    Consent { site, publisher: Hash([publisher; 32]), content: "films/one".into(), since_unix_ms: 1_700_000_000_000 }
}

#[test]
fn sites() {
    for (text, site) in [
        ("https://films.example", "https://films.example"),
        ("https://FILMS.example:443/", "https://films.example"),
        ("https://films.example:8443", "https://films.example:8443"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ] {
        assert_eq!(text.parse::<Site>().unwrap().as_str(), site);
    }
    for text in
        ["http://films.example", "http://localhost.films.example", "http://10.0.0.1", "http://127.0.0.1.films.example"]
    {
        assert_eq!(text.parse::<Site>(), Err(NotASite::NotSecure), "{text}");
    }
    let long = format!("https://{}", "a.".repeat(200));
    for text in [
        "",
        "null",
        "films.example",
        "https://",
        "https://films.example/a",
        "https://films.example?a",
        "https://films.example#a",
        "https://user@films.example",
        "https://u:p@films.example",
        "file:///etc",
        "data:text/html,x",
        "about:blank",
        "*",
        "javascript:alert(1)",
        "chrome-extension://abcd",
        "blob:https://films.example/1",
        &long,
    ] {
        assert_eq!(text.parse::<Site>(), Err(NotASite::NoOrigin), "{text}");
    }
    assert!(Site::of_origin("https://films.example").is_some());
    for unusual in
        ["https://films.example/", "https://FILMS.example", "https://films.example:443", " https://films.example"]
    {
        assert_eq!(Site::of_origin(unusual), None, "{unusual}");
    }
}

#[test]
fn they_outlive_the_process_and_are_revoked_by_site() {
    let folder = tempfile::tempdir().unwrap();
    let file = ConsentFile::of(folder.path());
    assert_eq!((file.read().unwrap(), file.stamp()), (Consents::default(), None));
    for (site, publisher) in [("https://b.example", 1), ("https://a.example", 2), ("https://a.example", 1)] {
        file.change(|all| all.give(consent(site, publisher))).unwrap();
    }
    file.change(|all| all.give(consent("https://a.example", 1))).unwrap();
    let all = ConsentFile::of(folder.path()).read().unwrap();
    assert_eq!(all.iter().count(), 3, "each once");
    let (a, b) = ("https://a.example".parse().unwrap(), "https://b.example".parse().unwrap());
    assert!(all.allow(&a, &Hash([2; 32])) && !all.allow(&b, &Hash([2; 32])));
    let stamp = file.stamp();
    let (left, gone) = file.change(|all| Ok(all.revoke(&a))).unwrap();
    assert_eq!((gone, left.know(&a), left.know(&b)), (2, false, true));
    assert!(file.stamp() != stamp && file.read().unwrap() == left);
    #[cfg(unix)]
    {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder.path().join(FILE)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn no_more_than_so_many() {
    let mut all = Consents::default();
    for n in 0..MAX_CONSENTS {
        all.give(consent(&format!("https://s{n}.example"), 1)).unwrap();
    }
    assert!(matches!(all.give(consent("https://one-more.example", 1)), Err(ConsentsError::Full)));
    assert!(all.give(consent("https://s7.example", 1)).is_ok(), "it is there already");
    let long = Consent { content: "ü".repeat(9000), ..consent("https://s0.example", 1) };
    all.revoke(&long.site);
    all.give(long).unwrap();
    assert!((all.encode().len() as u64) < MAX_FILE_BYTES);
    assert_eq!(Consents::decode(&all.encode()), Ok(all));
}

#[test]
fn another_file_is_not_used_and_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = ConsentFile::of(folder.path());
    let path = folder.path().join(FILE);
    let publisher = "ab".repeat(32);
    let with = |site: &str| {
        format!(
            r#"{{"version":1,"consents":[{{"site":"{site}","publisher":"{publisher}","content":"","since_unix_ms":1}}]}}"#
        )
    };
    for bytes in [
        String::new(),
        "nonsense".into(),
        r#"{"version":2,"consents":[]}"#.into(),
        r#"{"version":1}"#.into(),
        with("http://films.example"),
        with("https://films.example").replace("abab", "zz"),
        " ".repeat(MAX_FILE_BYTES as usize + 1),
    ] {
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(file.read(), Err(ConsentsError::NotConsents { .. })), "{bytes:.80}");
        assert!(file.change(|all| all.give(consent("https://a.example", 1))).is_err());
        assert_eq!(fs::read(&path).unwrap(), bytes.as_bytes());
    }
    fs::write(&path, with("https://films.example").replace("\"content\"", "\"later\":true,\"content\"")).unwrap();
    assert_eq!(file.read().unwrap().iter().count(), 1, "what a later version adds is no harm");
}

#[test]
fn any_bytes_are_read_or_refused() {
    let mut all = Consents::default();
    (0..3).for_each(|n| all.give(consent(&format!("https://s{n}.example"), n)).unwrap());
    let good = all.encode();
    let mut state = 3u64;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 20) as u8;
        }
        if let Ok(read) = Consents::decode(&bytes) {
            assert_eq!(Consents::decode(&read.encode()), Ok(read));
        }
    }
}
