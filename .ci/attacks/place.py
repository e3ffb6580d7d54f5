"""Where attacks take place: a directory to work in, znap, real ZODB, and folders with a database in them."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


class Failure(Exception):
    """Something was wrong, in this step."""

    step = ""

    def at(self, step, moment):
        """The same, and where it was."""
        failure = Failure(f"{step}, {moment}: {self}")
        failure.step = step
        return failure


def need(condition, *words):
    """Refuses to go on unless it is so."""
    if not condition:
        raise Failure(": ".join(str(word) for word in words))


@dataclass
class Result:
    """How a run of a program ended. The code is 128 and its number where a signal ended it."""

    code: int
    out: str
    err: str

    def __str__(self):
        return f"code {self.code}\n{self.out}{self.err}".rstrip()


# What a half restored database begins with, instead of its own first bytes.
FENCE = b"ZNAP"


@dataclass(frozen=True)
class Database:
    """A database's file, its index if it has one, and the files in its blob directory with their modes."""

    data: bytes
    index: bytes | None
    blobs: dict

    def is_fenced(self):
        return self.data.startswith(FENCE)

    def opens_as(self, other):
        """Whether it is what ZODB would take for the other one: blobs that nothing names are no matter to it."""
        same = (self.data, self.index) == (other.data, other.index)
        return same and all(self.blobs.get(name) == blob for name, blob in other.blobs.items())

    def __repr__(self):
        index = "no index" if self.index is None else f"an index of {len(self.index)} bytes"
        return f"a file of {len(self.data)} bytes beginning with {self.data[:4]}, {index}, and {len(self.blobs)} blobs"


class State(dict):
    """The databases in a folder and its subfolders, by the names of their files."""

    @classmethod
    def of(cls, folder):
        found = {path.name: path for path in sorted(Path(folder).rglob("*.fs"))}
        of = lambda path: Database(path.read_bytes(), read(f"{path}.index"), blobs_in(path.parent / BLOBS))
        return cls((name, of(path)) for name, path in found.items())

    def is_fenced(self):
        return any(database.is_fenced() for database in self.values())


# The blob directory of a database, beside it; and what a restore makes in there, which is nobody's until the next one.
BLOBS = "blobstorage"
PREPARED = ".znap-restore"


def blobs_in(folder):
    """Modes and contents of the files in a blob directory, which says how it is laid out if there are any."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    blobs = {name: path for name, path in files.items() if name.parts[0] != PREPARED and not name.name.startswith(".")}
    if blobs:
        blobs |= {name: path for name, path in files.items() if str(name) == ".layout"}
        need(len(blobs) > 1 and (folder / ".layout").exists(), "P4: the blob directory doesn't say how it is laid out")
    return {name: (path.stat().st_mode, path.read_bytes()) for name, path in blobs.items()}


def read(path):
    return Path(path).read_bytes() if Path(path).exists() else None


class Place:
    """A temporary directory and the program under attack."""

    def __init__(self, root, program):
        self.root = root
        self.program = program
        self.zodb = None
        self.number = 0
        self.kept = False

    def folder(self):
        """A new, empty folder."""
        self.number += 1
        folder = self.root / str(self.number)
        folder.mkdir()
        return folder

    def copy(self, source):
        """The same in another folder, hard links included."""
        folder = self.folder()
        copy_into(source, folder)
        return folder

    def run(self, command, folder, **more):
        """Runs a command in a folder and an environment that is the same everywhere."""
        environment = {"PATH": os.environ["PATH"], "TZ": "UTC", "NO_COLOR": "1", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(
                [str(word) for word in command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, errors="replace", timeout=120, **more,
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"{command} takes more than two minutes") from None
        code = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return Result(code, done.stdout, done.stderr)

    def znap(self, folder, *words, **more):
        return self.run([self.program, *words], folder, **more)

    def znap_ok(self, folder, *words):
        result = self.znap(folder, *words)
        need(result.code == 0, f"znap {' '.join(map(str, words))} failed", result)
        return result.out

    def snapshots(self, folder):
        """The ids and kinds of all snapshots."""
        return {entry["id"]: entry["kind"] for entry in json.loads(self.znap_ok(folder, "list", "--json"))}

    def elsewhere(self, folder, snapshot):
        """What a snapshot holds, written to another folder; nothing, if it is damaged."""
        to = self.folder()
        result = self.znap(folder, "restore", snapshot, "--to", to)
        need(result.code in (0, 3), f"{snapshot} doesn't come back", result)
        state = State.of(to) if result.code == 0 else None
        shutil.rmtree(to)
        return state

    def grow(self, folder, seed, transactions, profile="small", command="grow", names=("Data.fs",)):
        """Real ZODB commits some more transactions to each database."""
        for number, name in enumerate(names):
            options = ["--seed", seed + 100 * number, "--transactions", transactions, "--profile", profile]
            self.zodb.run(command, folder / name, *options)

    def keep(self):
        self.kept = True
        return self.root


@contextlib.contextmanager
def work_in(program):
    """Makes the directory and removes it at the end, unless it is to be kept."""
    place = Place(Path(tempfile.mkdtemp(prefix="znap-attack-")), program)
    try:
        yield place
    finally:
        if place.zodb:
            place.zodb.stop()
        if not place.kept:
            shutil.rmtree(place.root, ignore_errors=True)


def copy_into(source, folder):
    subprocess.run(["cp", "-a", f"{source}/.", str(folder)], check=True)


class Zodb:
    """A process that answers many questions: tests/python/zodb_tool.py."""

    def __init__(self, python, tool):
        self.process = subprocess.Popen(
            [str(python), "-B", str(tool), "serve"], env={"PATH": os.environ["PATH"], "TZ": "UTC"}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )

    def run(self, *words):
        self.process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        need("error" not in answer, f"ZODB: {words}", answer.get("error"))
        return answer["ok"]

    def stop(self):
        self.process.stdin.close()
        self.process.wait()
