"""A small file system of its own: ext4 in a file."""

import os
import shutil
import subprocess
import time

from place import need


class Disk:
    """An image file and where it is mounted."""

    def __init__(self, place, megabytes, image=None):
        self.image = place.folder() / "disk.img"
        self.folder = place.folder()
        if image:
            subprocess.run(["cp", "--sparse=always", image, self.image], check=True)
        else:
            with open(self.image, "wb") as file:
                file.truncate(megabytes << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.folder], check=True)
        self.site = self.folder / "site"
        self.site.mkdir(exist_ok=True)

    def empty(self):
        """Removes everything from it."""
        shutil.rmtree(self.site)
        (self.folder / "filler").unlink(missing_ok=True)
        os.sync()
        self.site.mkdir()

    def fill(self, leave):
        """Fills it but for so many bytes."""
        with open(self.folder / "filler", "ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                        os.fsync(file.fileno())
                except OSError:
                    pass
            file.truncate(max(file.seek(0, os.SEEK_END) - leave, 0))
            os.fsync(file.fileno())

    def free(self):
        """How many bytes there is room for."""
        room = os.statvfs(self.folder)
        return room.f_bavail * room.f_frsize

    def written(self):
        """How many writes the device has completed, and how many it is at."""
        device = os.stat(self.folder).st_dev
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat") as file:
            numbers = file.read().split()
        return numbers[4], numbers[8]

    def snapshot(self, to):
        """Copies the image as it is, of a moment: what the file system hasn't written yet isn't in it."""
        for _ in range(200):
            before = self.written()
            subprocess.run(["cp", "--sparse=always", self.image, to], check=True)
            if before[1] == "0" and before == self.written():
                return
            time.sleep(0.01)
        need(False, "the disk is never at rest")

    def close(self):
        """Unmounts it, and removes it."""
        subprocess.run(["umount", self.folder], check=True)
        shutil.rmtree(self.image.parent)
        self.folder.rmdir()
