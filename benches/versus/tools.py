"""What all tools have in common, and those that copy and compress files."""

import shutil
from pathlib import Path

from measure import Cost
from measure import run


class Tool:
    """One tool with one repository of its own; every operation returns what it cost."""

    name = ""
    # Whether what it wrote has been synced when it ends. What is said about it in the report.
    synced = "yes"
    # What it can do besides saving.
    can_restore = can_restore_to = can_delete = can_collect = True
    restores_index = True

    def __init__(self, programs, directory, working):
        self.programs = programs
        self.working = working
        self.root = Path(directory) / self.name
        self.repository = self.root / "repository"
        self.copy = self.root.with_name(f"{self.name}.before")
        self.env = {}

    @classmethod
    def version(cls, programs):
        """The version, if the tool is there; None if it isn't."""
        return programs.versions.get(cls.name)

    def prepare(self):
        """Makes room for the repository; nothing that is measured."""
        self.clean()
        self.root.mkdir(parents=True)

    def start(self):
        """Begins a repository for the database as it is now."""
        self.repository.mkdir()
        return Cost()

    def save(self, name):
        raise NotImplementedError

    def restore(self, name):
        """In place."""
        raise NotImplementedError

    def restore_to(self, name, target):
        """To a new directory; where the files then are is said by `restored()`."""
        raise NotImplementedError

    def restored(self, target):
        return target

    def delete(self, names):
        """And give back the space."""
        raise NotImplementedError

    def collect(self):
        """Give back what nothing uses."""
        raise NotImplementedError

    def size(self):
        """All files of the repository, in bytes."""
        return sum(path.stat().st_size for path in self.repository.rglob("*") if path.is_file())

    def checkpoint(self):
        """Remembers the repository, and what else the tool keeps, as they are now."""
        shutil.rmtree(self.copy, ignore_errors=True)
        run(["cp", "-a", "--reflink=auto", "-T", self.root, self.copy], "/")

    def rollback(self):
        """Back to that. The remembered one stays."""
        shutil.rmtree(self.root)
        run(["cp", "-a", "--reflink=auto", "-T", self.copy, self.root], "/")

    def forget_checkpoint(self):
        shutil.rmtree(self.copy, ignore_errors=True)

    def clean(self):
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.copy, ignore_errors=True)


class Znap(Tool):
    """In a repository whose base is the file as it was when the repository began."""

    name = "znap"

    def __init__(self, programs, directory, working):
        super().__init__(programs, directory, working)
        self.repository = self.root / ".znap"

    def znap(self, *arguments):
        return run([self.programs.znap, "-q", *arguments], self.root)

    def start(self):
        return self.znap("init", Path("..", self.working.directory.name, "Data.fs"))

    def save(self, name):
        return self.znap("save", name)

    def restore(self, name):
        return self.znap("restore", name)

    def restore_to(self, name, target):
        return self.znap("restore", name, "--to", target)

    def restored(self, target):
        return target / "data"

    def delete(self, names):
        return self.znap("delete", *names) + self.collect()

    def collect(self):
        return self.znap("gc")


class ZnapWhole(Znap):
    """In a repository that was begun when the database was tiny, so that it holds everything."""

    name = "znap_whole"

    @classmethod
    def version(cls, programs):
        return programs.versions.get("znap")


class Snapshots(Tool):
    """A directory for each snapshot, and nothing that they share: undone by removing it."""

    can_collect = False

    def checkpoint(self):
        self.kept = {path.name for path in self.repository.iterdir()}

    def rollback(self):
        for path in self.repository.iterdir():
            if path.name not in self.kept:
                shutil.rmtree(path)

    def delete(self, names):
        return run(["rm", "-r", *(self.repository / name for name in names)], self.root)


class Znap2(Snapshots):
    """Knows only databases in the current directory, so there are links to them."""

    name = "znap2"
    synced = "no"
    can_restore_to = False

    def __init__(self, programs, directory, working):
        super().__init__(programs, directory, working)
        self.repository = self.root / ".znap2"

    def prepare(self):
        super().prepare()
        for path in (self.working.path, self.working.index):
            (self.root / path.name).symlink_to(Path("..", self.working.directory.name, path.name))

    def znap2(self, *arguments):
        return run([self.programs.python, "-I", self.programs.here.parents[1] / "tests/python/znap2.py", *arguments], self.root)

    def start(self):
        return self.znap2("init", "Data.fs")

    def save(self, name):
        return self.znap2("save", name)

    def restore(self, name):
        return self.znap2("restore", name)

    def delete(self, names):
        return sum((self.znap2("delete", name) for name in names), Cost())


class Cp(Snapshots):
    """A copy of the two files for each snapshot, synced; what it takes without the sync is measured, too."""

    name = "cp"
    synced = "by `sync`, counted"
    reflink = "never"
    # How many snapshots are really kept: of a large database not all fit.
    keep = None

    def __init__(self, programs, directory, working):
        super().__init__(programs, directory, working)
        self.sizes = {}

    def cp(self, source, target):
        copied = run(["cp", "-a", f"--reflink={self.reflink}", "-T", source, target], self.root)
        files = [path for path in Path(target).iterdir() if path.is_file()]
        cost = copied + run(["sync", *files], self.root)
        cost.unsynced = copied.wall
        return cost

    def save(self, name):
        cost = self.cp(self.working.directory, self.repository / name)
        self.sizes[name] = sum(path.stat().st_size for path in (self.repository / name).iterdir())
        if self.keep:
            for old in list(self.sizes)[:-self.keep]:
                shutil.rmtree(self.repository / old, ignore_errors=True)
        return cost

    def rollback(self):
        super().rollback()
        self.sizes = {name: size for name, size in self.sizes.items() if name in self.saved}

    def checkpoint(self):
        super().checkpoint()
        self.saved = set(self.sizes)

    def has(self, name):
        return (self.repository / name).exists()

    def restore(self, name):
        return self.cp(self.repository / name, self.working.directory)

    def restore_to(self, name, target):
        return self.cp(self.repository / name, target)

    def delete(self, names):
        cost = super().delete([name for name in names if self.has(name)])
        for name in names:
            del self.sizes[name]
        return cost

    def size(self):
        return sum(self.sizes.values())


class Reflink(Cp):
    """The same, sharing blocks, where the file system has it."""

    name = "reflink"
    reflink = "always"


class Zstd(Tool):
    """Not a tool to save with: what compressing exactly the new bytes takes, from a file to a file."""

    name = "zstd"
    synced = "no"
    can_restore = can_restore_to = can_delete = can_collect = False

    def compress(self, path, output, threads):
        return run(["zstd", "-q", "-f", "-3", "--long=27", f"-T{threads}", path, "-o", output], self.root)

    def save(self, name):
        return self.compress(self.working.new_bytes, self.repository / f"{name}.zst", 2)

    def checkpoint(self):
        pass

    rollback = forget_checkpoint = checkpoint
