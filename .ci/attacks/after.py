"""What has to be so after a command was attacked, whatever was done to it."""

import json
import re
import shutil

from place import BLOBS, PREPARED, State, need

# What may be in a repository when no command is running.
ITS_FILES = {
    ".gitignore", "bases", "catalog.db", "catalog.db-journal", "check-progress", "gate", "last-restore", "lock", "objects", "reserve",
    "side-by-side",
}

# A save that is done, but for what older snapshots need of the file before a pack: its second name stays, and the next save tries again.
LEFT_BASE = 6
NO_BASE = "what snapshots need of a file's beginning could not be stored"

# What lay behind the last whole transaction of a database, as ZODB names it.
TAIL = re.compile(r".*\.fs\.tr\d+")


def check(place, step, world):
    """What was before is there, or what was to be there; an unfinished restore can be finished either way; the command can be given
    again; and gc leaves nothing that the catalog doesn't name."""
    tail_is_kept(step, world)
    opened_by_zodb(place, step, world)
    if step.other:
        (source,) = step.source.values()
        need((world / step.other).read_bytes() == source.data, "the database's other name leads to other bytes")
    if not (world / ".znap").exists():
        need(step.words[0] == "init", "the repository is gone")
        need(State.of(world) == step.source, "init changed the database")
        place.znap_ok(world, *step.words)
        return
    found = snapshots(place, step, world)
    lost = step.old.keys() & step.new.keys() - found.keys()
    need(not lost, f"P5: {', '.join(lost)} gone")
    right_snapshots(place, step, world, found)
    if step.words[0] == "check":
        need(repository(world) == repository(step.before), "check changed the repository")
    if not step.is_damaged:
        place.znap_ok(world, "check", "--data")
    if journal(world):
        world = finished_both_ways(place, step, world)
    now = State.of(world)
    need(now in (step.source, step.target), "P5: neither as before nor as after", now)
    again(place, step, world, found)
    need(State.of(world) == step.target, "given again, it does something else", State.of(world))
    right_snapshots(place, step, world, place.snapshots(world), is_damaged=False)
    for _ in range(2):
        place.znap_ok(world, "gc")
    found = place.snapshots(world)
    right_ones(step, found, "P10")
    right_snapshots(place, step, world, found, is_damaged=False)
    place.znap_ok(world, "check", "--data")
    need(not unnamed(place, world), "P10: the catalog and the object files differ", unnamed(place, world))
    nothing_beside(world, step)
    shutil.rmtree(world)


def done(place, step, world):
    """After success: all that the command is to do is done."""
    need(State.of(world) == step.target and not journal(world), "it says it is done: the databases", State.of(world))
    found = place.snapshots(world)
    right_ones(step, found, "it says it is done: the snapshots")
    right_snapshots(place, step, world, found, is_damaged=False)


def failed(step, world):
    """After an error: a restore that didn't begin has left nothing beside the database."""
    if step.tail and not journal(world) and State.of(world) == step.source:
        need(not tails(world), "it failed and left", tails(world).keys())


def right_ones(step, found, when):
    """There are the snapshots that are to be there after a command; and one more if a restore had to save what was there before."""
    restore = step.finishes or step
    more = {each for each, kind in found.items() if kind == "undo"} - restore.old.keys() - restore.new.keys()
    need(found.keys() - more == step.new.keys() - more, when, found)
    is_held = restore.back in (restore.held[each] for each in restore.old)
    is_saved = restore.words[0] in ("restore", "undo") and "--discard" not in restore.words and not is_held
    need(len(more) == is_saved, when, "P5: what was there before", found)


def tail_is_kept(step, world):
    """What lay behind the last whole transaction is beside the database, once that may have been cut."""
    restore = step.finishes or step
    if restore.tail and (journal(world) or State.of(world) != restore.source):
        kept = tails(world)
        need(restore.tail in kept.values(), "P5: what lay behind the last whole transaction is gone", kept.keys())


def tails(world):
    return {path.name: path.read_bytes() for path in world.iterdir() if TAIL.fullmatch(path.name)}


def journal(world):
    """How far an unfinished restore has come, if there is one."""
    path = world / ".znap/restore-journal"
    return json.loads(path.read_text().splitlines()[0])["stage"] if path.exists() else None


def repository(world):
    """What is in all files of the repository, but for where a check goes on."""
    root = world / ".znap"
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith("check-progress")]
    return {path.relative_to(root): path.read_bytes() for path in files}


def snapshots(place, step, world):
    """Those that the catalog tells, if there is one: the repair of a repository without was interrupted, perhaps."""
    if step.is_damaged and not step.old:
        result = place.znap(world, "list")
        if result.code == 3:
            need("znap repair" in result.err, "it doesn't say what to do", result)
            return {}
    return place.snapshots(world)


