-- The catalog of a znap repository. docs/catalog.md explains it; the views at the end are the stable part.
-- It can be made again from the object files alone, so it holds nothing that they don't, except what
-- init knows before the first save.
--
-- References from stream_chunk, index_chunk and chunk to what they name aren't declared as foreign
-- keys: checking them would need an index more per chunk (10 bytes each) or a table scan per deleted row.

CREATE TABLE object_file (
    id    INTEGER PRIMARY KEY,
    name  BLOB    NOT NULL UNIQUE CHECK (length(name) = 32),
    kind  INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 5),
    bytes INTEGER NOT NULL
) STRICT;

CREATE TABLE frame (
    id          INTEGER PRIMARY KEY,
    object_file INTEGER NOT NULL REFERENCES object_file (id),
    content     INTEGER NOT NULL,   -- 1 tail, 2 base, 3 index keyframe, 4 index delta
    codec       INTEGER NOT NULL,   -- 0 raw, 1 zstd
    offset      INTEGER NOT NULL,   -- where it begins in the object file
    stored      INTEGER NOT NULL,   -- its length there
    raw         INTEGER NOT NULL    -- its length when decompressed
) STRICT;
CREATE INDEX frame_by_object_file ON frame (object_file);

CREATE TABLE chunk (
    id     INTEGER PRIMARY KEY,
    hash   BLOB    NOT NULL CHECK (length(hash) = 32),
    length INTEGER NOT NULL,
    frame  INTEGER NOT NULL,        -- the frame that has it
    start  INTEGER NOT NULL         -- where in the decompressed frame it begins
) STRICT;
-- Eight bytes tell chunks apart nearly always, and keep this index small; queries compare the whole hash too.
CREATE INDEX chunk_by_hash ON chunk (substr(hash, 1, 8));

CREATE TABLE repository (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    uid      BLOB    NOT NULL CHECK (length(uid) = 16),
    config   INTEGER NOT NULL REFERENCES object_file (id),
    created  INTEGER NOT NULL,      -- microseconds since 1970, UTC, as all times here
    sequence INTEGER NOT NULL       -- the highest ever given to a snapshot
) STRICT;

CREATE TABLE database (
    id         INTEGER PRIMARY KEY,
    uid        BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    name       TEXT    NOT NULL UNIQUE,
    path       BLOB    NOT NULL,    -- as typed, relative to the directory that holds .znap
    generation INTEGER              -- the present one; set right after the generation is inserted
) STRICT;

CREATE TABLE generation (
    id                INTEGER PRIMARY KEY,
    uid               BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    database          INTEGER NOT NULL REFERENCES database (id),
    number            INTEGER NOT NULL,
    began             INTEGER NOT NULL,
    magic             TEXT    NOT NULL,  -- FS21 or FS30
    base_length       INTEGER NOT NULL,
    base_tid          INTEGER NOT NULL,  -- of the last transaction in the base, 0 if there is none
    base_last_length  INTEGER NOT NULL,  -- its length, 0 if there is none
    base_check_length INTEGER NOT NULL,  -- how many bytes before the base's end were hashed
    base_check        BLOB    NOT NULL CHECK (length(base_check) = 32),
    UNIQUE (database, number)
) STRICT;

CREATE TABLE snapshot (
    id           INTEGER PRIMARY KEY,
    uid          BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    sequence     INTEGER NOT NULL UNIQUE,
    revision     INTEGER NOT NULL,  -- how often gc wrote its manifest anew
    name         TEXT    NOT NULL,  -- the id that the user gave it
    kind         TEXT    NOT NULL,
    created      INTEGER NOT NULL,
    message      TEXT    NOT NULL,
    one_moment   INTEGER NOT NULL,  -- 0: its databases may be of slightly different moments
    stored_bytes INTEGER NOT NULL,  -- data files written by its save
    manifest     INTEGER NOT NULL REFERENCES object_file (id),
    tombstone    INTEGER REFERENCES object_file (id)  -- set: it was deleted
) STRICT;
CREATE UNIQUE INDEX snapshot_by_name ON snapshot (name) WHERE tombstone IS NULL;
CREATE INDEX snapshot_by_manifest ON snapshot (manifest);
CREATE INDEX snapshot_by_tombstone ON snapshot (tombstone);

