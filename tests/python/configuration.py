"""Real ZConfig, ZODB and ZEO, as they read a configuration."""

import io
import os
import pathlib

import ZConfig
from ZConfig.cfgparser import ZConfigParser
from ZConfig.loader import BaseLoader

from ZEO.runzeo import ZEOOptions


class Recorder(BaseLoader):
    """Takes whatever ZConfig's parser finds: there is no schema."""

    def __init__(self):
        super().__init__()
        self.top = Node()

    def startSection(self, parent, kind, name):
        return Node(kind, name)

    def endSection(self, parent, kind, name, node):
        parent.sections.append(node)

    def importSchemaComponent(self, name):
        pass

    def loadResource(self, resource):
        ZConfigParser(resource, self).parse(self.top)

    def includeConfiguration(self, section, url, defines):
        with self.openResource(self.normalizeURL(url)) as resource:
            ZConfigParser(resource, self, defines).parse(section)


class Node:
    def __init__(self, kind="", name=None):
        self.kind, self.name, self.keys, self.sections = kind, name, [], []

    def addValue(self, key, value, position):
        self.keys.append([key.lower(), value])

    def tree(self):
        return [self.kind, self.name, self.keys, [section.tree() for section in self.sections]]


def parse(args):
    """What ZConfig's parser finds in a file, or which line it refuses."""
    recorder = Recorder()
    try:
        recorder.loadURL(args.path)
    except ZConfig.ConfigurationError as error:
        return {"error": str(error), "line": getattr(error, "lineno", None)}
    return {"tree": recorder.top.tree()}


# Zope's own schema has these for databases.
ZOPE = """
<schema>
  <import package="ZODB"/>
  <sectiontype name="temporarystorage" datatype="ZODB.config.MappingStorage" implements="ZODB.storage">
    <key name="name" default="Temporary Storage"/>
  </sectiontype>
  <sectiontype name="zodb_db" datatype="ZODB.config.ZODBDatabase" implements="ZODB.database" extends="zodb">
    <multikey name="mount-point" required="yes" attribute="mount_points"/>
    <key name="container-class"/>
  </sectiontype>
  <multisection type="ZODB.database" name="+" attribute="databases"/>
  <key name="instancehome" required="yes"/>
</schema>
"""


def blobs_of(storage):
    # Without blobs, ZODB has a helper that has no directory.
    directory = getattr(getattr(storage, "fshelper", None), "base_dir", None)
    return os.path.abspath(directory) if directory else None


def where(storage):
    """The file of a storage, and the directory of its blobs; None for one in memory."""
    blobs = blobs_of(storage)
    while not hasattr(storage, "_file_name"):
        storage = getattr(storage, "changes", None) or getattr(storage, "base", None)
        if storage is None:
            return None
    return [os.path.abspath(storage._file_name), blobs or blobs_of(storage)]


def zope(args):
    """Opens the databases of a zope.conf; writes to each; says which file each has."""
    os.chdir(pathlib.Path(args.path).parent)
    schema = ZConfig.loadSchemaFile(io.StringIO(ZOPE))
    config, _ = ZConfig.loadConfig(schema, args.path)
    found = []
    for database in config.databases:
        opened = database.open()
        opened.open().close()
        place = where(opened.storage)
        if place is not None:
            found.append([database.config.getSectionName(), *place])
        opened.close()
    return found


def zeo(args):
    """Opens the storages of a zeo.conf, as the server does; says which file each has."""
    os.chdir(pathlib.Path(args.path).parent)
    options = ZEOOptions()
    options.realize(["-C", args.path])
    found = []
    for opener in options.storages:
        storage = opener.open()
        place = where(storage)
        if place is not None:
            found.append([opener.name, *place])
        storage.close()
    return found
