"""Processes that have a FileStorage open while znap works beside them: `writer`, `hold`."""

import random
import signal
import sys
import threading
import time

from content import Site
from storage import summary

from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage


def told_to_stop(pack=lambda: None):
    """An event that is set by `stop`, by the end of standard input, or by SIGTERM. `pack` is called when told to."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def listen():
        for line in sys.stdin:
            if line.strip() == "stop":
                break
            if line.strip() == "pack":
                pack()
        stop.set()

    threading.Thread(target=listen, daemon=True).start()
    return stop


def ready():
    print("ready", flush=True)


def writer(args):
    # The real clock: the storage is live.
    storage = FileStorage(str(args.path))
    site = Site(storage, args.seed, args.profile)
    packed = 0

    def pack():
        nonlocal packed
        site.db.pack()
        packed += 1

    # While the other thread commits.
    packer = threading.Thread(target=pack)
    stop = told_to_stop(packer.start)
    if args.packed:
        # What a pack has dropped can't be undone, nor purged.
        for kind in ("undo", "undo_undo", "undo_two", "purge"):
            site.deck_of_kinds.pop(kind)
    rng = random.Random(f"writer {args.seed}")
    committed = aborted = 0
    until = time.monotonic() + (args.seconds or 1e9)
    try:
        if "documents" not in site.root:
            site.set_up()
        ready()
        while not stop.is_set() and time.monotonic() < until:
            if args.transactions is not None and committed + aborted >= args.transactions:
                break
            if args.mode == "abort" or args.mode == "mixed" and rng.random() < 0.5:
                vote_and_abort(storage, rng)
                aborted += 1
            else:
                site.step()
                committed += 1
            if args.pause_ms:
                stop.wait(args.pause_ms / 1000)
        if packer.ident:
            packer.join()
        return summary(storage, args.path) | {"committed": committed, "aborted": aborted, "packed": packed}
    finally:
        site.close()


def vote_and_abort(storage, rng):
    """What a conflict in another database does: the transaction is in the file already, and is cut off again."""
    meta = TransactionMetaData("anna", f"Not to be {rng.random()}")
    storage.tpc_begin(meta)
    for _ in range(rng.randint(1, 4)):
        storage.store(storage.new_oid(), b"\0" * 8, rng.randbytes(int(10 ** rng.uniform(2, 5.5))), "", meta)
    storage.tpc_vote(meta)
    storage.tpc_abort(meta)


def hold(args):
    stop = told_to_stop()
    storage = FileStorage(str(args.path), read_only=args.read_only)
    try:
        ready()
        stop.wait()
        return summary(storage, args.path)
    finally:
        storage.close()
