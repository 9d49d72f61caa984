use super::super::figures::Source::{At, Is};
use super::*;
use serde_json::json;

const ROW_A: &[Figure] = &[Figure::new("copies", At("/copies")).bound(At("/least")).ratio(Some(1.1), Some(1.02))];
const ROW_B: &[Figure] =
    &[Figure::new("the last one", At("/makespan")).bound(Is(2.0)).ratio(Some(1.3), None).or_never()];

/// Of Headwater only.
const OWN: &[Figure] = &[Figure::new("offload", At("/copies")).own()];

const fn run(name: &'static str, has_churn: bool, baselines: &'static [&'static str]) -> Run {
    let rows = &[("a", ROW_A), ("b", ROW_B), ("c", OWN)];
    Run { name, what: What::Sim("scenarios/x.toml", 7), has_churn, is_long: false, rows, baselines }
}

const RUNS: &[Run] = &[
    run("calm", false, &["random"]),
    run("wild", true, &[]),
    Run { what: What::Bench("10k"), rows: &[], ..run("bench", false, &[]) },
];

fn kept(outcome: Value) -> Kept {
    Kept { command: "headwater sim x".into(), commit: "abc".into(), cpu_s: Some(3.2), wall_s: 4.6, outcome }
}

fn bench() -> Kept {
    let figure = |row: &str, value: f64| {
        json!({
            "row": row, "content": "live", "peers": 10_000, "what": "edges decided", "value": value, "unit": "/s",
            "better": "more", "must": 1e6, "goal": 1e7,
        })
    };
    let rows = ["e1", "e2", "e3", "f", "f3", "g"].map(|row| figure(row, 5e6));
    kept(json!({"figures": rows}))
}

fn all() -> BTreeMap<String, Kept> {
    BTreeMap::from([
        ("calm/headwater".to_owned(), kept(json!({"copies": 1.05, "least": 1.0, "makespan": 2.2}))),
        (
            "calm/random".to_owned(),
            kept(json!({"copies": 40.5, "least": 1.0, "makespan": null, "complete": 3, "nodes": 4})),
        ),
        (
            "wild/headwater".to_owned(),
            kept(json!({"copies": 5.0, "least": 2.0, "makespan": null, "violations": ["x"]})),
        ),
        ("bench/headwater".to_owned(), bench()),
    ])
}

#[test]
fn outcomes_become_a_page() {
    let page = text(RUNS, &all(), &[], "abc").unwrap();
    for expected in [
        "Written at commit abc.",
        "## a: payload",
        "| calm | copies | 1.05 | 1 | 1.05 | ratio ≤ 1.1 | ratio ≤ 1.02 | met, goal missed | – | 40.5 * | – | – |",
        "| wild | copies | 5 | 2 | 2.5 | ratio ≤ 1.1 | ratio ≤ 1.02 | MISSED | – | – | – | – |",
        "| calm | the last one | 2.2 | 2 | 1.1 | ratio ≤ 1.3 |  | met | – | never | – | – |",
        "| calm | offload | 1.05 |  |  |  |  |  | – | – | – | – |",
        "| wild | the last one | never |  |  | ratio ≤ 1.3 |  | MISSED (never) | – | – | – | – |",
        "| bench | live, 10000 peers | edges decided | 5.00 M /s | ≥ 1.00 M | ≥ 10.00 M | met, goal missed |",
        "| wild/headwater | `headwater sim x` | abc | 3 | 5 | 1 VIOLATED |",
    ] {
        assert!(page.contains(expected), "no {expected:?} in\n{page}");
    }
    assert!(!page.contains("Not run") && !page.contains("The lab"), "{page}");
    // Quiet runs and those with churn stand apart.
    let (quiet, churn) = page.split_once("With churn:").unwrap();
    assert!(!quiet.contains("| wild |") && churn.contains("| wild | copies"), "{page}");
}

#[test]
fn what_was_not_run_is_said_aloud() {
    let mut kept = all();
    kept.remove("wild/headwater");
    kept.remove("bench/headwater");
    let page = text(RUNS, &kept, &[], "abc").unwrap();
    assert!(
        page.contains("**Not run** (`cargo xtask results --only NAME`): wild/headwater, bench/headwater."),
        "{page}"
    );
    assert!(page.contains("| wild | copies | not run |"), "{page}");
}

#[test]
fn a_missing_figure_is_an_error_that_names_it() {
    let error_with = |name: &str, outcome: Value| {
        let mut kept = all();
        kept.insert(name.to_owned(), self::kept(outcome));
        format!("{:#}", text(RUNS, &kept, &[], "abc").unwrap_err())
    };
    let error = error_with("calm/random", json!({"least": 1.0, "makespan": 1.0}));
    assert!(error.contains("calm/random: no figure \"copies\"") && error.contains("/copies is missing"), "{error}");
    let error = error_with("calm/headwater", json!({"copies": null, "least": 1.0, "makespan": 1.0}));
    assert!(error.contains("calm/headwater: no figure \"copies\"") && error.contains("is null"), "{error}");
    let error = error_with("bench/headwater", json!({"figures": []}));
    assert!(error.contains("bench/headwater: no figure of row e1"), "{error}");
}

#[test]
fn the_lab_has_a_place_where_it_was_run() {
    let lab = [json!({"scenario": "site", "bars": [
        {"name": "makespan_ratio", "value": 1.2, "bound": 1.3, "pass": true},
        {"name": "left_within_s", "value": null, "bound": 2.0, "pass": false},
    ]})];
    let page = text(RUNS, &all(), &lab, "abc").unwrap();
    assert!(page.contains("| site | makespan_ratio | 1.2 | 1.3 | met |"), "{page}");
    assert!(page.contains("| site | left_within_s | never | 2 | MISSED |"), "{page}");
    let error = text(RUNS, &all(), &[json!({"scenario": "site", "bars": [{"name": "x"}]})], "abc").unwrap_err();
    assert!(error.to_string().contains("site: bar x is not whole"), "{error}");
}

#[test]
fn a_run_is_a_command_line() {
    let [calm, .., bench] = RUNS else { panic!("there are runs") };
    let words = calm.arguments(Some("random")).join(" ");
    assert_eq!(words, "sim scenarios/x.toml --seed 7 --baseline random --json");
    assert_eq!(bench.arguments(None).join(" "), "bench core --peers 10k --json");
    assert_eq!(calm.deciders().map(|b| calm.name_with(b)).collect::<Vec<_>>(), ["calm/headwater", "calm/random"]);
}

#[test]
fn all_runs_have_their_own_names_and_scenarios_that_are_there() {
    let mut names: Vec<&str> = super::super::runs::RUNS.iter().map(|r| r.name).collect();
    let (n, root) = (names.len(), std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), n);
    for run in super::super::runs::RUNS {
        if let What::Sim(file, _) = run.what {
            assert!(root.join(file).is_file(), "{}: there is no {file}", run.name);
        }
        assert!(run.baselines.iter().all(|b| BASELINES.contains(b)), "{}", run.name);
        assert!(run.rows.iter().all(|(row, _)| ROWS.iter().any(|r| r.name == *row && !r.of_bench)), "{}", run.name);
    }
}
