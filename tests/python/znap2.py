"""What ost-znap2 1.0b does, transcribed to Python 3 and its standard library: the same files, in the same order.

    znap2.py init DB... | save ID | list | restore ID | delete ID

It takes the bytes before `offset` for granted, and each snapshot holds all that comes after it. Nothing is synced,
checked or locked. The original also imports `click`, so it starts somewhat slower. Only for databases in the
current directory, as the original.
"""

import configparser
import os
import shutil
import sys

STORE = ".znap2"
CONFIG = os.path.join(STORE, "config.ini")


def init(*databases):
    os.mkdir(STORE)
    config = configparser.ConfigParser()
    for path in databases:
        config[path] = {"offset": str(os.stat(path).st_size)}
    with open(CONFIG, "w") as file:
        config.write(file)


def offsets():
    config = configparser.ConfigParser()
    with open(CONFIG) as file:
        config.read_file(file)
    return [(path, int(config[path]["offset"])) for path in config.sections()]


def save(name):
    snapshot = os.path.join(STORE, name)
    if os.path.exists(snapshot):
        sys.exit("Duplicate snapshot id.")
    os.mkdir(snapshot)
    for path, offset in offsets():
        # The index first, then the data.
        shutil.copyfile(f"{path}.index", os.path.join(snapshot, f"{path}.index"))
        with open(path, "rb") as source, open(os.path.join(snapshot, path), "wb") as target:
            source.seek(offset)
            shutil.copyfileobj(source, target)


def snapshots():
    names = [name for name in os.listdir(STORE) if os.path.isdir(os.path.join(STORE, name))]
    print("\n".join(sorted(names, key=lambda name: os.stat(os.path.join(STORE, name)).st_mtime)))


def restore(name):
    snapshot = os.path.join(STORE, name)
    for path, offset in offsets():
        shutil.copyfile(os.path.join(snapshot, f"{path}.index"), f"{path}.index")
        with open(os.path.join(snapshot, path), "rb") as source, open(path, "a+b") as target:
            target.truncate(offset)
            shutil.copyfileobj(source, target)


def delete(name):
    shutil.rmtree(os.path.join(STORE, name))


COMMANDS = {"init": init, "save": save, "list": snapshots, "restore": restore, "delete": delete}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