-- A snapshot's tail of one database: what it keeps of its parent's chunk list, and stream_chunk has the rest.
CREATE TABLE stream (
    id           INTEGER PRIMARY KEY,
    snapshot     INTEGER NOT NULL REFERENCES snapshot (id),
    database     INTEGER NOT NULL REFERENCES database (id),
    generation   INTEGER NOT NULL REFERENCES generation (id),
    parent       INTEGER REFERENCES stream (id),
    kept_count   INTEGER NOT NULL,  -- chunks kept of the parent's list
    kept_length  INTEGER NOT NULL,  -- the offset in the file up to which they reach
    offset       INTEGER NOT NULL,  -- the cut: where in the file the snapshot ends
    tid          INTEGER NOT NULL,  -- of the last transaction before the cut, 0 if there is none
    last_length  INTEGER NOT NULL,  -- its length, 0 if there is none
    time         INTEGER NOT NULL,  -- of that transaction
    transactions INTEGER NOT NULL,  -- in the tail
    count        INTEGER NOT NULL,  -- chunks in the whole list
    list_hash    BLOB    NOT NULL CHECK (length(list_hash) = 32),
    final_count  INTEGER NOT NULL,  -- of these, how many are final,
    final_length INTEGER NOT NULL,  -- up to which offset,
    final_hash   BLOB    NOT NULL CHECK (length(final_hash) = 32),
    index_hash   BLOB    NOT NULL CHECK (length(index_hash) = 32),  -- of its own index parts
    new_bytes    INTEGER NOT NULL,  -- behind the cut that the file was found to begin with when it was saved
    UNIQUE (snapshot, database)
) STRICT;
CREATE INDEX stream_by_parent ON stream (parent);
CREATE INDEX stream_by_offset ON stream (generation, offset);

CREATE TABLE stream_chunk (
    stream INTEGER NOT NULL,
    offset INTEGER NOT NULL,        -- in the file
    chunk  INTEGER NOT NULL,
    PRIMARY KEY (stream, offset)
) STRICT, WITHOUT ROWID;

-- What a snapshot's index is made from: a keyframe, or what its parent's is made from; then its deltas.
CREATE TABLE index_part (
    id       INTEGER PRIMARY KEY,
    stream   INTEGER NOT NULL REFERENCES stream (id),
    position INTEGER NOT NULL,
    keyframe INTEGER NOT NULL,      -- 1 keyframe, 0 delta
    entries  INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    UNIQUE (stream, position)
) STRICT;

CREATE TABLE index_chunk (
    part     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    chunk    INTEGER NOT NULL,
    PRIMARY KEY (part, position)
) STRICT, WITHOUT ROWID;

-- Views: the stable interface. Hashes are lower-case hexadecimal text, times RFC 3339 in UTC.

CREATE VIEW snapshots AS
SELECT name AS id, kind, strftime('%Y-%m-%dT%H:%M:%fZ', created / 1e6, 'unixepoch') AS created, message, sequence
FROM snapshot WHERE tombstone IS NULL;

CREATE VIEW databases AS
SELECT d.name, CAST(d.path AS TEXT) AS path, g.number AS generation, g.base_length, g.base_length <= 4 AS complete
FROM database d JOIN generation g ON g.id = d.generation;

CREATE VIEW cuts AS
SELECT s.name AS snapshot, d.name AS database, t.offset, iif(t.tid, printf('0x%016x', t.tid), NULL) AS tid,
       iif(t.tid, strftime('%Y-%m-%dT%H:%M:%fZ', t.time / 1e6, 'unixepoch'), NULL) AS time,
       t.transactions, t.offset - g.base_length AS tail_bytes, t.new_bytes
FROM stream t JOIN snapshot s ON s.id = t.snapshot JOIN database d ON d.id = t.database
JOIN generation g ON g.id = t.generation
WHERE s.tombstone IS NULL;

-- Which parts of which stored lists the chunk list of a stream, whole, consists of: its own, its parent's up
-- to kept_length, and so on. A recursion can't begin at a row of the query around it, unless it is a scalar: so
-- it goes through a JSON object, {"stream": upto, ...}. Without that, the parts of all snapshots would be put
-- together to see those of one. (No JSON function but json_each: SQLite 3.38 to 3.40 take the others for
-- unsafe in a view.)
CREATE VIEW stream_piece AS
SELECT w.id AS whole, CAST(p.key AS INTEGER) AS stream, p.value AS upto
FROM stream w CROSS JOIN json_each((
    WITH RECURSIVE piece (stream, parent, upto, kept_length) AS (
        SELECT w.id, w.parent, w.offset, w.kept_length
        UNION ALL
        SELECT t.id, t.parent, min(p.upto, p.kept_length), t.kept_length
        FROM piece p JOIN stream t ON t.id = p.parent
    )
    SELECT '{' || group_concat('"' || stream || '":' || upto) || '}' FROM piece
)) p;

CREATE VIEW snapshot_chunks AS
SELECT s.name AS snapshot, d.name AS database, c.offset, k.length, lower(hex(k.hash)) AS hash,
       lower(hex(o.name)) AS object_file
