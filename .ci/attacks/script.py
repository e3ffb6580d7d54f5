"""The script that is attacked, a repository's life; and what has to be so after each of its commands was interrupted."""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from place import State, need

# What may be in a repository when no command is running.
ITS_FILES = {".gitignore", "catalog.db", "catalog.db-journal", "gate", "last-restore", "lock", "objects", "reserve"}
FENCE = b"ZNAP"


@dataclass
class Step:
    """A command, and all that is known about what was before and is to be after."""

    name: str
    words: tuple
    before: Path
    # The database and its index before and after, as ZODB made them.
    source: State
    target: State
    # The ids and kinds of the snapshots before and after; an undo's own id is of the time, and not among them.
    old: dict = field(default_factory=dict)
    new: dict = field(default_factory=dict)
    # What each of them holds.
    held: dict = field(default_factory=dict)
    # The other name of the database's file, if it has one.
    other: str | None = None
    # For what finishes a restore: the script's step that was interrupted.
    finishes: object = None


class Script:
    """Makes the steps, one after the other, and carries each out once."""

    def __init__(self, place, transactions):
        self.place = place
        self.world = place.folder()
        self.steps = []
        self.held = {}
        self.seed = 1
        place.grow(self.world, self.seed, transactions, command="make")

    def grow(self, transactions=6):
        self.seed += 1
        self.place.grow(self.world, self.seed, transactions)

    def step(self, *words, target=None, other=None):
        """The next command. It leads to the state of a snapshot, or to another one, or leaves the database alone."""
        place, before = self.place, self.place.copy(self.world)
        source = State.of(before)
        name = f"{len(self.steps) + 1} {' '.join(words)}"
        old = place.snapshots(self.world) if words[0] != "init" else {}
        if words[0] == "save":
            self.held[words[1]] = source
        target = self.held[target] if isinstance(target, str) else target or source
        place.znap_ok(self.world, *words)
        need(State.of(self.world) == target, name, "it did something else, even without an attack")
        new = place.snapshots(self.world)
        for snapshot in new.keys() - old.keys() - self.held.keys():
            need(new[snapshot] == "undo", name, f"there is a snapshot {snapshot}")
            self.held[snapshot] = source
        for snapshot in new:
            need(place.elsewhere(self.world, snapshot) == self.held[snapshot], name, f"{snapshot} is something else")
        new = {snapshot: kind for snapshot, kind in new.items() if snapshot in old or kind != "undo"}
        step = Step(name, words, before, source, target, old, new, dict(self.held), other)
        self.steps.append(step)
        return step


def script(place, transactions=40):
    """Every command at least once."""
    life = Script(place, transactions)
    life.step("init", "Data.fs")
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
    life.step("gc", "--all")
    return life.steps


def check(place, step, world):
    """After an interrupted command: what was before is there, or what was to be there; an unfinished restore can be finished
    either way; the command can be given again; and gc leaves nothing that the catalog doesn't name."""
    opened_by_zodb(place, step, world)
    if step.other:
        need((world / step.other).read_bytes() == step.source.data, "the database's other name leads to other bytes")
    if not (world / ".znap").exists():
        need(step.words[0] == "init", "the repository is gone")
        need(State.of(world) == step.source, "init changed the database")
        place.znap_ok(world, *step.words)
        return
    found = place.snapshots(world)
    lost = step.old.keys() & step.new.keys() - found.keys()
    need(not lost, f"P5: {', '.join(lost)} gone")
    right_snapshots(place, step, world, found)
    if (world / ".znap/restore-journal").exists():
        world = finished_both_ways(place, step, world)
    now = State.of(world)
    whole = [state for state in (step.source, step.target) if same(now, state)]
    need(whole, "P5: neither as before nor as after", now)
    again(place, step, world, found)
    need(State.of(world).data == step.target.data, "given again, it does something else")
    for _ in range(2):
        place.znap_ok(world, "gc")
    found = place.snapshots(world)
    need({each for each, kind in found.items() if each in step.old or kind != "undo"} == step.new.keys(), "P10", found)
    right_snapshots(place, step, world, found)
    nothing_unnamed(place, world)
    nothing_beside(world, step)
    shutil.rmtree(world)


