-- What other servers send.

CREATE TABLE inbound_transaction (
    nid    INTEGER PRIMARY KEY,
    origin TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    answer BLOB NOT NULL,                     -- as it was sent
    UNIQUE (origin, txn_id)
) STRICT;

CREATE TABLE inbound_pdu (                    -- acknowledged, but not in its room yet
    room_nid    INTEGER NOT NULL,
    event_id    TEXT NOT NULL,
    digest      BLOB NOT NULL,                -- of the copy: there may be spoiled ones
    origin      TEXT NOT NULL,                -- who sent this copy
    signed      INTEGER NOT NULL,             -- its signatures were found good
    attempts    INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    due_ms      INTEGER NOT NULL,             -- when to try again
    json        BLOB NOT NULL,                -- see bodies
    PRIMARY KEY (room_nid, event_id, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX inbound_pdu_due ON inbound_pdu (due_ms);

CREATE INDEX inbound_pdu_origin ON inbound_pdu (origin, due_ms);

CREATE TABLE parked_room (                    -- its events cost more than one room may
    room_nid INTEGER PRIMARY KEY,
    since_ms INTEGER NOT NULL,
    reason   TEXT NOT NULL
) STRICT;

CREATE TABLE hearsay (                        -- the state before an event is another server's word
    nid      INTEGER PRIMARY KEY,
    room_nid INTEGER NOT NULL,
    told_nid INTEGER NOT NULL,                -- snapshot: as it was told
    pages    INTEGER NOT NULL,                -- of history that may be fetched to fill the gap
    attempts INTEGER NOT NULL,
    due_ms   INTEGER                          -- when to try to fill it; NULL: not by itself
) STRICT;

CREATE INDEX hearsay_room ON hearsay (room_nid);

CREATE INDEX hearsay_due ON hearsay (due_ms) WHERE due_ms IS NOT NULL;

CREATE TABLE doubt (                          -- soft-failed by a current state that was hearsay
    nid      INTEGER PRIMARY KEY,
    room_nid INTEGER NOT NULL
) STRICT;

CREATE INDEX doubt_room ON doubt (room_nid);

CREATE INDEX event_hearsay ON event (room_nid, nid) WHERE status & 256;

CREATE TABLE revision (                       -- rooms whose states are to be worked out anew
    room_nid INTEGER PRIMARY KEY,
    begun    INTEGER NOT NULL                 -- some are new already
) STRICT;
