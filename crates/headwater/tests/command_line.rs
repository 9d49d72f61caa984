//! The binary as people and programs use it: exit codes, output, and when it ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn headwater(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.env("XDG_CONFIG_HOME", home.join("config")).env("XDG_DATA_HOME", home.join("data"));
    for variable in ["HEADWATER_CONTROL", "HEADWATER_TOKEN", "HEADWATER_LOG"] {
        command.env_remove(variable);
    }
    command
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    headwater(home).args(arguments).current_dir(home).stdin(Stdio::null()).output().expect("the binary starts")
}

fn check(home: &Path, arguments: &[&str], code: i32, says: &str) {
    let output = run(home, arguments);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(says), "{arguments:?}: {said}");
}

#[test]
fn exit_codes_mean_something() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    std::fs::write(home.join("film"), vec![7; 100_000]).unwrap();
    let publish = ["publish", "film", "--name", "n", "--origin", "http://127.0.0.1:9/film"];
    check(home, &["key", "show"], 3, "headwater key new");
    check(home, &publish, 3, "headwater key new");
    check(home, &["key", "new"], 0, "fingerprint");
    check(home, &["key", "new"], 1, "exists already");
    check(home, &publish, 1, "cannot connect to http://127.0.0.1:9/film");
    check(home, &[&publish[..], &["--no-check"]].concat(), 0, "hw://none.invalid:7400/n#key=");
    check(home, &[&publish[..], &["--origin-header", "secret"]].concat(), 2, "number 1");
    check(home, &["publish", "film"], 2, "--origin");
    check(home, &["list", "--control", "127.0.0.1:9"], 1, "does not answer");
    check(home, &["list", "--control", "ftp://x"], 2, "neither http nor https");
    check(home, &["--log", "a=b=c", "key", "show"], 2, "--log");
    check(home, &["sim", "missing.toml"], 1, "missing.toml");
    assert!(home.join("film.hwlog").exists());
}

#[test]
fn what_publish_prints_for_programs_is_one_object() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    std::fs::write(home.join("film"), vec![7; 100_000]).unwrap();
    assert!(run(home, &["key", "new", "--out", "k"]).status.success());
    let log_url = "https://o.example/film.hwlog";
    let output = run(
        home,
        &[
            "publish",
            "film",
            "--name",
            "n",
            "--origin",
            "http://127.0.0.1:9/",
            "--no-check",
            "--key",
            "k",
            "--json",
            "--log-url",
            log_url,
        ],
    );
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["bytes"], &json["registered"]), (&100_000.into(), &false.into()));
    assert!(json["hw"].as_str().unwrap().contains(&format!("&log={log_url}")), "{json}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_command_that_runs_ends_with_its_input() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for arguments in [
        &["origin", ".", "--listen", "127.0.0.1:0", "--json", "--exit-with-stdin"][..],
        &["control", "--listen", "127.0.0.1:0", "--data", "cc", "--json", "--exit-with-stdin"],
    ] {
        let mut child = headwater(home)
            .args(arguments)
            .current_dir(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(json["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert!(child.try_wait().unwrap().is_none(), "it ended before its input did");
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "{arguments:?}");
    }
}
