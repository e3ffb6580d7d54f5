"""A ZEO client for the tests: `zeo_client.py SOCKET [FOLDER]`, with a persistent cache in the folder if one is named.

Obeys lines on stdin, and answers each with a line of JSON: `read`, `write x NUMBER` (`x` or `y`, each an object of its own), `forget`
(what is in memory). What it can't do it answers with the name of the exception.
"""

import json
import logging
import sys

import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZEO.ClientStorage import ClientStorage


def main():
    logging.basicConfig(stream=sys.stderr, level=logging.CRITICAL)
    address, *folder = sys.argv[1:]
    where = {"client": "test", "var": folder[0]} if folder else {}
    try:
        database = ZODB.DB(ClientStorage(address, wait=True, wait_timeout=5, **where))
    except Exception as error:
        print(json.dumps({"error": type(error).__name__}), flush=True)
        return
    print(json.dumps({"connected": True}), flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        try:
            print(json.dumps(obey(database, word, *rest)), flush=True)
        except Exception as error:
            transaction.abort()
            print(json.dumps({"error": type(error).__name__}), flush=True)
    database.close()


def obey(database, word, *rest):
    if word == "forget":
        database.cacheMinimize()
        return {}
    connection = database.open()
    try:
        root = connection.root()
        if word == "write":
            name, value = rest
            if name not in root:
                root[name] = PersistentMapping()
            root[name]["value"] = int(value)
            transaction.commit()
        return {name: root[name]["value"] for name in ("x", "y") if name in root}
    finally:
        transaction.abort()
        connection.close()


if __name__ == "__main__":
    main()
