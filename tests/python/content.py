"""What a site does to its database, from a seed: `make`, `grow`, `pack`, `undo-last`."""

import random
import time
from base64 import encodebytes
from collections import Counter

import transaction
from BTrees.IIBTree import IITreeSet
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from storage import SteadyStorage
from storage import summary

from ZODB import DB
from ZODB.Connection import TransactionMetaData


SETUP = "Set up the site"
LONGEST = 65535

# How many bytes a document's text has, how many documents are added at once, and the megabytes of a big record.
PROFILES = {
    "small": {"text": (80, 800), "added": (1, 3), "big": None},
    "mixed": {"text": (100, 6000), "added": (1, 5), "big": (2.0, 4.0)},
    "large": {"text": (20_000, 200_000), "added": (1, 3), "big": (2.0, 8.0)},
    "plone": {"text": (800, 6000), "added": (10, 40), "big": (0.3, 3.0)},
}

# One deck of steps, shuffled and dealt again and again: so that everything is in any database of some fifty transactions.
DECK = {
    "add": 9, "edit": 10, "reindex": 3, "remove": 3, "purge": 1, "undo": 2, "undo_undo": 1, "undo_two": 1,
    "empty": 2, "big": 1, "long_strings": 1, "many": 1,
}
NEED_A_DOCUMENT = {"edit", "edit_favourite", "reindex", "remove", "undo_two", "long_strings"}


