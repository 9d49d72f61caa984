//! What is run: the one list of scenarios, and the figures of each kind. The bars are those of the project's list of
//! benchmarks, by its rows; `rows.rs` says what a row is about.

use super::figures::Figure;
use super::figures::Source::{At, Is, Not, Over, Percent};

/// What a run is.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// A scenario's file, with this seed.
    Sim(&'static str, u64),
    /// `bench core` with so many peers.
    Bench(&'static str),
}

/// A run with all its figures.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub name: &'static str,
    pub what: What,
    /// Peers come and go, die, or lie.
    pub has_churn: bool,
    /// Only with `--all`.
    pub is_long: bool,
    /// Figures, by row.
    pub rows: &'static [(&'static str, &'static [Figure])],
    /// Names of baselines.
    pub baselines: &'static [&'static str],
}

impl Run {
    /// Headwater, then the baselines.
    pub fn deciders(&self) -> impl Iterator<Item = Option<&'static str>> + use<> {
        std::iter::once(None).chain(self.baselines.iter().map(|b| Some(*b)))
    }
    pub fn name_with(&self, baseline: Option<&str>) -> String {
        format!("{}/{}", self.name, baseline.unwrap_or("headwater"))
    }
    /// What the program is called with.
    pub fn arguments(&self, baseline: Option<&str>) -> Vec<String> {
        let words: Vec<String> = match self.what {
            What::Sim(file, seed) => vec!["sim".into(), file.into(), "--seed".into(), seed.to_string()],
            What::Bench(peers) => vec!["bench".into(), "core".into(), "--peers".into(), peers.into()],
        };
        let with = baseline.into_iter().flat_map(|b| ["--baseline".to_owned(), b.to_owned()]);
        words.into_iter().chain(with).chain(["--json".to_owned()]).collect()
    }
}

const OFFLOAD: Figure =
    Figure::new("offload, % of all viewers' bytes after 60 s", Not("/copies_later", &["/viewers"])).own();
const ROW_A: (&str, &[Figure]) = (
    "a",
    &[
        Figure::new("copies from source and origin after 60 s", At("/copies_later"))
            .bound(At("/s_min_copies"))
            .ratio(Some(1.10), Some(1.02)),
        Figure::new("copies, the whole run", At("/copies")).bound(At("/s_min_copies")),
        OFFLOAD,
    ],
);
const ROW_B: (&str, &[Figure]) = (
    "b",
    &[
        Figure::new("p50, s", At("/p50_s")).bound(At("/bound_s")).or_never(),
        Figure::new("p99, s", At("/p99_s")).bound(At("/bound_s")).ratio(Some(1.3), None).or_never(),
        Figure::new("the last one, s", At("/makespan_s")).bound(At("/bound_s")).ratio(None, Some(1.05)).or_never(),
        Figure::new("hosts that have all, of those that came", Over("/complete", "/nodes")).least(Some(1.0), None),
        Figure::new("copies from the origin", At("/origin_copies")).bound(Is(1.0)),
        Figure::new("offload, % of all hosts' bytes", Not("/origin_bytes", &["/origin_bytes", "/peer_bytes"])),
    ],
);
const ROW_C_FILE: (&str, &[Figure]) = (
    "c",
    &[
        Figure::new("copies into an ISP, most", At("/copies_into_isp")).bound(Is(1.0)).most(Some(5.0), Some(1.05)),
        Figure::new("copies out of an ISP, most", At("/copies_out_of_isp")),
    ],
);
const ROW_C_LIVE: (&str, &[Figure]) = (
    "c",
    &[
        Figure::new("copies into the ISP of 1,000 after 60 s", At("/isps/0/into_later"))
            .bound(At("/isps/0/into_bound"))
            .most(Some(5.0), Some(1.05)),
        Figure::new("copies out of it after 60 s", At("/isps/0/out_later")),
        Figure::new("copies into any other ISP after 60 s, most", At("/copies_into_isp_later")),
    ],
);
const ROW_H: (&str, &[Figure]) = (
    "h",
    &[Figure::new("start-up, s that 95 % do not pass", At("/start_up_p95_s")).most(Some(2.0), Some(0.5)).or_never()],
);
const ROW_I: (&str, &[Figure]) = (
    "i",
    &[
        Figure::new("viewers without a stall, %", Not("/stalled_viewers", &["/viewers", "/newcomers", "/killed"]))
            .least(Some(99.0), Some(99.99)),
        Figure::new("pieces in time, % of those that players needed", Percent("/continuity")),
        Figure::new("stalls a viewer", Over("/stalls", "/viewers")),
    ],
);
/// Row j is about progressive ingest: following a playlist adds a segment of 2 s.
const ROW_J: (&str, &[Figure]) = (
    "j",
    &[Figure::new("lag, s that 99 % do not pass (a playlist is followed)", At("/lag_p99_s"))
        .most(Some(5.0), Some(3.2))],
);
const ROW_M: (&str, &[Figure]) = (
    "m",
    &[
        Figure::new("assigned pairs of two dial-only nodes", At("/lightweight_pairs")).most(Some(0.0), Some(0.0)),
        Figure::new("pairs of which neither reaches the other", At("/hopeless_pairs")),
        Figure::new("assignments", At("/assignments")),
    ],
);

