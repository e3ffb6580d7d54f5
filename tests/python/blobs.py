"""Sites with blobs, by real ZODB: `blobs` makes or grows one, `blobs-pack` packs it, `blobs-check` reads everything."""

import hashlib
import random
import time
from pathlib import Path

import transaction
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from storage import captured
from storage import FileStorage
from storage import timestamp
from ZODB import DB
from ZODB.blob import Blob
from ZODB.POSException import POSKeyError
from ZODB.utils import u64


def directory_of(args):
    return Path(args.blobs or Path(args.path).parent / "blobstorage")


def opened(args, **options):
    directory = directory_of(args)
    layout = getattr(args, "layout", None)
    if layout and not directory.exists():
        directory.mkdir(parents=True)
        (directory / ".layout").write_text(layout)
    return FileStorage(str(args.path), blob_dir=str(directory), **options)


def some_bytes(chance, size):
    """Half of them can be compressed."""
    if chance.random() < 0.5:
        return chance.randbytes(size)
    word = chance.randbytes(20).hex().encode()
    return (word * (size // len(word) + 1))[:size]


def write(chance, site, name, size):
    data = some_bytes(chance, chance.randrange(size))
    entry = site.get(name)
    if entry is None:
        entry = site[name] = PersistentMapping(blob=Blob())
    with entry["blob"].open("w") as file:
        file.write(data)
    entry["sha256"] = hashlib.sha256(data).hexdigest()


def grow(args):
    """New blobs, new revisions, deleted ones, undone ones, and things that are no blobs."""
    chance = random.Random(f"blobs {args.seed}")
    storage = opened(args)
    db = DB(storage)
    connection = db.open()
    try:
        root = connection.root()
        if "site" not in root:
            root["site"] = OOBTree()
            root["text"] = PersistentMapping()
            transaction.commit()
        site = root["site"]
        packed = 0
        for number in range(args.transactions):
            if args.live and number in (args.transactions // 3, args.transactions * 2 // 3):
                db.pack(days=0)
                packed += 1
            names = list(site)
            act = chance.random()
            if act < 0.5 or len(names) < 3:
                for _ in range(chance.randrange(1, 4)):
                    write(chance, site, f"{args.seed}-{number}-{chance.randrange(1 << 30)}", args.size)
            elif act < 0.7:
                write(chance, site, chance.choice(names), args.size)
            elif act < 0.8:
                del site[chance.choice(names)]
            elif act < 0.9:
                root["text"][number % 20] = some_bytes(chance, chance.randrange(args.size))
            else:
                transaction.commit()
                # A pack has left nothing to undo.
                last = db.undoLog(0, 1) if args.undo else []
                if last:
                    db.undo(last[0]["id"], transaction.get())
            transaction.get().note(f"act {number}")
            transaction.commit()
        return {"size": storage.getSize(), "blobs": len(site), "packed": packed}
    finally:
        transaction.abort()
        connection.close()
        db.close()


def put(args):
    """One more blob, with the bytes of a file."""
    storage = opened(args)
    if args.tomorrow:
        storage._ts = timestamp(time.time() + 86400)
    db = DB(storage)
    connection = db.open()
    try:
        data = Path(args.source).read_bytes()
        entry = PersistentMapping(blob=Blob(), sha256=hashlib.sha256(data).hexdigest())
        with entry["blob"].open("w") as file:
            file.write(data)
        connection.root()["site"][f"put {len(connection.root()['site'])}"] = entry
        transaction.commit()
        return {"size": storage.getSize()}
    finally:
        transaction.abort()
        connection.close()
        db.close()


def current(args):
    """The files of the blobs that can be reached, seen from the blob directory."""
    storage = opened(args, read_only=True)
    db = DB(storage)
    connection = db.open()
    try:
        blobs = [entry["blob"] for entry in connection.root()["site"].values()]
        for blob in blobs:
            blob._p_activate()
        paths = [storage.fshelper.getBlobFilename(blob._p_oid, blob._p_serial) for blob in blobs]
        return {"paths": [str(Path(path).relative_to(directory_of(args))) for path in paths]}
    finally:
        connection.close()
        db.close()


def pack(args):
    storage = opened(args)
    db = DB(storage)
    try:
        db.pack(days=0)
        return {"size": storage.getSize()}
    finally:
        db.close()


def check(args):
    """Fails unless everything can be read, and every blob is what was put in."""
    with captured() as warnings:
        storage = opened(args, read_only=args.read_only)
        db = DB(storage)
        connection = db.open()
        try:
            blobs = objects = 0
            for entry in connection.root().get("site", {}).values():
                with entry["blob"].open("r") as file:
                    found = hashlib.sha256(file.read()).hexdigest()
                assert found == entry["sha256"], f"blob {u64(entry['blob']._p_oid)}"
                blobs += 1
            for oid in list(storage._index):
                try:
                    connection.get(oid)._p_activate()
                    objects += 1
                except POSKeyError:
                    # Its creation was undone.
                    pass
        finally:
            connection.close()
            db.close()
    expected = ("Blob dir", "in the future", "layout is deprecated")
    warnings = [line for line in warnings if not any(words in line for words in expected)]
    assert not warnings, warnings
    return {"blobs": blobs, "objects": objects}
