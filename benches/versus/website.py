"""What happens to a site's database: documents written, edited, published, moved and removed, images, reindexes."""

import random

import transaction
from BTrees.OOBTree import OOBTree
from catalog import Catalog
from language import Language
from persistent import Persistent
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping

from ZODB import DB

EPOCH = 1704067200  # 2024-01-01T00:00:00Z

# Steps of which each is one transaction, and how often each is taken.
STEPS = {
    "edit": 44, "add": 18, "publish": 13, "tag": 7, "remove": 5, "login": 7, "move": 2, "upload": 2,
    "bring_in": 1.5, "reindex_some": 1.2, "reindex_all": 0.3,
}
LARGE = {"bring_in", "reindex_some", "reindex_all", "move"}

STATES = ("private", "pending", "published")
TYPES = ("Document", "News Item", "Event", "Link")
AUTHORS = tuple(f"author{number:02d}" for number in range(40))
TAGS = tuple(f"topic-{number:03d}" for number in range(150))
SECTIONS = tuple(f"section-{number:02d}" for number in range(30))
PROVIDES = [f"plone.app.contenttypes.interfaces.I{number}" for number in range(14)]


class Content(Persistent):
    """A document or an image, with what it is made of in attributes."""


class RichText(Persistent):
    """The text of a document: an object of its own, as in Plone."""

    def __init__(self, raw):
        self.raw = raw


