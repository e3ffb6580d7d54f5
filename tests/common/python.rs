//! The virtual environment with real ZODB.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Written last into a finished environment: one without it was interrupted, and is made again.
const MARKER: &str = "complete";

/// The interpreter of a virtual environment that has exactly what `tests/python/requirements.txt` says.
///
/// The first use ever makes it, in the target directory: that needs `python3` (3.10 or newer) with its `venv` module,
/// and pip must reach a package index.
pub fn python() -> PathBuf {
    // A failure too: or each test would wait for pip again.
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(make) {
        Ok(python) => python.clone(),
        Err(error) => panic!("{error}"),
    }
}

/// A file in `tests/python`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name)
}

fn make() -> Result<PathBuf, String> {
    let list = script("requirements.txt");
    let pins = fs::read(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let hash = blake3::hash(&pins).to_hex();
    // `CARGO_TARGET_TMPDIR` is `tmp` in the target directory.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target directory");
    let venv = target.join(format!("python-{}", &hash[..16]));
    let python = venv.join("bin/python");

    // Cargo may run several test binaries at once, each with several threads.
    let guard = target.join(format!("python-{}.lock", &hash[..16]));
    let guard = File::create(&guard).map_err(|error| format!("{}: {error}", guard.display()))?;
    guard.lock().map_err(|error| format!("cannot lock the tests' Python: {error}"))?;
    if venv.join(MARKER).exists() && python.exists() {
        return Ok(python);
    }
    if venv.exists() {
        fs::remove_dir_all(&venv).map_err(|error| format!("{}: {error}", venv.display()))?;
    }
    run(
        Command::new("python3").args(["-m", "venv"]).arg(&venv),
        "The tests compare znap with real ZODB, and need python3 (3.10 or newer) with its venv module \
         (on Debian and Ubuntu: apt install python3 python3-venv)",
    )?;
    run(
        Command::new(&python)
            .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--requirement"])
            .arg(&list),
        "The tests compare znap with real ZODB, which pip could not install; \
         it needs a package index (PIP_INDEX_URL names another one) and Python 3.10 or newer",
    )?;
    fs::write(venv.join(MARKER), "").map_err(|error| format!("{}: {error}", venv.display()))?;
    Ok(python)
}

fn run(command: &mut Command, help: &str) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{help}.\n{command:?} ended with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Err(format!("{help}.\n{command:?}: {error}")),
    }
}