FROM snapshot s CROSS JOIN stream t ON t.snapshot = s.id JOIN database d ON d.id = t.database
CROSS JOIN stream_piece p ON p.whole = t.id
CROSS JOIN stream_chunk c ON c.stream = p.stream AND c.offset < p.upto
JOIN chunk k ON k.id = c.chunk JOIN frame f ON f.id = k.frame JOIN object_file o ON o.id = f.object_file
WHERE s.tombstone IS NULL;

-- The streams that some snapshot needs, and up to which offset.
CREATE VIEW live_stream AS
WITH RECURSIVE live (stream, upto) AS (
    SELECT t.id, t.offset FROM stream t JOIN snapshot s ON s.id = t.snapshot WHERE s.tombstone IS NULL
    UNION
    SELECT t.parent, min(l.upto, t.kept_length) FROM live l JOIN stream t ON t.id = l.stream
    WHERE t.parent IS NOT NULL
)
SELECT stream, max(upto) AS upto FROM live GROUP BY stream;

-- Each place in them that names a chunk.
CREATE VIEW live_place AS
SELECT l.stream, c.offset, c.chunk
FROM live_stream l CROSS JOIN stream_chunk c ON c.stream = l.stream AND c.offset < l.upto
UNION ALL
SELECT l.stream, NULL, c.chunk
FROM live_stream l CROSS JOIN index_part i ON i.stream = l.stream CROSS JOIN index_chunk c ON c.part = i.id;

-- The chunks that some snapshot needs. What isn't here, gc frees.
CREATE VIEW live_chunk AS
SELECT DISTINCT chunk FROM live_place;

CREATE VIEW chunks AS
SELECT lower(hex(k.hash)) AS hash, k.length, f.stored * k.length / max(f.raw, 1) AS stored_bytes,
       lower(hex(o.name)) AS object_file, coalesce(r.places, 0) AS "references"
FROM chunk k JOIN frame f ON f.id = k.frame JOIN object_file o ON o.id = f.object_file
LEFT JOIN (SELECT chunk, count(*) AS places FROM live_place GROUP BY chunk) r ON r.chunk = k.id;

-- A data file's headers and table count as needed as long as a chunk in it is.
CREATE VIEW object_files AS
SELECT lower(hex(o.name)) AS name,
       CASE o.kind WHEN 1 THEN 'data' WHEN 2 THEN 'manifest' WHEN 3 THEN 'tombstone' WHEN 4 THEN 'config' ELSE 'plain' END AS kind,
       o.bytes,
       CASE o.kind WHEN 1 THEN iif(d.live, o.bytes - d.dead, 0) WHEN 2 THEN iif(m.object_file, o.bytes, 0) ELSE o.bytes END
           AS live_bytes
FROM object_file o
LEFT JOIN (
    SELECT f.object_file, sum(coalesce(l.raw, 0)) AS live, sum(f.stored * (f.raw - coalesce(l.raw, 0)) / max(f.raw, 1)) AS dead
    FROM frame f LEFT JOIN (
        SELECT k.frame, sum(k.length) AS raw FROM live_chunk n JOIN chunk k ON k.id = n.chunk GROUP BY k.frame
    ) l ON l.frame = f.id
    GROUP BY f.object_file
) d ON d.object_file = o.id
LEFT JOIN (
    SELECT manifest AS object_file FROM snapshot WHERE tombstone IS NULL
    UNION
    SELECT s.manifest FROM live_stream l JOIN stream t ON t.id = l.stream JOIN snapshot s ON s.id = t.snapshot
) m ON m.object_file = o.id;

-- A stream without a parent has a keyframe.
CREATE VIEW indexes AS
WITH RECURSIVE own (stream, bytes, keyframe, deltas, stored_bytes) AS (
    SELECT i.stream, sum(i.bytes), max(iif(i.keyframe, i.entries, NULL)), sum(NOT i.keyframe), sum(coalesce(c.stored, 0))
    FROM index_part i LEFT JOIN (
        SELECT c.part, sum(f.stored * k.length / max(f.raw, 1)) AS stored
        FROM index_chunk c JOIN chunk k ON k.id = c.chunk JOIN frame f ON f.id = k.frame GROUP BY c.part
    ) c ON c.part = i.id
    GROUP BY i.stream
),
whole (stream, bytes, keyframe, deltas, stored_bytes) AS (
    SELECT * FROM own WHERE keyframe IS NOT NULL
    UNION ALL
    SELECT t.id, w.bytes + coalesce(o.bytes, 0), w.keyframe, w.deltas + coalesce(o.deltas, 0),
           w.stored_bytes + coalesce(o.stored_bytes, 0)
    FROM whole w JOIN stream t ON t.parent = w.stream LEFT JOIN own o ON o.stream = t.id
    WHERE o.keyframe IS NULL
)
SELECT s.name AS snapshot, d.name AS database, w.bytes, w.keyframe, w.deltas, w.stored_bytes
FROM whole w JOIN stream t ON t.id = w.stream JOIN snapshot s ON s.id = t.snapshot JOIN database d ON d.id = t.database
WHERE s.tombstone IS NULL;

