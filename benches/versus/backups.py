"""The backup programs: repozo, restic, borg."""

import json
import os
import subprocess
import time

from measure import run
from tools import Tool


class Repozo(Tool):
    """ZODB's own: a whole copy, then files with what was appended. Quick (-Q): checks only its last file."""

    name = "repozo"
    synced = "save: yes; restore: no"
    can_delete = can_collect = False

    def __init__(self, programs, directory, working):
        super().__init__(programs, directory, working)
        self.dates = {}

    def repozo(self, *arguments):
        return run([self.programs.python, self.programs.python.parent / "repozo", *arguments], self.root)

    def save(self, name):
        # Its files are named after the second.
        time.sleep(1.02 - time.time() % 1)
        cost = self.repozo("-B", "-Q", "-r", self.repository, "-f", self.working.path)
        self.dates[name] = max(path.stem for path in self.repository.glob("*.index"))
        return cost

    def restore(self, name):
        return self.restore_to(name, self.working.directory)

    def restore_to(self, name, target):
        target.mkdir(exist_ok=True)
        return self.repozo("-R", "-r", self.repository, "-D", self.dates[name], "-o", target / "Data.fs")

    def checkpoint(self):
        self.kept = {path.name for path in self.repository.iterdir()}
        self.lists = {path: path.read_bytes() for path in self.repository.glob("*.dat")}

    def rollback(self):
        for path in self.repository.iterdir():
            if path.name not in self.kept:
                path.unlink()
        for path, content in self.lists.items():
            path.write_bytes(content)


class Restic(Tool):
    """Repository version 2, compression auto, its cache in a directory of its own."""

    name = "restic"
    synced = "save: yes; restore: no"

    def __init__(self, programs, directory, working):
        super().__init__(programs, directory, working)
        self.env = {
            "RESTIC_PASSWORD": "versus", "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_CACHE_DIR": str(self.root / "cache"), "RESTIC_PROGRESS_FPS": "0",
        }
        # From 0.17 on it reads what is there and writes only what differs; --delete came with it.
        digits = programs.versions["restic"].split()[1].split(".")[:2]
        self.in_place = ["--delete"] if tuple(map(int, digits)) >= (0, 17) else []

    def restic(self, *arguments, cwd=None):
        return run(["restic", "-q", *arguments], cwd or self.root, self.env)

    def start(self):
        return self.restic("init", "--repository-version", "2")

    def save(self, name):
        return self.restic(
            "backup", "--compression", "auto", "--host", "h", "--tag", name, ".", cwd=self.working.directory
        )

    def identities(self, names):
        """The ids of these snapshots, which restic gave them; not measured."""
        command = ["restic", "snapshots", "--no-lock", "--json"]
        answer = subprocess.run(command, env={**os.environ, **self.env}, capture_output=True, check=True).stdout
        known = {snapshot["tags"][0]: snapshot["id"] for snapshot in json.loads(answer)}
        return [known[name] for name in names]

    def restore(self, name):
        return self.restic("restore", *self.identities([name]), "--target", self.working.directory, *self.in_place)

    def restore_to(self, name, target):
        return self.restic("restore", *self.identities([name]), "--target", target)

    def delete(self, names):
        return self.restic("forget", "--prune", *self.identities(names))

    def collect(self):
        return self.restic("prune")


class Borg(Tool):
    """Not encrypted, zstd level 3, everything that it keeps elsewhere in a directory of its own."""

    name = "borg"
    synced = "save: yes; restore: no"

    def __init__(self, programs, directory, working):
        super().__init__(programs, directory, working)
        self.env = {
            "BORG_REPO": str(self.repository), "BORG_BASE_DIR": str(self.root / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_DELETE_I_KNOW_WHAT_I_AM_DOING": "YES",
        }

    def borg(self, *arguments, cwd=None):
        return run([self.programs.borg, *arguments], cwd or self.root, self.env)

    def start(self):
        return self.borg("init", "-e", "none")

    def save(self, name):
        return self.borg("create", "-C", "zstd,3", f"::{name}", ".", cwd=self.working.directory)

    def restore(self, name):
        return self.borg("extract", f"::{name}", cwd=self.working.directory)

    def restore_to(self, name, target):
        target.mkdir(exist_ok=True)
        return self.borg("extract", f"::{name}", cwd=target)

    def delete(self, names):
        deleted = self.borg("delete", f"::{names[0]}", *names[1:])
        return deleted + self.collect()

    def collect(self):
        return self.borg("compact")