def same(now, state):
    """Without an index ZODB reads all of the file, and is right."""
    return now.data == state.data and now.index in (None, state.index)


def opened_by_zodb(place, step, world):
    """ZODB refuses the database and leaves it alone, or sees exactly an earlier or a later state."""
    before = State.of(world)
    known = [(step.finishes or step).source, (step.finishes or step).target]
    for options in (["--read-only"], []):
        folder = place.folder()
        for name in ("Data.fs", "Data.fs.index"):
            if (world / name).exists():
                shutil.copyfile(world / name, folder / name)
        told = place.zodb.run("open", folder / "Data.fs", *options)
        if told["ok"]:
            need(any(same(before, state) for state in known), "P5: ZODB opens it", before, told)
            need(told["warnings"] == [], "ZODB warns", told)
        else:
            need(told["error"] == "FileStorageFormatError" and before.data[:4] == FENCE, "ZODB says something else", told)
            need(State.of(folder).index == before.index, "ZODB changed an index", told)
        need(State.of(folder).data == before.data and told["tails"] == {}, "ZODB changed it", told)
        shutil.rmtree(folder)


def right_snapshots(place, step, world, found):
    for snapshot in found:
        # What an attacked command saves by itself is what was there before.
        expected = step.held.get(snapshot, (step.finishes or step).source if found[snapshot] == "undo" else None)
        need(expected, f"there is a snapshot {snapshot}")
        need(place.elsewhere(world, snapshot) == expected, f"P6: {snapshot} comes back wrong")


def finished_both_ways(place, step, world):
    """An unfinished restore: others are refused; one copy is finished, the other taken back. Returns the one that is as it would
    be if the command had not been interrupted."""
    refused = place.znap(world, "save", "refused")
    need(refused.code == 1 and "unfinished" in refused.err and "--resume" in refused.err, "save isn't refused", refused)
    restore = step.finishes or step
    stage = json.loads((world / ".znap/restore-journal").read_text().splitlines()[0])["stage"]
    copy = place.copy(world)
    place.znap_ok(copy, "restore", "--resume")
    need(State.of(copy) == (restore.source if stage == "taken-back" else restore.target), "P5: --resume", stage, State.of(copy))
    nothing_beside(copy, step)
    other = place.copy(world)
    if stage == "restored":
        late = place.znap(other, "restore", "--abort")
        need(late.code == 1 and "too late" in late.err, "--abort when it is too late", late)
    else:
        place.znap_ok(other, "restore", "--abort")
        need(State.of(other) == restore.source, "P5: --abort", stage, State.of(other))
        nothing_beside(other, step)
    back = step.words[1:] == ("--abort",)
    shutil.rmtree(world)
    shutil.rmtree(copy if back else other)
    return other if back else copy


def nothing_beside(world, step):
    names = {path.name for path in world.iterdir()} - {"Data.fs", "Data.fs.index", "Data.fs.lock", "Data.fs.tmp", ".znap", step.other}
    # A killed init leaves a directory of its own, which is in nobody's way.
    names = {name for name in names if not name.startswith(".znap-init-")}
    need(not names, "left beside the database", names)
    left = {path.name for path in (world / ".znap").iterdir()} - ITS_FILES
    need(not left, "left in the repository", left)


def again(place, step, world, found):
    """Gives the command again, unless it was done."""
    words = step.words
    done = {
        "init": lambda: True,
        "save": lambda: words[1] in found,
        "delete": lambda: words[1] not in found,
        # An undo that was done would be undone.
        "undo": lambda: State.of(world).data == step.target.data,
    }.get(words[0], lambda: False)
    if not done():
        place.znap_ok(world, *words)


def nothing_unnamed(place, world):
    asked = place.run(["sqlite3", "-readonly", ".znap/catalog.db", "SELECT name FROM object_files"], world)
    need(asked.code == 0, "sqlite3", asked)
    unnamed = {path.name for path in (world / ".znap/objects").iterdir()} ^ set(asked.out.split())
    need(not unnamed, "P10: the catalog and the object files differ", unnamed)
