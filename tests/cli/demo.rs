//! The tour.

use crate::common::{Sandbox, output};

#[test]
fn it_runs_every_command_and_finds_all_well() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.file("tmp")).unwrap();
    let output = output(sandbox.znap_command().env("TMPDIR", sandbox.file("tmp")).arg("demo"));
    let text = output.stdout;
    assert_eq!(output.code, 0, "{text}");
    for command in ["init", "save", "list", "show", "status", "log", "restore", "undo", "delete", "gc"] {
        assert!(
            text.contains(&format!("$ znap {command} ")) || text.contains(&format!("$ znap {command}\n")),
            "{text}"
        );
    }
    assert!(text.matches("\nchecked: ").count() >= 7, "{text}");
    assert!(!text.contains("wrong, this is not so"), "{text}");
    let lines = text.lines().count();
    assert!((60..=140).contains(&lines), "{lines} lines");
    // It says how to remove what it made, and that works.
    let line = text.lines().find_map(|line| line.strip_prefix("To remove it: ")).unwrap();
    assert!(std::process::Command::new("sh").args(["-c", line]).status().unwrap().success());
    assert_eq!(std::fs::read_dir(sandbox.file("tmp")).unwrap().count(), 0);
}

#[test]
fn it_takes_place_where_one_says() {
    let sandbox = Sandbox::new();
    let text = sandbox.znap_ok(&["demo", "a tour"]);
    assert!(text.contains("rm -r '"), "{text}");
    assert!(sandbox.file("a tour/.znap/catalog.db").exists());
    let output = sandbox.znap(&["demo", "a tour"]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("isn't empty") && output.stderr.contains("\nhint: "), "{output:?}");
}
