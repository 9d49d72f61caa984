//! A content as a folder: which file or sub-folder a path means, and pages that list them.

use super::pages::escaped;
use headwater_model::log::Track;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What stays as it is in a path: RFC 3986's unreserved characters.
const IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is under a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// The object with this index.
    File(usize),
    /// Objects whose paths begin with this, which is empty or ends with a slash.
    Folder(String),
    /// The folder of this name, that was asked for without the slash at the end; relative links of its page need it.
    FolderWithoutSlash(String),
}

/// What `path` (decoded) means in a content; `.` and `..` are as in any path.
pub(super) fn find(track: &Track, path: &str) -> Option<Found> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    let is_folder = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    let path = parts.join("/");
    if path.is_empty() {
        return Some(Found::Folder(path));
    }
    let file = || track.objects.iter().position(|o| o.path == path).map(Found::File);
    let below = format!("{path}/");
    let folder = || track.objects.iter().any(|o| o.path.starts_with(&below));
    if is_folder {
        folder().then(|| Found::Folder(below.clone()))
    } else {
        file().or_else(|| folder().then(|| Found::FolderWithoutSlash(last(&path).to_owned())))
    }
}

/// A link to `name` in the folder of a page.
pub(super) fn link(name: &str) -> String {
    utf8_percent_encode(name, IN_PATHS).to_string()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The page of the folder `below`: its sub-folders, then its files.
pub(super) fn listing(track: &Track, below: &str) -> String {
    let (mut folders, mut files) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, u64>::new());
    for object in &track.objects {
        match object.path.strip_prefix(below).map(|rest| (rest, rest.split_once('/'))) {
            Some((_, Some((folder, _)))) => *folders.entry(folder).or_default() += object.size_bytes,
            Some((file, None)) => drop(files.insert(file, object.size_bytes)),
            None => {}
        }
    }
    let title = escaped(&format!("{}/{below}", track.name));
    let mut page = format!(
        "<!doctype html><meta charset=utf-8><title>{title}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem}}td{{padding:0 2rem 0 0}}td+td{{text-align:right}}\
         :root{{color-scheme:light dark}}</style><h1>{title}</h1><table>"
    );
    if !below.is_empty() {
        page.push_str("<tr><td><a href=\"../\">../</a><td>");
    }
    let folders = folders.into_iter().map(|(name, bytes)| (name, "/", bytes));
    for (name, end, bytes) in folders.chain(files.into_iter().map(|(name, bytes)| (name, "", bytes))) {
        let _ = write!(page, "<tr><td><a href=\"./{}{end}\">{}{end}</a><td>{bytes} bytes", link(name), escaped(name));
    }
    page.push_str("</table>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::log::Object;
    use headwater_model::{ContentId, Hash, Layout, Version};

    fn track() -> Track {
        let paths = ["Packages", "pool/a b.deb", "pool/deep/ü\".deb", "poolside", "a:b"];
        let object = |path: &&str| Object { path: (*path).to_owned(), media_type: String::new(), size_bytes: 10 };
        let objects: Vec<Object> = paths.iter().map(object).collect();
        Track {
            name: "repo".into(),
            version: Version { content: ContentId([1; 32]), epoch: 1 },
            layout: Layout::new(4096, &objects).unwrap(),
            objects,
            root: Hash([2; 32]),
            origins: Vec::new(),
            sums: None,
        }
    }

    #[test]
    fn paths() {
        let folder = |path: &str| Some(Found::Folder(path.into()));
        for (path, found) in [
            ("", folder("")),
            ("./", folder("")),
            (".", folder("")),
            ("Packages", Some(Found::File(0))),
            ("./Packages", Some(Found::File(0))),
            ("pool//a b.deb", Some(Found::File(1))),
            ("pool/../Packages", Some(Found::File(0))),
            ("pool", Some(Found::FolderWithoutSlash("pool".into()))),
            ("pool/", folder("pool/")),
            ("pool/deep", Some(Found::FolderWithoutSlash("deep".into()))),
            ("pool/deep/.", folder("pool/deep/")),
            ("pool/deep/..", folder("pool/")),
            ("Packages/", None),
            ("Packages/.", None),
            ("..", None),
            ("../Packages", None),
            ("pool/../../Packages", None),
            ("pools", None),
            ("packages", None),
        ] {
            assert_eq!(find(&track(), path), found, "{path}");
        }
    }

    #[test]
    fn listings() {
        let page = listing(&track(), "pool/");
        assert!(
            page.contains("href=\"../\"") && page.contains("href=\"./a%20b.deb\"") && page.contains("./deep/"),
            "{page}"
        );
        assert!(!page.contains("poolside") && !page.contains("Packages"), "{page}");
        let page = listing(&track(), "pool/deep/");
        assert!(page.contains("href=\"./%C3%BC%22.deb\">ü&quot;.deb"), "{page}");
        // A colon in the first part of a relative link would make a scheme of it.
        assert!(listing(&track(), "").contains("href=\"./a%3Ab\""));
    }
}
