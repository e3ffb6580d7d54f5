//! The help, and the page that says the same.

use crate::site::Site;

const COMMANDS: [&str; 17] = [
    "init", "save", "list", "show", "status", "log", "restore", "export", "import", "delete", "gc", "check", "repair",
    "track", "untrack", "base", "demo",
];

#[test]
fn every_command_explains_itself() {
    let site = Site::new();
    let page = include_str!("../../docs/cli.md");
    for command in COMMANDS {
        let help = site.znap_ok(&[command, "--help"]);
        assert!(help.contains("Example"), "{help}");
        assert!(help.contains(&format!("znap {command}")), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        assert!(page.contains(&format!("\n## {command}\n")), "{command} is not in docs/cli.md");
        for word in help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            if word.starts_with("--") && word != "--help" {
                assert!(page.contains(word), "{word} is not in docs/cli.md");
            }
        }
    }
}

#[test]
fn exit_codes_and_variables_are_documented() {
    let site = Site::new();
    let help = site.znap_ok(&["--help"]);
    let page = include_str!("../../docs/cli.md");
    for code in ["0", "1", "2", "3", "4", "5", "6"] {
        assert!(help.contains(&format!("\n  {code}  ")) && page.contains(&format!("\n| {code} | ")), "{code}");
    }
    for word in ["129, 130, 143", "ZNAP_DIR", "ZNAP_TRUST", "NO_COLOR"] {
        assert!(help.contains(word) && page.contains(word), "{word}");
    }
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
    }
    assert!(site.znap_ok(&["--version"]).starts_with("znap "));
}
