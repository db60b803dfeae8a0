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