def opened_by_zodb(place, step, world):
    """ZODB refuses a database and leaves it alone, or sees exactly an earlier or a later state: of all of them the same."""
    restore = step.finishes or step
    now = State.of(world)
    # What a crash left behind the last whole transaction ZODB cuts off.
    is_torn = lambda name: restore.tail and now[name] == restore.source[name]
    opened = {name for name in now if is_torn(name) or opens(place, world, name, now[name])}
    states = {
        None: [step.source, step.target],
        "writing": [restore.source],
        "restored": [restore.target],
        "taken-back": [restore.source, restore.back],
    }[journal(world)]
    need(now.keys() == restore.source.keys(), "P5: databases are gone", now)
    need(opened == now.keys() or journal(world), "P5: a database is fenced, and no restore is unfinished", now)
    whole = any(all(now[name].opens_as(state[name]) for name in opened) for state in states)
    need(whole, "P5: ZODB opens it", journal(world), now)


def opens(place, world, name, before):
    """Whether real ZODB opens a copy of a database, read-only and for writing: the same in both, and without a warning."""
    answers = set()
    for options in (["--read-only"], []):
        folder = place.folder()
        for each in (name, f"{name}.index"):
            if (world / each).exists():
                shutil.copyfile(world / each, folder / each)
        told = place.zodb.run("open", folder / name, *options)
        if told["ok"]:
            need(told["warnings"] == [], "ZODB warns", told)
            if before.blobs:
                shutil.copytree(world / BLOBS, folder / BLOBS)
                place.zodb.run("blobs-check", folder / name)
        else:
            need(told["error"] == "FileStorageFormatError" and before.is_fenced(), "ZODB says something else", told)
            need(State.of(folder)[name].index == before.index, "ZODB changed an index", told)
        need(State.of(folder)[name].data == before.data and told["tails"] == {}, "ZODB changed it", told)
        answers.add(told["ok"])
        shutil.rmtree(folder)
    need(len(answers) == 1, "ZODB opens it in one way only")
    return answers.pop()


def right_snapshots(place, step, world, found, is_damaged=None):
    """Every snapshot comes back, but for those that were damaged before, as long as that isn't repaired."""
    is_damaged = step.is_damaged if is_damaged is None else is_damaged
    for snapshot in found:
        # What an attacked command saves by itself is what was there before.
        holds = step.held.get(snapshot, (step.finishes or step).back if found[snapshot] == "undo" else None)
        need(holds, f"there is a snapshot {snapshot}")
        state = place.elsewhere(world, snapshot)
        may_fail = is_damaged and snapshot not in step.old
        need(state == holds or (state is None and may_fail), f"P6: {snapshot} comes back wrong")


def finished_both_ways(place, step, world):
    """An unfinished restore: others are refused; one copy is finished, the other taken back. Returns the one that is as it would
    be if the command had not been interrupted."""
    refused = place.znap(world, "save", "refused")
    need(refused.code == 1 and "unfinished" in refused.err and "--resume" in refused.err, "save isn't refused", refused)
    restore = step.finishes or step
    stage = journal(world)
    # What was dropped is still there only if nothing was changed.
    taken_back = (restore.source, restore.back)
    copy = place.copy(world)
    place.znap_ok(copy, "restore", "--resume")
    ends = taken_back if stage == "taken-back" else (restore.target,)
    need(State.of(copy) in ends, "P5: --resume", stage, State.of(copy))
    nothing_beside(copy, step)
    other = place.copy(world)
    if stage == "restored":
        late = place.znap(other, "restore", "--abort")
        need(late.code == 1 and "too late" in late.err, "--abort when it is too late", late)
    else:
        place.znap_ok(other, "restore", "--abort")
        need(State.of(other) in taken_back, "P5: --abort", stage, State.of(other))
        nothing_beside(other, step)
    back = step.words[1:] == ("--abort",)
    shutil.rmtree(world)
    shutil.rmtree(copy if back else other)
    return other if back else copy


def nothing_beside(world, step):
    beside = {f"{name}{end}" for name in step.source for end in ("", ".index", ".lock", ".tmp")}
    names = {path.name for path in world.iterdir()} - beside - {".znap", step.other, BLOBS}
    names |= {PREPARED} if (world / BLOBS / PREPARED).exists() else set()
    # A killed init leaves a directory of its own, which is in nobody's way.
    names = {name for name in names if not name.startswith(".znap-init-")}
    if (step.finishes or step).tail:
        tail_is_kept(step, world)
        names = {name for name in names if not TAIL.fullmatch(name)}
    need(not names, "left beside the database", names)
    left = {path.name for path in (world / ".znap").iterdir()} - ITS_FILES
    if step.is_damaged:
        # What repair replaced, which is kept.
        left = {name for name in left if name != "damaged" and not name.startswith("catalog.db.damaged-")}
    need(not left, "left in the repository", left)


def again(place, step, world, found):
    """Gives the command again, unless it was done."""
    words = step.words
    is_done = {
        "init": lambda: True,
        "save": lambda: words[1] in found,
        "delete": lambda: words[1] not in found,
        # An undo that was done would be undone.
        "undo": lambda: State.of(world) == step.target,
    }.get(words[0], lambda: False)
    if not is_done():
        place.znap_ok(world, *words)


def unnamed(place, world):
    """Object files of which the catalog doesn't know, and those that are missing."""
    asked = place.run(["sqlite3", "-readonly", ".znap/catalog.db", "SELECT name FROM object_files"], world)
    need(asked.code == 0, "sqlite3", asked)
    files = {path.name for path in (world / ".znap/objects").rglob("*") if not path.is_dir()}
    return files ^ set(asked.out.split())
