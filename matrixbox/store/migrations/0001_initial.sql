-- Small integers ("nid") stand for long names inside the database: rooms, users, state slots
-- and events. Event nids and stream positions come from one counter, so a larger nid was stored later.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- Positions up to "reserved" may have been handed out; see writer.
CREATE TABLE stream (
    reserved INTEGER NOT NULL
) STRICT;
INSERT INTO stream (reserved) VALUES (0);

CREATE TABLE room (
    room_nid   INTEGER PRIMARY KEY,
    room_id    TEXT NOT NULL UNIQUE,
    version    TEXT NOT NULL,                 -- of the first accepted create event, never read again
    create_nid INTEGER,                       -- event nid; NULL while only an invite or knock is known
    published  INTEGER NOT NULL DEFAULT 0     -- listed in our room directory
) STRICT;

CREATE TABLE user (
    user_nid INTEGER PRIMARY KEY,
    user_id  TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE slot (
    slot_nid  INTEGER PRIMARY KEY,
    type      TEXT NOT NULL,
    state_key TEXT NOT NULL,
    UNIQUE (type, state_key)
) STRICT;

CREATE TABLE event (
    nid          INTEGER PRIMARY KEY,
    event_id     TEXT NOT NULL UNIQUE,
    room_nid     INTEGER NOT NULL,
    pos          INTEGER,                     -- place in the room's timeline; NULL: not in it
    sub          INTEGER NOT NULL,            -- 0, or below 0: history found later, before that place
    status       INTEGER NOT NULL,            -- bits, see events.Status
    slot_nid     INTEGER,                     -- of a state event
    snapshot_nid INTEGER,                     -- state before the event; NULL: outlier
    after_nid    INTEGER,                     -- state after it where that differs
    redacted_by  INTEGER,                     -- nid of the redaction that pruned it
    sent_by      INTEGER,                     -- device_nid, of our own events
    txn_id       TEXT,                        -- the transaction identifier it was sent with
    auth         BLOB NOT NULL,               -- nids of its auth events
    notify       BLOB,                        -- whom it notifies, see counts
    json         BLOB NOT NULL                -- the PDU without unsigned, see bodies
) STRICT;
CREATE INDEX event_timeline ON event (room_nid, pos, sub) WHERE pos IS NOT NULL;

CREATE TABLE room_head (
    room_nid     INTEGER PRIMARY KEY,
    snapshot_nid INTEGER NOT NULL,            -- current state: resolved over the extremities
    extremities  BLOB NOT NULL                -- nids of the forward extremities
) STRICT;

-- Events that others cite and we do not have: where history must be asked for.
CREATE TABLE gap (
    room_nid  INTEGER NOT NULL,
    event_id  TEXT NOT NULL,                  -- missing
    cited_by  INTEGER NOT NULL,               -- nid
    PRIMARY KEY (room_nid, event_id, cited_by)
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshot (
    nid      INTEGER PRIMARY KEY,
    base_nid INTEGER,                         -- NULL: entries are the whole state
    level    INTEGER NOT NULL,
    entries  BLOB NOT NULL                    -- see snapshots
) STRICT;

CREATE TABLE current_state (
    room_nid  INTEGER NOT NULL,
    slot_nid  INTEGER NOT NULL,
    event_nid INTEGER NOT NULL,
    PRIMARY KEY (room_nid, slot_nid)
) STRICT, WITHOUT ROWID;

-- How current state changed at each position; 0 stands for no event.
CREATE TABLE state_change (
    room_nid INTEGER NOT NULL,
    pos      INTEGER NOT NULL,
    slot_nid INTEGER NOT NULL,
    old_nid  INTEGER NOT NULL,
    new_nid  INTEGER NOT NULL,
    PRIMARY KEY (room_nid, pos, slot_nid)
) STRICT, WITHOUT ROWID;

CREATE TABLE member (
    room_nid   INTEGER NOT NULL,
    user_nid   INTEGER NOT NULL,
    membership INTEGER NOT NULL,              -- see members.Membership
    event_nid  INTEGER NOT NULL,              -- 0: the event is not in the room's graph (yet)
    pos        INTEGER NOT NULL,              -- of this change
    forgotten  INTEGER NOT NULL DEFAULT 0,
    is_local   INTEGER NOT NULL,              -- the user has an account here
    PRIMARY KEY (room_nid, user_nid)
) STRICT, WITHOUT ROWID;
CREATE INDEX member_by_user ON member (user_nid, membership);
CREATE INDEX member_local ON member (room_nid, user_nid) WHERE is_local = 1 AND membership = 1;

-- What an invited or knocking user of ours may know of a room.
CREATE TABLE stripped_state (
    room_nid INTEGER NOT NULL,
    user_nid INTEGER NOT NULL,
    json     BLOB NOT NULL,
    PRIMARY KEY (room_nid, user_nid)
) STRICT, WITHOUT ROWID;

-- Redactions whose target has not arrived.
CREATE TABLE held_redaction (
    target_id     TEXT NOT NULL,
    redaction_nid INTEGER NOT NULL,
    PRIMARY KEY (target_id, redaction_nid)
) STRICT, WITHOUT ROWID;

CREATE TABLE relation (
    parent_id TEXT NOT NULL,
    nid       INTEGER NOT NULL,               -- the event that relates to it
    room_nid  INTEGER NOT NULL,
    rel_type  TEXT NOT NULL,
    type      TEXT NOT NULL,
    sender    INTEGER NOT NULL,               -- user_nid
    key       TEXT,                           -- of an annotation
    PRIMARY KEY (parent_id, nid)
) STRICT, WITHOUT ROWID;

CREATE INDEX relation_thread ON relation (room_nid, nid) WHERE rel_type = 'm.thread';

CREATE TABLE alias (
    alias    TEXT PRIMARY KEY,
    room_nid INTEGER NOT NULL,
    creator  INTEGER NOT NULL                 -- user_nid
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_by_room ON alias (room_nid);

CREATE TABLE account (
    user_nid      INTEGER PRIMARY KEY,
    localpart     TEXT NOT NULL UNIQUE,
    password_hash TEXT,                       -- NULL: no password sign-in
    created_ms    INTEGER NOT NULL,
    admin         INTEGER NOT NULL DEFAULT 0,
    guest         INTEGER NOT NULL DEFAULT 0,
    state         INTEGER NOT NULL DEFAULT 0, -- see accounts.AccountState
    locked        INTEGER NOT NULL DEFAULT 0,
    suspended     INTEGER NOT NULL DEFAULT 0,
    departed      INTEGER NOT NULL DEFAULT 0  -- ended, and has left every room
) STRICT;

CREATE TABLE device (
    device_nid   INTEGER PRIMARY KEY AUTOINCREMENT,
    user_nid     INTEGER NOT NULL,
    device_id    TEXT NOT NULL,
    display_name TEXT,
    seen_ms      INTEGER,
    seen_ip      TEXT,
    UNIQUE (user_nid, device_id)
) STRICT;

CREATE TABLE access_token (
    token_hash BLOB PRIMARY KEY,              -- SHA-256
    device_nid INTEGER NOT NULL,
    user_nid   INTEGER NOT NULL,
    expires_ms INTEGER,                       -- NULL: never
    refresh    BLOB                           -- hash of the refresh token that came with it
) STRICT, WITHOUT ROWID;
CREATE INDEX access_token_by_device ON access_token (device_nid);

-- Transaction identifiers of clients, so that a repeat gives the same answer.
CREATE TABLE client_transaction (
    device_nid INTEGER NOT NULL,
    key        BLOB NOT NULL,                 -- hash of endpoint, path and identifier
    event_nid  INTEGER NOT NULL,
    PRIMARY KEY (device_nid, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE profile (
    user_nid INTEGER NOT NULL,
    key      TEXT NOT NULL,
    json     BLOB NOT NULL,
    PRIMARY KEY (user_nid, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE filter (
    user_nid  INTEGER NOT NULL,
    filter_id INTEGER NOT NULL,
    json      BLOB NOT NULL,
    PRIMARY KEY (user_nid, filter_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE account_data (
    user_nid INTEGER NOT NULL,
    room_nid INTEGER NOT NULL,                -- 0: global
    type     TEXT NOT NULL,
    pos      INTEGER NOT NULL,
    json     BLOB NOT NULL,
    PRIMARY KEY (user_nid, room_nid, type)
) STRICT, WITHOUT ROWID;
CREATE INDEX account_data_changed ON account_data (user_nid, pos);

CREATE TABLE receipt (
    room_nid  INTEGER NOT NULL,
    user_nid  INTEGER NOT NULL,
    kind      INTEGER NOT NULL,               -- see receipts.Kind
    thread    TEXT NOT NULL,                  -- '': unthreaded
    event_id  TEXT NOT NULL,
    event_pos INTEGER NOT NULL,               -- the event's place in the timeline
    event_sub INTEGER NOT NULL,
    ts        INTEGER NOT NULL,
    pos       INTEGER NOT NULL,
    PRIMARY KEY (room_nid, user_nid, kind, thread)
) STRICT, WITHOUT ROWID;
