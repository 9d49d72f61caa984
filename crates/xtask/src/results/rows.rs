//! The rows of the list of benchmarks that are measured here, in words.

/// A row: its name, what it measures, and what must be.
pub struct Row {
    pub name: &'static str,
    pub about: &'static str,
    /// Figures of `bench core` that it needs.
    pub of_bench: bool,
}

const fn row(name: &'static str, about: &'static str) -> Row {
    Row { name, about, of_bench: false }
}
const fn of_bench(name: &'static str, about: &'static str) -> Row {
    Row { name, about, of_bench: true }
}

/// In the list's order.
pub const ROWS: [Row; 13] = [
    row("a", "payload that publisher and origin send to viewers, over S_min, the least that can be"),
    row("b", "time until files are with all, over the least that can be"),
    row("c", "copies that enter an ISP of so many subscribers as the name says; the origin is outside"),
    of_bench("e1", "edges decided in a second of a core"),
    of_bench("e2", "all places of a stream decided anew"),
    of_bench("e3", "rate that trees reach, over the optimum of a linear program"),
    of_bench("f", "heartbeats in a second of a core; here in process, without sockets"),
    of_bench("f3", "memory of a peer in a swarm or in trees"),
    of_bench("g", "joins placed in a second of a core"),
    row("h", "from a player's start to its first picture"),
    row("i", "viewers that never wait"),
    row("j", "lag from the publisher to viewers; the row is for a million of them"),
    row("m", "pairs that cannot connect and are assigned all the same"),
];
