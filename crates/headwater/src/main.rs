//! placeholder
#[cfg_attr(not(test), expect(dead_code, reason = "no command calls it yet"))]
mod origin_server;

fn main() {}
