"""What this runs with: the virtual environment, the programs that are installed, the machine."""

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target"


def first_line(*command):
    """What a program says first, or None if it isn't there."""
    try:
        ended = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    except OSError:
        return None
    text = (ended.stdout or ended.stderr).strip()
    return text.splitlines()[0] if ended.returncode == 0 and text else None


def make_venv():
    """A virtual environment under `target/` with exactly what requirements.txt says; its Python."""
    pins = HERE / "requirements.txt"
    venv = TARGET / "versus" / "python"
    stamp = venv / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != pins.read_text():
        print("making the virtual environment", flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [venv / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
        subprocess.run([*pip, "-r", pins], check=True)
        if not shutil.which("borg"):
            # It may have to be compiled, which may fail: then there is none.
            if subprocess.run([*pip, "borgbackup==1.4.5"]).returncode:
                print("borg is not installed, and pip could not install it", flush=True)
        shutil.copyfile(pins, stamp)
    return venv / "bin" / "python"


def build_znap():
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", TARGET))
    return ROOT / target / "release" / "znap"


class Programs:
    """Where the programs are, and their versions."""

    def __init__(self, znap, work):
        self.here = HERE
        self.python = make_venv()
        self.znap = Path(znap).resolve() if znap else build_znap()
        self.borg = shutil.which("borg") or self.python.parent / "borg"
        self.strace = shutil.which("strace")
        self.versions = {name: version for name, version in self.find(work) if version}

    def find(self, work):
        commit = first_line("git", "-C", ROOT, "describe", "--always", "--dirty")
        version = first_line(self.znap, "--version")
        yield "znap", f"{version} ({commit})" if commit else version
        yield "znap2", "transcription of ost-znap2 1.0b"
        zodb = first_line(self.python, "-c", "import importlib.metadata as m; print(m.version('ZODB'))")
        yield "repozo", f"ZODB {zodb}"
        yield "restic", first_line("restic", "version")
        yield "borg", first_line(self.borg, "--version")
        yield "cp", first_line("cp", "--version")
        yield "reflink", "as cp" if has_reflink(work) else None
        yield "zstd", (first_line("zstd", "--version") or "").strip("* ").split(",")[0]
        yield "strace", first_line("strace", "-V")
        yield "python", platform.python_version()

    def missing(self):
        """What could be used, and isn't there, in words."""
        why = {
            "restic": "restic is not installed", "borg": "borg is not installed", "zstd": "zstd is not installed",
            "reflink": "the file system has no reflinks", "strace": "strace is not installed: syncs are not counted",
        }
        return [text for name, text in why.items() if name not in self.versions]


def has_reflink(work):
    Path(work).mkdir(parents=True, exist_ok=True)
    source, target = Path(work) / "reflink.a", Path(work) / "reflink.b"
    source.write_bytes(b"x" * 100_000)
    command = ["cp", "--reflink=always", source, target]
    works = subprocess.run(command, capture_output=True).returncode == 0
    for path in (source, target):
        path.unlink(missing_ok=True)
    return works


def machine(work):
    """What it ran on, as lines for the report."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    listed = subprocess.run(["df", "--output=fstype", str(work)], capture_output=True, text=True).stdout.split()
    return {
        "processor": cpu, "cores": str(len(os.sched_getaffinity(0))), "memory": f"{memory / 2**30:.0f} GiB",
        "file system": listed[-1] if listed else "unknown", "kernel": f"{platform.system()} {platform.release()}",
        "date": time.strftime("%Y-%m-%d"),
    }
