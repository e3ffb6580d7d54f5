"""Makes the databases that are compared on, with real ZODB, repeatable by their seed.

    python database.py KIND DIRECTORY

The directory then has Data.fs as it is at the end, the index that ZODB wrote at each stage (`NAME.index`),
and `stages.json`: how long the file was at each. Runs in the environment of `requirements.txt`.
"""

import json
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests" / "python"))

from buckets import Buckets  # noqa: E402
from buckets import Reopen  # noqa: E402
from storage import SteadyStorage  # noqa: E402
from website import Website  # noqa: E402
from zc.zlibstorage import ZlibStorage  # noqa: E402

# Raise it with any change to what is made: databases of another one are made again.
GENERATOR = 1
SEED = 20261120

# How many megabytes the file has at first, and by how many it grows in each stage. "tiny" is the beginning of a
# database, small enough for `znap init` to take nothing for granted.
KINDS = {
    "500mb": {
        "content": Website, "zlib": False, "tiny": 0.5, "base": 280,
        "stages": (8.5, 15, 5.5, 20, 30, 22, 25, 10, 18, 12.5, 9.5, 15),
    },
    "zlib": {"content": Website, "zlib": True, "tiny": 0.5, "base": 150, "stages": (6, 12, 4, 9, 15, 8)},
    "4gb": {
        "content": Buckets, "zlib": False, "tiny": None, "base": 3000,
        "stages": (22.4, 41.2, 60, 80.1, 122.7, 166.2, 222.6, 303.1),
    },
}


def lengths(plan):
    """The name of each stage and how long the file is to be, in bytes."""
    total = plan["base"]
    if plan["tiny"]:
        yield "tiny", int(plan["tiny"] * 1_000_000)
    yield "s00", int(total * 1_000_000)
    for number, size in enumerate(plan["stages"], 1):
        total += size
        yield f"s{number:02d}", int(total * 1_000_000)


def make(kind, directory):
    plan = KINDS[kind]
    content = plan["content"](SEED)
    path = directory / "Data.fs"
    stages = []
    begun = time.monotonic()
    for stage, length in lengths(plan):
        while True:
            storage = SteadyStorage(path, f"{SEED} {stage}")
            outer = ZlibStorage(storage) if plan["zlib"] else storage
            try:
                content.open(outer, stage)
                break
            except Reopen:
                continue
        content.work_until(length)
        objects = len(storage)
        # ZODB writes its index when it is closed.
        content.close()
        shutil.copyfile(f"{path}.index", directory / f"{stage}.index")
        stages.append({"name": stage, "length": path.stat().st_size, "objects": objects})
        print(f"{kind}: {stage} at {path.stat().st_size / 1e6:.1f} MB, {objects} objects, "
              f"{time.monotonic() - begun:.0f} s", flush=True)
    for suffix in (".index", ".lock", ".tmp"):
        Path(f"{path}{suffix}").unlink()
    packages = {name: version(name) for name in ("ZODB", "BTrees", "persistent", "zc.zlibstorage")}
    document = {"kind": kind, "generator": GENERATOR, "seed": SEED, "packages": packages, "stages": stages}
    (directory / "stages.json").write_text(json.dumps(document, indent=2) + "\n")


def main():
    kind, directory = sys.argv[1], Path(sys.argv[2])
    partial = directory.with_name(f"{directory.name}.partial")
    for leftover in (partial, directory):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    make(kind, partial)
    partial.rename(directory)


if __name__ == "__main__":
    main()
