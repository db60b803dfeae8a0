-- Events that clients have asked to send later (MSC4140).

CREATE TABLE delayed_event (
    nid        INTEGER PRIMARY KEY,
    delay_id   TEXT NOT NULL UNIQUE,
    user_nid   INTEGER NOT NULL,
    device_nid INTEGER NOT NULL,
    txn_key    BLOB,                          -- hash of endpoint, path and identifier
    txn_id     TEXT,
    room_nid   INTEGER NOT NULL,
    type       TEXT NOT NULL,
    state_key  TEXT,
    content    BLOB NOT NULL,
    delay_ms   INTEGER NOT NULL,
    since_ms   INTEGER NOT NULL,              -- scheduled, or restarted
    due_ms     INTEGER,                       -- NULL: it was sent, cancelled, or could not be sent
    ended_ms   INTEGER,
    event_id   TEXT,                          -- of the event that it became
    error      BLOB                           -- why it could not be sent
) STRICT;
CREATE INDEX delayed_event_due ON delayed_event (due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX delayed_event_by_user ON delayed_event (user_nid, due_ms);
CREATE UNIQUE INDEX delayed_event_by_transaction ON delayed_event (device_nid, txn_key)
    WHERE txn_key IS NOT NULL;

-- For as long as there are the events: their senders are told.
CREATE TABLE was_delayed (
    event_nid INTEGER PRIMARY KEY,
    delay_id  TEXT NOT NULL
) STRICT;

-- What users find inappropriate; for those who administer the server.
CREATE TABLE report (
    nid      INTEGER PRIMARY KEY,
    reporter INTEGER NOT NULL,                -- user_nid
    made_ms  INTEGER NOT NULL,
    user_id  TEXT NOT NULL,                   -- who, where and what is reported; '': not said
    room_id  TEXT NOT NULL,
    event_id TEXT NOT NULL,
    reason   TEXT NOT NULL,
    UNIQUE (reporter, user_id, room_id, event_id)
) STRICT;
