"""Opening FileStorages the way the tests want them: repeatable, quick, with what was logged."""

import contextlib
import hashlib
import importlib
import logging
import random
import time
from pathlib import Path

from persistent.TimeStamp import TimeStamp

from ZODB.FileStorage import FileStorage
from ZODB.scripts import fstest

# The package hides its own module behind the class of the same name.
fs_module = importlib.import_module("ZODB.FileStorage.FileStorage")

# A test's database need not survive a power failure, and an fsync per transaction is what takes the time.
fs_module.fsync = None

FIRST_TIME = 1704067200.0  # 2024-01-01T00:00:00Z


def timestamp(seconds):
    """The ZODB time stamp of a Unix time."""
    return TimeStamp(*(time.gmtime(seconds)[:5] + (seconds % 60,)))


class SteadyStorage(FileStorage):
    """A FileStorage whose transaction ids come from a seed, not from the clock."""

    def __init__(self, path, seed=0, start=None):
        self.clock = random.Random(f"clock {seed}")
        super().__init__(str(path))
        # A new storage takes the present as its last time.
        at = FIRST_TIME if self.getSize() == 4 else self._ts.timeTime()
        self._ts = timestamp(max(at, start or 0.0))

    def tpc_begin(self, transaction, tid=None, status=" "):
        if tid is None:
            at, step = self._ts.timeTime(), self.clock.uniform(0.5, 20.0)
            if at + step > time.time():
                # After a live writer: never into the future, of which ZODB warns.
                step /= 100_000
            tid = timestamp(at + step).laterThan(self._ts).raw()
        super().tpc_begin(transaction, tid, status)


class Capture(logging.Handler):
    """Keeps the warnings of ZODB's loggers."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


@contextlib.contextmanager
def captured():
    handler = Capture()
    names = ("ZODB", "zc.lockfile", "txn")
    for name in names:
        logging.getLogger(name).addHandler(handler)
    try:
        yield handler.lines
    finally:
        for name in names:
            logging.getLogger(name).removeHandler(handler)


@contextlib.contextmanager
def accepting(magic):
    """Lets ZODB 6, which knows FS30 only, read a file that ZODB 5 wrote under Python 2 (FS21)."""
    modules = (fs_module, fstest)
    before = [module.packed_version for module in modules]
    for module in modules:
        module.packed_version = magic
    try:
        yield
    finally:
        for module, value in zip(modules, before):
            module.packed_version = value


def magic_of(path):
    with open(path, "rb") as file:
        return file.read(4)


def accepting_what_is_in(path):
    return accepting(b"FS21" if magic_of(path) == b"FS21" else b"FS30")


def beside(path, suffix):
    """Data.fs -> Data.fs<suffix>"""
    return Path(f"{path}{suffix}")


def left_tails(path):
    """The Data.fs.trN that ZODB made, with their sizes."""
    path = Path(path)
    found = sorted(path.parent.glob(f"{path.name}.tr*"))
    return {file.name: file.stat().st_size for file in found}


def sha256_of(path):
    path = Path(path)
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def summary(storage, path):
    """What every command that wrote reports."""
    return {
        "path": str(path),
        "size": storage.getSize(),
        "objects": len(storage),
        "last_tid": storage.lastTransaction().hex(),
    }
