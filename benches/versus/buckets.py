"""A database of millions of small objects: buckets of numbers, which compress badly."""

import pickle
import random
import struct
from itertools import accumulate

from BTrees.IIBTree import IIBucket

from ZODB import DB
from ZODB.Connection import TransactionMetaData

CLASS = pickle.dumps(IIBucket, 3)
LAST_KEY = 1_900_000_000
# What a random byte stands for.
GAPS = bytes(1 + byte % 16 for byte in range(256))
COUNTS = bytes(byte % 64 for byte in range(256))


class Buckets:
    """Objects are stored as ready pickles, many in a transaction; real FileStorage writes the file."""

    def __init__(self, seed):
        self.seed = seed
        self.number = 0
        self.key = 0

    def open(self, storage, stage):
        self.rng = random.Random(f"buckets {self.seed} {stage}")
        self.storage = storage
        self.stage = stage
        if not len(storage):
            # The root object; then the storage is opened again.
            DB(storage).close()
            raise Reopen
        self.number = max(self.number, 1)

    def close(self):
        self.storage.close()

    def work_until(self, length):
        """At first an import: nothing but new objects. Then three new ones to two that are written again."""
        is_import = self.stage == "s00"
        while (left := length - self.storage.getSize()) > 0:
            records = 3000 if is_import else self.rng.randint(20, 800)
            meta = TransactionMetaData("importer" if is_import else "indexer", "Imported" if is_import else "Updated")
            self.storage.tpc_begin(meta)
            # By chance an object is drawn twice: it is written once.
            changed = set()
            for _ in range(min(records, left // 1000 + 1)):
                if is_import or self.rng.random() < 0.66:
                    self.storage.store(struct.pack(">Q", self.number), b"\0" * 8, self.new(), "", meta)
                    self.number += 1
                else:
                    changed.add(self.rng.randrange(1, self.number))
            for number in sorted(changed):
                self.change(number, meta)
            self.storage.tpc_vote(meta)
            self.storage.tpc_finish(meta)

    def new(self):
        """Document numbers, and how often a word is in each."""
        size = self.rng.randint(70, 200)
        keys = list(accumulate(self.rng.randbytes(size).translate(GAPS), initial=self.key))
        self.key = keys.pop() % LAST_KEY
        entries = [0] * (2 * size)
        entries[::2] = keys
        entries[1::2] = self.rng.randbytes(size).translate(COUNTS)
        return CLASS + pickle.dumps((tuple(entries),), 3)

    def change(self, number, meta):
        """A few values of a bucket are others now."""
        oid = struct.pack(">Q", number)
        try:
            record, tid = self.storage.load(oid)
        except KeyError:
            # One that this very transaction adds.
            return
        (entries,) = pickle.loads(record[len(CLASS):])
        entries = list(entries)
        for _ in range(self.rng.randint(1, 4)):
            entries[2 * self.rng.randrange(len(entries) // 2) + 1] = self.rng.getrandbits(6)
        self.storage.store(oid, tid, CLASS + pickle.dumps((tuple(entries),), 3), "", meta)


class Reopen(Exception):
    """The storage was closed, and is to be opened again."""