const LIVE: &[(&str, &[Figure])] = &[ROW_A, ROW_H, ROW_I, ROW_J];
const LIVE_ISP: &[(&str, &[Figure])] = &[ROW_A, ROW_C_LIVE, ROW_H, ROW_I, ROW_J];
const FILE: &[(&str, &[Figure])] = &[ROW_B];
const FILE_ISP: &[(&str, &[Figure])] = &[ROW_B, ROW_C_FILE];
const FILE_DIAL_ONLY: &[(&str, &[Figure])] = &[ROW_B, ROW_M];

const fn sim(name: &'static str, file: &'static str, rows: &'static [(&'static str, &'static [Figure])]) -> Run {
    Run { name, what: What::Sim(file, 1), has_churn: false, is_long: false, rows, baselines: &[] }
}
const fn bench(name: &'static str, peers: &'static str) -> Run {
    Run { name, what: What::Bench(peers), has_churn: false, is_long: false, rows: &[], baselines: &[] }
}

/// All runs.
pub const RUNS: &[Run] = &[
    Run {
        baselines: &["client-server", "random", "locality", "forest"],
        ..sim("isp-1000-live", "scenarios/isp-1000-live.toml", LIVE_ISP)
    },
    sim("isp-1000-live-scarce", "scenarios/isp-1000-live-scarce.toml", LIVE_ISP),
    Run {
        has_churn: true,
        baselines: &["client-server", "random", "forest"],
        ..sim("live-1000", "scenarios/live-1000.toml", LIVE)
    },
    Run {
        has_churn: true,
        baselines: &["locality"],
        ..sim("isp-1000-live-churn", "scenarios/isp-1000-live-churn.toml", LIVE_ISP)
    },
    Run { has_churn: true, is_long: true, ..sim("live-10000", "scenarios/live-10000.toml", LIVE) },
    sim("file-16-mixed", "scenarios/file-16-mixed.toml", FILE),
    Run { baselines: &["client-server", "random"], ..sim("file-200-mixed", "scenarios/file-200-mixed.toml", FILE) },
    Run {
        baselines: &["random"],
        ..sim("file-200-mixed-dial-only", "scenarios/file-200-mixed-dial-only.toml", FILE_DIAL_ONLY)
    },
    sim("file-2000-equal", "scenarios/file-2000-equal.toml", FILE),
    sim("file-2000-mixed", "scenarios/file-2000-mixed.toml", FILE),
    sim("file-2000-mixed-dial-only", "scenarios/file-2000-mixed-dial-only.toml", FILE_DIAL_ONLY),
    // Trackers give each host 40 neighbours: with 2,000 hosts their runs would take half an hour.
    Run {
        baselines: &["client-server", "random", "locality"],
        ..sim("isp-200-file", "scenarios/isp-200-file.toml", FILE_ISP)
    },
    sim("isp-1000-file", "scenarios/isp-1000-file.toml", FILE_ISP),
    sim("isp-1000", "lab/scenarios/isp-1000.toml", FILE_ISP),
    bench("bench-core", "10k,100k"),
    Run { is_long: true, ..bench("bench-core-1m", "1M") },
];
