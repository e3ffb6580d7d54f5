"""Power cuts: the image of a mounted file system is copied at a moment of a command, and the copy is mounted. What the file system
had not written by then isn't in it, as in memory that lost its power; what is there, its own journal makes whole.

The moments are those of `kills`: the program stops there, for ever, and the image is copied. (Copied while something writes, it
would be of no moment at all.)
"""

import shutil

from after import check, done
from disk import Disk
from kills import all_steps, killed, moments
from place import Failure, copy_into, need

MEGABYTES = 24
EVERY = 6


def attack(place, options):
    total = 0
    for step in all_steps(place):
        if options.only and options.only not in step.name:
            continue
        disk = Disk(place, MEGABYTES)
        copy_into(step.before, disk.site)
        clean = place.folder() / "before.img"
        unmounted(disk, clean)
        chosen = [*list(moments(place, step))[:: options.every or EVERY], None]
        for moment in chosen:
            try:
                cut(place, step, clean, moment)
            except Failure as failure:
                raise failure.at(step.name, f"power cut when {moment or 'it was done'}") from failure
        total += len(chosen)
        shutil.rmtree(clean.parent)
        print(f"power: {step.name}: {len(chosen)}", flush=True)
    need(options.only or options.every or total >= 50, "only so many images", total)
    return total


def unmounted(disk, to):
    """Keeps the image of a disk that is put away."""
    image = disk.image.rename(to)
    disk.close()
    return image


def cut(place, step, clean, moment):
    """Runs the command on a copy of the image, cuts the power, and looks at what is there then."""
    disk = Disk(place, MEGABYTES, image=clean)
    if moment:
        killed(place, step, moment, disk.site)
    else:
        place.znap_ok(disk.site, *step.words)
    image = place.folder() / "cut.img"
    disk.snapshot(image)
    disk.close()
    after = Disk(place, MEGABYTES, image=image)
    world = place.copy(after.site)
    after.close()
    shutil.rmtree(image.parent)
    if not moment:
        # What it says is done is done.
        done(place, step, world)
    check(place, step, world)
