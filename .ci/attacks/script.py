"""The scripts that are attacked: the life of a repository, and shorter ones of repositories with two databases, and with blobs."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from place import BLOBS, State, need


@dataclass
class Step:
    """A command, and all that is known about what was before and is to be after."""

    name: str
    words: tuple
    before: Path
    # The databases before and after, as ZODB made them; and what an interrupted restore is taken back to.
    source: State
    target: State
    back: State
    # The ids and kinds of the snapshots before (that can be restored) and after; an undo's own id is of the time, and not among them.
    old: dict = field(default_factory=dict)
    new: dict = field(default_factory=dict)
    # What each of them holds.
    held: dict = field(default_factory=dict)
    # The other name of the database's file, if it has one.
    other: str | None = None
    # Whether the repository is damaged before.
    is_damaged: bool = False
    # What lies behind the last whole transaction of a database before a restore, which keeps it in a file beside.
    tail: bytes = b""
    # For what finishes a restore: the script's step that was interrupted.
    finishes: object = None


class Script:
    """Makes the steps, one after the other, and carries each out once."""

    def __init__(self, place, names, about="", transactions=40, options=()):
        self.place = place
        self.names = names
        self.about = about
        self.world = place.folder()
        self.steps = []
        self.held = {}
        self.old = {}
        self.seed = 0
        self.grow(transactions, command="make")
        self.step("init", *names, *options)

    def grow(self, transactions=6, command="grow"):
        self.seed += 1
        self.place.grow(self.world, self.seed, transactions, command=command, names=self.names)

    def step(self, *words, target=None, back=None, other=None, is_damaged=False, tail=b""):
        """The next command. It leads to the state of a snapshot, or to another one, or leaves the databases alone."""
        place, before, known = self.place, self.place.copy(self.world), set(self.held)
        source = State.of(before)
        name = f"{self.about}{len(self.steps) + 1} {' '.join(words)}"
        if words[0] == "save":
            self.held[words[1]] = source
        target, back = (self.held[state] if isinstance(state, str) else state or source for state in (target, back))
        place.znap_ok(self.world, *words)
        need(State.of(self.world) == target, name, "it did something else, even without an attack")
        found = place.snapshots(self.world)
        for snapshot in found.keys() - self.held.keys():
            need(found[snapshot] == "undo", name, f"there is a snapshot {snapshot}")
            self.held[snapshot] = back
        for snapshot in found:
            need(place.elsewhere(self.world, snapshot) == self.held[snapshot], name, f"{snapshot} is something else")
        new = {snapshot: kind for snapshot, kind in found.items() if snapshot in known or kind != "undo"}
        step = Step(name, words, before, source, target, back, self.old, new, dict(self.held), other, is_damaged, tail)
        self.steps.append(step)
        self.old = found
        return step

    def undo_snapshots(self):
        return sorted(snapshot for snapshot, kind in self.old.items() if kind == "undo")

    def repair(self, path):
        """Removes the catalog, or damages an object file, of which the databases still have all; and has it repaired."""
        expected = self.old
        if path.name == "catalog.db":
            path.unlink()
            self.old = {}
        else:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
            good = {snapshot for snapshot in expected if self.place.elsewhere(self.world, snapshot)}
            self.old = {snapshot: kind for snapshot, kind in expected.items() if snapshot in good}
            need(len(good) < len(expected), path, "isn't needed")
        step = self.step("repair", is_damaged=True)
        need(step.new == expected, step.name, "not all snapshots are there again", step.new)
        # What it set aside.
        shutil.rmtree(self.world / ".znap/damaged", ignore_errors=True)

    def restore_torn(self, snapshot):
        """Restores a database in which the length of a transaction is broken, with whole ones behind it. Its index is of before, as
        after a crash; so ZODB, and znap, take all behind for no transactions."""
        self.grow()
        whole = State.of(self.world)
        self.grow()
        (name,) = self.names
        path = self.world / name
        content = bytearray(path.read_bytes())
        content[len(whole[name].data) + 8] ^= 1
        path.write_bytes(content)
        Path(f"{path}.index").write_bytes(whole[name].index)
        tail = bytes(content[len(whole[name].data):])
        self.step("restore", snapshot, target=snapshot, back=whole, tail=tail)
        kept = self.world / f"{name}.tr0"
        need(kept.read_bytes() == tail, "what lay behind the last whole transaction isn't kept")
        kept.unlink()

    def object_file(self):
        """The largest."""
        return max((self.world / ".znap/objects").iterdir(), key=lambda path: path.stat().st_size)


class Site(Script):
    """The same with blobs; the database begins with so many megabytes, which are garbage for a pack."""

    def __init__(self, place, layout, mode, megabytes):
        self.layout = layout
        self.megabytes = megabytes
        super().__init__(place, ("Data.fs",), f"blobs ({layout}, {mode}), ", 3, ("--blobs", BLOBS, "--blobs-mode", mode))

    def grow(self, transactions=3, command="grow"):
        data = self.world / "Data.fs"
        if command == "make" and self.megabytes:
            self.place.zodb.run("make", data, "--seed", 1, "--mb", self.megabytes, "--profile", "mixed")
        self.seed += 1
        options = ["--seed", self.seed, "--transactions", transactions, "--size", 30_000, "--layout", self.layout]
        self.place.zodb.run("blobs", data, *options, "--undo")

    def pack(self):
        self.place.zodb.run("blobs-pack", self.world / "Data.fs")
        # What it leaves of before.
        (self.world / "Data.fs.old").unlink()
        shutil.rmtree(self.world / f"{BLOBS}.old", ignore_errors=True)


def scripts(place):
    return script(place) + two_databases(place) + linked_blobs(place) + copied_blobs(place)


def script(place):
    """Every command at least once."""
    life = Script(place, ("Data.fs",))
    life.step("save", "a")
    life.grow()
    life.step("save", "b")
    life.grow()
    before = State.of(life.world)
    life.step("restore", "a", target="a")
    life.step("undo", target=before)
    life.grow()
    life.step("save", "c")
    life.step("restore", "b", target="b")
    life.step("restore", "c", target="c")
    life.step("delete", "b")
    life.step("gc")
    life.grow()
    life.step("save", "d")
    os.link(life.world / "Data.fs", life.world / "other")
    life.step("restore", "a", target="a", other="other")
    (life.world / "other").unlink()
    life.step("undo", target="d")
    life.step("delete", "c")
    life.repair(life.world / ".znap/catalog.db")
    life.step("delete", *life.undo_snapshots())
    life.step("gc", "--all")
    life.repair(life.object_file())
    life.step("check", "--data")
    life.step("check", "--data", "--databases")
    # It stops after the first file, and remembers that.
    life.step("check", "--data", "--for", "0s")
    life.grow()
    life.step("restore", "a", "--discard", target="a", back="d")
    life.restore_torn("d")
    return life.steps


def two_databases(place):
    """Both come back together, or none."""
    life = Script(place, ("main.fs", "catalog.fs"), about="two databases, ", transactions=30)
    life.step("save", "a")
    life.grow()
    life.step("save", "b")
    life.grow()
    before = State.of(life.world)
    life.step("restore", "a", target="a")
    life.step("undo", target=before)
    life.step("check", "--data", "--databases")
    return life.steps


def linked_blobs(place):
    """Forward, backward and over a pack. The database is so small that it is kept whole."""
    life = Site(place, "bushy", "link", 0)
    life.step("save", "a")
    life.grow()
    life.step("save", "b")
    life.pack()
    life.step("save", "c")
    life.grow()
    before = State.of(life.world)
    life.step("restore", "a", target="a")
    life.step("undo", target=before)
    life.step("delete", "b")
    life.step("gc")
    return life.steps


def copied_blobs(place):
    """A second name of the database is all that is left of before the pack."""
    life = Site(place, "lawn", "copy", 2)
    life.grow()
    life.step("save", "a")
    life.pack()
    life.step("save", "b")
    life.grow()
    life.step("restore", "a", target="a")
    return life.steps
