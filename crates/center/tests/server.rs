//! A whole control center on real sockets.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "server/contents.rs"]
mod contents;
#[path = "server/failures.rs"]
mod failures;
#[path = "server/harness.rs"]
mod harness;
#[path = "server/pages.rs"]
mod pages;
#[path = "server/sessions.rs"]
mod sessions;
#[path = "server/web.rs"]
mod web;