class Site:
    """A database that is being worked on. Each step appends exactly one transaction."""

    def __init__(self, storage, seed, profile):
        self.storage = storage
        self.rng = random.Random(f"content {seed}")
        self.profile = PROFILES[profile]
        self.deck_of_kinds = dict(DECK)
        self.deck = []
        self.forced = []
        self.removed = []
        self.favourite = None
        self.kinds = Counter()
        # Text is put together from these: random enough, and much quicker than from letters.
        vocabulary = random.Random("words")
        self.words = ["".join(vocabulary.choices("etaoinshrdlucmfw", k=vocabulary.randint(3, 10))) for _ in range(900)]
        self.sentences = [" ".join(self.rng.choices(self.words, k=14)).capitalize() + "." for _ in range(3000)]
        self.manager = transaction.TransactionManager()
        self.db = DB(storage)
        self.connection = self.db.open(self.manager)
        self.root = self.connection.root()

    def close(self):
        self.manager.abort()
        self.connection.close()
        self.db.close()

    # The steps.

    def set_up(self):
        self.root["documents"] = IOBTree()
        self.root["counters"] = PersistentMapping(next=1, hits=0)
        self.root["titles"] = OOBTree()
        self.root["modified"] = IOBTree()
        self.root["words"] = OOBTree()
        self.commit(SETUP)

    def step(self, is_last=False):
        """One transaction more."""
        if self.forced:
            kind = self.forced.pop(0)
        else:
            if not self.deck:
                self.deck = [kind for kind, number in self.deck_of_kinds.items() for _ in range(number)]
                self.rng.shuffle(self.deck)
            kind = self.deck.pop()
        if kind == "big" and not self.profile["big"]:
            kind = "edit"
        if kind == "purge" and not self.removed:
            self.deck.insert(0, "purge")
            kind = "remove"
        if kind in ("undo", "undo_undo", "undo_twice") and not self.undoable(2 if kind == "undo_twice" else 1):
            kind = "edit"
        if kind == "undo_twice" and is_last:
            # ZODB ignores its index where a transaction with the same object twice is the last one.
            kind = "edit"
        if kind in NEED_A_DOCUMENT and not self.root["documents"]:
            kind = "add"
        self.kinds[kind] += 1
        getattr(self, kind)()

    def add(self):
        number = self.rng.randint(*self.profile["added"])
        for _ in range(number):
            self.new_document()
        self.commit(f"Added {number} documents")

    def bulk(self):
        for _ in range(400):
            self.new_document(words=3)
        self.commit("Imported 400 documents")

    def many(self):
        for number in range(self.rng.randint(200, 300)):
            self.new_document(text=f"note {number}", words=1)
        self.commit("Added many notes")

    def big(self):
        low, high = self.profile["big"]
        size = int(self.rng.uniform(low, high) * 1_000_000)
        number = self.new_document()
        half = self.rng.randbytes(size // 2)
        self.root["documents"][number]["file"] = half + self.text(size - len(half)).encode()
        self.commit("Uploaded a file")

    def edit(self):
        document, number = self.any_document()
        document["text"] = self.text()
        document["revision"] += 1
        self.root["modified"][number] = document["revision"]
        self.root["counters"]["hits"] += 1
        self.commit(f"/site/{number}\n\nEdited")

    def edit_favourite(self):
        document, self.favourite = self.any_document(self.favourite)
        document["text"] = self.text(120)
        document["revision"] += 1
        self.commit("Edited again")

    def reindex(self):
        for _ in range(5):
            document, number = self.any_document()
            self.root["modified"][number] = self.rng.randrange(1_000_000)
            self.index_words(number, 4)
        self.commit("Reindexed")

    def remove(self):
        document, number = self.any_document()
        del self.root["documents"][number]
        self.root["titles"].pop(document["title"], None)
        self.root["modified"].pop(number, None)
        self.removed.append(document._p_oid)
        self.commit(f"Removed {number}")

    def purge(self):
        """What an external garbage collector does: records that say that the object is gone."""
        meta = TransactionMetaData("gc", "Purged")
        self.storage.tpc_begin(meta)
        for oid in self.removed:
            self.storage.deleteObject(oid, self.storage.getTid(oid), meta)
        self.storage.tpc_vote(meta)
        self.storage.tpc_finish(meta)
        self.removed.clear()
        self.connection.cacheMinimize()
        self.manager.begin()

    def empty(self):
        meta = TransactionMetaData("", "Nothing" if self.rng.random() < 0.5 else "")
        self.storage.tpc_begin(meta)
        self.storage.tpc_vote(meta)
        self.storage.tpc_finish(meta)
        self.manager.begin()

    def undo(self):
        self.undo_last(1)

    def undo_undo(self):
        self.undo_last(1)
        self.forced = ["undo"]

    def undo_two(self):
        """Two edits of one object, then both undone in one transaction, which then has the object twice."""
        self.forced = ["edit_favourite", "undo_twice"]
        self.favourite = None
        self.edit_favourite()

    def undo_twice(self):
        self.undo_last(2)

    def long_strings(self):
        document, _ = self.any_document()
        document["revision"] += 1
        user = ("ü" * LONGEST)[: LONGEST // 2] if self.profile["big"] else "ü" * 120
        self.commit(
            self.text(LONGEST if self.profile["big"] else 900),
            user=user,
            extension={"request": self.text(60_000 if self.profile["big"] else 300), "retries": 3},
        )

    # What they are made of.

    def undoable(self, number):
        """The ids of the newest transactions, if all of them may be undone."""
        entries = self.storage.undoLog(0, number)
        if len(entries) < number or entries[0]["id"] != self.id_of_last():
            return None
        if any(entry["description"] in (SETUP.encode(), b"initial database creation") for entry in entries):
            return None
        return [entry["id"] for entry in entries]

    def id_of_last(self):
        return encodebytes(self.storage.lastTransaction()).rstrip()

    def undo_last(self, number):
        ids = self.undoable(number)
        if not ids:
            raise SystemExit("the last transactions cannot be undone")
        self.removed.clear()
        self.db.undoMultiple(ids, self.manager.get())
        self.commit(f"Undo {number}")
        self.manager.begin()

    def text(self, size=None):
        size = size or self.rng.randint(*self.profile["text"])
        return " ".join(self.rng.choices(self.sentences, k=size // 80 + 1))[:size]

    def new_document(self, text=None, words=6):
        counters = self.root["counters"]
        number = counters["next"]
        counters["next"] = number + 1
        title = f"{self.rng.choice(self.words)} {number:08d}"
        document = PersistentMapping(title=title, text=text or self.text(), revision=0, keywords=PersistentMapping())
        self.root["documents"][number] = document
        self.root["titles"][title] = number
        self.root["modified"][number] = 0
        self.index_words(number, words)
        return number

    def index_words(self, number, count):
        index = self.root["words"]
        for word in self.rng.choices(self.words, k=count):
            entries = index.get(word)
            if entries is None:
                entries = index[word] = IITreeSet()
            entries.insert(number)

    def any_document(self, number=None):
        documents = self.root["documents"]
        if number not in documents:
            number = documents.minKey(self.rng.randint(documents.minKey(), documents.maxKey()))
        return documents[number], number

    def commit(self, description, user=None, extension=None):
        entry = self.manager.get()
        entry.user = user if user is not None else f"/ {self.rng.choice(('anna', 'björn', 'admin', ''))}".rstrip()
        entry.note(description)
        for key, value in (extension or {}).items():
            entry.setExtendedInfo(key, value)
        self.manager.commit()


def work(site, transactions, megabytes):
    """So many transactions, and then on until the file has so many megabytes."""
    for number in range(1, transactions + 1):
        site.step(is_last=number == transactions and not megabytes)
    if megabytes:
        site.deck_of_kinds["bulk"] = 25
        site.deck.clear()
    done = transactions
    while megabytes and site.storage.getSize() < megabytes * 1_000_000:
        site.step()
        done += 1
        if done % 10 == 0:
            site.connection.cacheGC()
    return done


def make(args):
    return grow(args, new=True)


def grow(args, new=False):
    storage = SteadyStorage(args.path, args.seed, args.start)
    if new and storage.getSize() != 4:
        storage.close()
        raise SystemExit(f"{args.path} is there already")
    site = Site(storage, args.seed, args.profile)
    try:
        done = 0
        if "documents" not in site.root:
            site.set_up()
            done = 2
        done += work(site, max(args.transactions - done, 0), args.mb)
        return summary(storage, args.path) | {"transactions": done, "kinds": dict(site.kinds)}
    finally:
        site.close()


def undo_last(args):
    site = Site(SteadyStorage(args.path, args.seed), args.seed, "small")
    try:
        site.undo_last(args.number)
        return summary(site.storage, args.path)
    finally:
        site.close()


def pack(args):
    storage = SteadyStorage(args.path)
    db = DB(storage)
    try:
        before = storage.getSize()
        # The database's own clock, not ours: "now" is its last transaction.
        now = storage._ts.timeTime() + 1
        db.pack(min(now, time.time()) - args.days * 86400)
        return summary(storage, args.path) | {"size_before": before}
    finally:
        db.close()
