-- Connections of simplified sliding sync.

-- A connection knows two points: the one that the client has shown to have reached, and the last
-- one that it was told of.  What lies between is "pending" until the client shows that, too.
CREATE TABLE sliding_connection (
    conn_nid       INTEGER PRIMARY KEY AUTOINCREMENT,
    device_nid     INTEGER NOT NULL,
    conn_id        TEXT NOT NULL,
    used_ms        INTEGER NOT NULL,          -- roughly
    serial         INTEGER NOT NULL,          -- of the point that was reached
    pending_serial INTEGER NOT NULL,
    wide           BLOB NOT NULL,             -- what is not about one room; see sync.sliding_entries
    pending        BLOB NOT NULL,
    configs        BLOB NOT NULL,             -- sets of required state, by number
    UNIQUE (device_nid, conn_id)
) STRICT;

CREATE TABLE sliding_room (                   -- what a connection knows of a room
    conn_nid INTEGER NOT NULL,
    room_nid INTEGER NOT NULL,
    entry    BLOB NOT NULL,
    PRIMARY KEY (conn_nid, room_nid)
) STRICT, WITHOUT ROWID;

CREATE TABLE thread_subscription (
    user_nid    INTEGER NOT NULL,
    room_nid    INTEGER NOT NULL,
    root_id     TEXT NOT NULL,                -- event id
    pos         INTEGER NOT NULL,             -- of the last change
    state       INTEGER NOT NULL,             -- see store.thread_subscriptions.Kind
    until_pos   INTEGER NOT NULL,             -- events up to here do not subscribe automatically
    PRIMARY KEY (user_nid, room_nid, root_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX thread_subscription_changed ON thread_subscription (user_nid, pos);
CREATE INDEX thread_subscription_followers ON thread_subscription (room_nid, root_id)
    WHERE state > 0;
