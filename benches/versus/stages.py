"""The generated databases, and the working copy that is moved from stage to stage as a running ZODB would do it."""

import bisect
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
PIECE = 1 << 20


class Database:
    """A generated database: the file as it is at the end, and its length and index at each stage."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.path = self.directory / "Data.fs"
        document = json.loads((self.directory / "stages.json").read_text())
        self.kind = document["kind"]
        self.lengths = {stage["name"]: stage["length"] for stage in document["stages"]}
        self.objects = {stage["name"]: stage["objects"] for stage in document["stages"]}
        # Those that are saved: the base and what follows.
        self.names = [name for name in self.lengths if name != "tiny"]
        self.last = self.names[-1]

    def index(self, stage):
        return self.directory / f"{stage}.index"

    def grown(self, stage):
        """The stretch of bytes that is new in this stage."""
        before = self.names[self.names.index(stage) - 1]
        return self.lengths[before], self.lengths[stage]

    def about(self, megabytes):
        """The stage that grows by nearest to so much."""
        def distance(stage):
            begin, end = self.grown(stage)
            return abs(end - begin - megabytes * 1_000_000)
        return min(self.names[1:], key=distance)

    def extract(self, begin, end, path):
        """These bytes as a file."""
        with open(self.path, "rb") as source, open(path, "wb") as target:
            copy_range(source, target, begin, end)

    def boundaries(self, begin, end):
        """Where transactions end, from one end to another."""
        ends = []
        with open(self.path, "rb") as file:
            while begin < end:
                file.seek(begin + 8)
                begin += struct.unpack(">Q", file.read(8))[0] + 8
                ends.append(begin)
        assert ends[-1] == end
        return ends

    def cuts(self, begin, end, size):
        """Boundaries of transactions, each at least so many bytes behind the last."""
        chosen, boundaries = [], self.boundaries(begin, end)
        at = begin
        while (number := bisect.bisect_left(boundaries, at + size)) < len(boundaries):
            at = boundaries[number]
            chosen.append(at)
        return chosen

    def window(self, number, total):
        """So many transactions in succession that come nearest to so many bytes: where they begin, and each ends."""
        base = self.lengths["s00"]
        ends = [base, *self.boundaries(base, self.lengths[self.last])]
        windows = [ends[at:at + number + 1] for at in range(len(ends) - number)]
        return min(windows, key=lambda window: abs(window[-1] - window[0] - total))


class Working:
    """The database that tools save and restore: bytes are appended in place, the index is renamed into place."""

    def __init__(self, database, directory):
        self.database = database
        self.directory = Path(directory)
        self.path = self.directory / "Data.fs"
        self.index = self.directory / "Data.fs.index"
        self.directory.mkdir(parents=True)
        self.path.touch()

    def put(self, stage):
        """Makes it what it is at a stage. The bytes that are there are known to be right."""
        self.put_length(self.database.lengths[stage])
        self.put_index(stage)

    def put_length(self, length):
        """Only the file, as between two times that ZODB writes an index."""
        size = self.path.stat().st_size
        if size > length:
            os.truncate(self.path, length)
        elif size < length:
            with open(self.database.path, "rb") as source, open(self.path, "ab") as target:
                copy_range(source, target, size, length)
        settle(self.path)

    def put_index(self, stage):
        partial = self.directory / "Data.fs.index.new"
        shutil.copyfile(self.database.index(stage), partial)
        os.rename(partial, self.index)

    def make_again(self, stage):
        """After something has gone wrong with it."""
        self.path.unlink(missing_ok=True)
        self.path.touch()
        self.put(stage)

    def warm(self):
        """Reads it, so that it is in the page cache; and writes out what is waiting to be."""
        settle(self.path, self.index)
        for path in (self.path, self.index):
            if path.exists():
                read_all(path)


def settle(*paths):
    """Writes out what was put into these files."""
    for path in paths:
        if path.exists():
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def read_all(path):
    buffer = bytearray(PIECE)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def copy_range(source, target, begin, end):
    source.seek(begin)
    while begin < end:
        data = source.read(min(PIECE, end - begin))
        target.write(data)
        begin += len(data)


def difference(path, master, length):
    """Where this file differs from the first bytes of the other, in words; None if it doesn't."""
    if not path.exists():
        return f"{path.name} is missing"
    if path.stat().st_size != length:
        return f"{path.name} has {path.stat().st_size} bytes, not {length}"
    with open(path, "rb") as left, open(master, "rb") as right:
        for at in range(0, length, PIECE):
            size = min(PIECE, length - at)
            if left.read(size) != right.read(size):
                return f"{path.name} differs between {at} and {at + size}"
    return None


def check(directory, database, stage, with_index=True):
    """Compares a restored database with the generated one, byte by byte; what differs, in words, or None."""
    found = difference(directory / "Data.fs", database.path, database.lengths[stage])
    if not found and with_index:
        index = database.index(stage)
        found = difference(directory / "Data.fs.index", index, index.stat().st_size)
    return found


def ensure(kind, python, directory):
    """The database of this kind, made if it isn't there or was made by another generator."""
    target = Path(directory) / kind
    stamp = target / "stages.json"
    generator = next(
        int(line.split("=")[1]) for line in (HERE / "database.py").read_text().splitlines()
        if line.startswith("GENERATOR")
    )
    if not stamp.exists() or json.loads(stamp.read_text())["generator"] != generator:
        print(f"making the database {kind}", flush=True)
        subprocess.run(
            [python, HERE / "database.py", kind, target], check=True, env={**os.environ, "PYTHONHASHSEED": "0"}
        )
    return Database(target)
