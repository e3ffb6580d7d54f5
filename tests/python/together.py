"""Several FileStorages of one application: every transaction that counts, counts in all of them."""

import random
import sys
import time
import uuid

import transaction
from live import ready, told_to_stop

from ZODB.DB import DB
from ZODB.FileStorage import FileStorage


class Application:
    def __init__(self, paths, seed=0):
        self.rng = random.Random(f"together {seed}")
        collection = {}
        self.databases = [
            DB(FileStorage(str(path)), database_name=f"db{number}", databases=collection)
            for number, path in enumerate(paths)
        ]
        self.manager = transaction.TransactionManager()
        first = self.databases[0].open(self.manager)
        names = [f"db{number}" for number in range(len(paths))]
        self.roots = [first.get_connection(name).root() for name in names]

    def step(self):
        """Counts in all databases, in one transaction; and does something in one of them only, in another."""
        with self.manager:
            count = self.roots[0].get("count", 0) + 1
            for root in self.roots:
                root["count"] = count
                root["text"] = self.rng.randbytes(self.rng.randint(10, 3000))
        with self.manager:
            self.rng.choice(self.roots)["alone"] = uuid.uuid4().hex

    def close(self):
        self.manager.abort()
        for database in self.databases:
            database.close()


def paths_of(args):
    return [args.path, *args.others]


def counts_of(paths):
    """What each database has counted to, as ZODB opens it."""
    counts = []
    for path in paths:
        database = DB(FileStorage(str(path), read_only=True))
        try:
            with database.transaction() as connection:
                counts.append(connection.root().get("count", 0))
        finally:
            database.close()
    return counts


def make(args):
    application = Application(paths_of(args), args.seed)
    for _ in range(args.transactions):
        application.step()
    application.close()
    return counts_of(paths_of(args))


def counts(args):
    return counts_of(paths_of(args))


def writer(args):
    """Goes on counting until told to stop, with pauses of random length; each database takes its time to finish, as with a real disk."""
    stop = told_to_stop()
    application = Application(paths_of(args), args.seed)
    for database in application.databases:
        slow_down(database.storage, application.rng)
    application.step()
    ready()
    while not stop.is_set():
        application.step()
        time.sleep(application.rng.uniform(0, args.pause_ms / 1000))
    application.close()
    return counts_of(paths_of(args))


def slow_down(storage, rng):
    finish = storage.tpc_finish

    def slowly(*arguments):
        time.sleep(rng.uniform(0, 0.003))
        return finish(*arguments)

    storage.tpc_finish = slowly


def half(args):
    """Stops in the middle of a commit: the first database is done, the last isn't. Goes on when told to."""
    application = Application(paths_of(args), args.seed)
    application.step()
    # ZODB finishes one storage after the other, in this order.
    last = max((database.storage for database in application.databases), key=lambda storage: storage.sortKey())
    finish = last.tpc_finish

    def wait(*arguments):
        ready()
        sys.stdin.readline()
        return finish(*arguments)

    last.tpc_finish = wait
    with application.manager:
        for root in application.roots:
            root["count"] += 1
    last.tpc_finish = finish
    application.close()
    return counts_of(paths_of(args))