class Website:
    """The site. It can be closed and opened again with another storage on the same file: a server that restarts."""

    def __init__(self, seed):
        self.seed = seed
        self.language = Language()
        self.documents = {}
        self.images = []
        self.number = 0
        self.time = EPOCH

    def open(self, storage, stage):
        self.rng = random.Random(f"website {self.seed} {stage}")
        self.storage = storage
        self.manager = transaction.TransactionManager()
        self.db = DB(storage, cache_size=400_000)
        self.connection = self.db.open(self.manager)
        self.root = self.connection.root()
        if "site" not in self.root:
            self.root["site"] = PersistentMapping(
                sections=OOBTree(), catalog=Catalog(), versions=OOBTree(), members=OOBTree(), images=OOBTree()
            )
            for name in SECTIONS:
                self.root["site"]["sections"][name] = PersistentMapping(tree=OOBTree(), order=PersistentList())
            self.commit("", "Set up")
        self.site = self.root["site"]
        self.catalog = self.site["catalog"]

    def close(self):
        self.manager.abort()
        self.connection.close()
        self.db.close()

    def work_until(self, length):
        """Transaction after transaction, until the file is about so long."""
        while (left := length - self.storage.getSize()) > 0:
            kind = self.rng.choices(list(STEPS), weights=list(STEPS.values()))[0]
            if kind in LARGE and left < 6_000_000:
                # Not one that ends far behind.
                kind = "edit"
            if len(self.documents) < 12:
                kind = "add"
            self.time += self.rng.randint(20, 4000)
            note = getattr(self, kind)()
            self.commit(self.rng.choice(AUTHORS), note)

    def commit(self, user, note):
        entry = self.manager.get()
        entry.user = f" {user}"
        entry.note(note)
        self.manager.commit()

    # The steps.

    def add(self):
        rid = self.new_document()
        return f"/site/{self.catalog.paths[rid]}\n\nAdded"

    def bring_in(self):
        number = self.rng.randint(15, 60)
        for _ in range(number):
            self.new_document()
        return f"Imported {number} documents"

    def edit(self):
        rid, document = self.any_document()
        paragraphs = document.text.raw.split("\n")
        for _ in range(self.rng.randint(1, 3)):
            at = self.rng.randrange(len(paragraphs) + 1)
            if at < len(paragraphs) and self.rng.random() < 0.7:
                paragraphs[at] = self.language.paragraph(self.rng)
            else:
                paragraphs.insert(at, self.language.paragraph(self.rng))
        if len(paragraphs) > 30:
            del paragraphs[self.rng.randrange(len(paragraphs))]
        document.text.raw = "\n".join(paragraphs)
        if self.rng.random() < 0.1:
            document.title = self.language.title(self.rng)
        self.touched(rid, document, "SearchableText", "sortable_title")
        self.keep_version(rid, document)
        return f"/site/{document.path}/edit\n\nEdited"

    def publish(self):
        rid, document = self.any_document()
        document.state = self.rng.choice([state for state in STATES if state != document.state])
        document.history["simple_publication_workflow"] = document.history["simple_publication_workflow"] + (
            {"action": "publish", "actor": self.rng.choice(AUTHORS), "comments": "", "review_state": document.state,
             "time": self.time},
        )
        self.touched(rid, document, "review_state", "allowedRolesAndUsers", "effective")
        return f"/site/{document.path}/content_status_modify\n\nState changed"

    def tag(self):
        rid, document = self.any_document()
        document.subject = tuple(self.rng.sample(TAGS, self.rng.randint(0, 5)))
        self.touched(rid, document, "Subject", "SearchableText")
        return f"/site/{document.path}/edit\n\nTagged"

    def remove(self):
        rid, document = self.any_document()
        folder = self.site["sections"][document.section]
        del folder["tree"][document.name]
        folder["order"].remove(document.name)
        self.catalog.remove(rid)
        self.documents.pop(rid)
        return f"/site/{document.path}/delete_confirmation\n\nRemoved"

    def move(self):
        """Some documents go to another section: their paths change."""
        target = self.rng.choice(SECTIONS)
        for _ in range(self.rng.randint(2, 8)):
            rid, document = self.any_document()
            folder = self.site["sections"][document.section]
            del folder["tree"][document.name]
            folder["order"].remove(document.name)
            document.section, document.path = target, f"{target}/{document.name}"
            self.documents[rid] = (target, document.name)
            folder = self.site["sections"][target]
            folder["tree"][document.name] = document
            folder["order"].append(document.name)
            self.touched(rid, document, "path_parents", "in_parent", "allowedRolesAndUsers")
        return f"/site/{target}/folder_paste\n\nMoved"

    def upload(self):
        """An image: bytes that are compressed already."""
        number = len(self.images)
        image = Content()
        image.title = f"image-{number:05d}.jpg"
        image.width, image.height = self.rng.randint(300, 4000), self.rng.randint(300, 3000)
        image.data = self.rng.randbytes(int(20_000 * 15 ** self.rng.random()))
        self.site["images"][image.title] = image
        self.images.append(image.title)
        return f"/site/images/{image.title}\n\nUploaded"

    def login(self):
        """What changes nearly nothing."""
        name = self.rng.choice(AUTHORS)
        member = self.site["members"].get(name)
        if member is None:
            member = self.site["members"][name] = PersistentMapping(fullname=name.capitalize(), email=f"{name}@example.org")
        member["last_login_time"] = self.time
        return "/site/login\n\nLogged in"

    def reindex_some(self):
        """A folder is indexed again after its rights have changed."""
        section = self.rng.choice(SECTIONS)
        for rid in [rid for rid, (where, _) in self.documents.items() if where == section]:
            document = self.document(rid)
            document.roles = tuple(self.rng.sample(("Editor", "Reader", "Contributor", "Reviewer"), 2))
            self.touched(rid, document, "allowedRolesAndUsers")
        return f"/site/{section}/@@sharing\n\nRights changed"

    def reindex_all(self):
        """An index of the whole catalog and its metadata are made again, as in an upgrade."""
        for rid in self.documents:
            document = self.document(rid)
            document.order = self.rng.randrange(1000)
            self.catalog.put(rid, document.path, self.values(document, "in_parent", "object_provides"), self.row(document))
        return "/site/portal_catalog/manage_reindexIndex\n\nReindexed"

    # What they are made of.

    def new_document(self):
        rng, rid = self.rng, self.number
        self.number += 1
        section = rng.choice(SECTIONS)
        document = Content()
        document.title = self.language.title(rng)
        document.description = self.language.sentence(rng)
        document.text = RichText("\n".join([self.language.paragraph(rng) for _ in range(rng.randint(2, 18))]))
        document.name = f"{document.title.replace(' ', '-')}-{rid}"
        document.section, document.path = section, f"{section}/{document.name}"
        document.uid = f"{rng.getrandbits(128):032x}"
        document.type, document.state = rng.choice(TYPES), "private"
        document.creator = rng.choice(AUTHORS)
        document.subject = tuple(rng.sample(TAGS, rng.randint(0, 4)))
        document.roles = ("Editor",)
        document.order = rid % 1000
        document.created = document.modified = self.time
        document.history = PersistentMapping(
            simple_publication_workflow=({"action": None, "actor": document.creator, "comments": "",
                                          "review_state": "private", "time": self.time},)
        )
        document.annotations = OOBTree({"plone.locking": PersistentMapping(), "plone.contentrules": rid})
        folder = self.site["sections"][section]
        folder["tree"][document.name] = document
        folder["order"].append(document.name)
        self.documents[rid] = (section, document.name)
        names = Catalog.FIELDS + Catalog.DATES + Catalog.KEYWORDS + ("SearchableText",)
        self.catalog.put(rid, document.path, self.values(document, *names), self.row(document))
        self.keep_version(rid, document)
        return rid

    def any_document(self):
        """One of all, but rather one of the newer ones."""
        rids = list(self.documents)
        at = int(len(rids) * max(self.rng.random(), self.rng.random()))
        return rids[at], self.document(rids[at])

    def document(self, rid):
        section, name = self.documents[rid]
        return self.site["sections"][section]["tree"][name]

    def touched(self, rid, document, *names):
        document.modified = self.time
        self.catalog.put(rid, document.path, self.values(document, "modified", *names), self.row(document))

    def keep_version(self, rid, document):
        """A whole copy of the document is kept at every change."""
        version = Content()
        version.title, version.subject, version.time = document.title, document.subject, self.time
        version.text = RichText(document.text.raw)
        history = self.site["versions"].get(document.uid)
        if history is None:
            history = self.site["versions"][document.uid] = OOBTree()
        history[len(history)] = version

    def values(self, document, *names):
        known = {
            "portal_type": lambda: document.type,
            "review_state": lambda: document.state,
            "Creator": lambda: document.creator,
            "sortable_title": lambda: document.title.lower(),
            "getId": lambda: document.name,
            "UID": lambda: document.uid,
            "in_parent": lambda: document.order,
            "created": lambda: document.created // 60,
            "modified": lambda: document.modified // 60,
            "effective": lambda: document.modified // 60,
            "Subject": lambda: list(document.subject),
            "allowedRolesAndUsers": lambda: ["Manager", "Owner", f"user:{document.creator}", *document.roles]
            + (["Anonymous"] if document.state == "published" else []),
            "object_provides": lambda: PROVIDES[document.order % 5 : document.order % 5 + 9],
            "path_parents": lambda: ["", document.section],
            "SearchableText": lambda: f"{document.title} {document.description} {' '.join(document.subject)} {document.text.raw}",
        }
        return {name: known[name]() for name in names}

    def row(self, document):
        return (
            document.title, document.description, document.creator, document.created, document.modified, document.state,
            document.type, document.name, document.uid, document.subject, f"{len(document.text.raw) / 1024:.1f} KB",
            document.order, False, "text/html", None, document.path, (document.creator,), "en", None,
        )