-- The object files that each snapshot needs, but for the config. Manifests are needed only to make the catalog
-- anew, and then those of the snapshots that it builds on too, deleted ones included.
CREATE VIEW snapshot_files AS
WITH used (stream, object_file, content, first) AS (
    SELECT c.stream, lower(hex(o.name)), 'tail', min(c.offset)
    FROM stream_chunk c JOIN chunk k ON k.id = c.chunk JOIN frame f ON f.id = k.frame
    JOIN object_file o ON o.id = f.object_file GROUP BY c.stream, o.id
    UNION ALL
    SELECT DISTINCT i.stream, lower(hex(o.name)), 'index', -1
    FROM index_part i JOIN index_chunk c ON c.part = i.id JOIN chunk k ON k.id = c.chunk
    JOIN frame f ON f.id = k.frame JOIN object_file o ON o.id = f.object_file
    UNION ALL
    SELECT t.id, lower(hex(o.name)), 'manifest', -1
    FROM stream t JOIN snapshot s ON s.id = t.snapshot JOIN object_file o ON o.id = s.manifest
)
SELECT DISTINCT s.name AS snapshot, d.name AS database, u.object_file, u.content
FROM snapshot s CROSS JOIN stream t ON t.snapshot = s.id JOIN database d ON d.id = t.database
CROSS JOIN stream_piece p ON p.whole = t.id
CROSS JOIN used u ON u.stream = p.stream AND u.first < p.upto
WHERE s.tombstone IS NULL;

-- What only this snapshot needs: about what deleting it, and gc, would free.
--
-- user: for each needed stream the snapshots that use it, and up to where. For one that is itself a snapshot's,
-- all that use it through a child are one user, NULL, which is enough to tell one from several and keeps
-- this linear. first: the user that reaches furthest, and where the next one ends. Behind that place it is alone.
CREATE VIEW snapshot_own AS
WITH RECURSIVE alive (stream, parent, upto, kept_length, snapshot) AS (
    SELECT l.stream, t.parent, l.upto, t.kept_length, iif(s.tombstone IS NULL, s.id, NULL)
    FROM live_stream l JOIN stream t ON t.id = l.stream JOIN snapshot s ON s.id = t.snapshot
),
user (stream, upto, snapshot) AS (
    SELECT stream, upto, snapshot FROM alive WHERE snapshot IS NOT NULL
    UNION
    SELECT p.stream, min(c.upto, c.kept_length), NULL
    FROM alive c JOIN alive p ON p.stream = c.parent WHERE p.snapshot IS NOT NULL
    UNION
    SELECT t.parent, min(u.upto, t.kept_length), u.snapshot
    FROM user u JOIN stream t ON t.id = u.stream JOIN stream p ON p.id = t.parent JOIN snapshot s ON s.id = p.snapshot
    WHERE s.tombstone IS NOT NULL
),
ranked (stream, upto, snapshot, rank, next) AS (
    SELECT stream, upto, snapshot, row_number() OVER furthest, lead(upto) OVER furthest FROM user
    WINDOW furthest AS (PARTITION BY stream ORDER BY upto DESC)
),
first (stream, upto, snapshot, next) AS (SELECT stream, upto, snapshot, next FROM ranked WHERE rank = 1),
place (chunk, snapshot) AS (
    SELECT c.chunk, iif(c.offset >= coalesce(f.next, 0), f.snapshot, NULL)
    FROM first f CROSS JOIN stream_chunk c ON c.stream = f.stream AND c.offset < f.upto
    UNION ALL
    SELECT c.chunk, iif(f.next IS NULL, f.snapshot, NULL)
    FROM first f CROSS JOIN index_part i ON i.stream = f.stream CROSS JOIN index_chunk c ON c.part = i.id
),
own (chunk, snapshot) AS (
    SELECT chunk, min(snapshot) FROM place GROUP BY chunk
    HAVING count(snapshot) = count(*) AND min(snapshot) = max(snapshot)
)
SELECT s.name AS snapshot, count(k.id) AS chunks, coalesce(sum(k.length), 0) AS bytes,
       coalesce(sum(f.stored * k.length / max(f.raw, 1)), 0) AS stored_bytes
FROM snapshot s LEFT JOIN own w ON w.snapshot = s.id LEFT JOIN chunk k ON k.id = w.chunk LEFT JOIN frame f ON f.id = k.frame
WHERE s.tombstone IS NULL GROUP BY s.id;
