-- Keys of devices, key backups, messages between devices.

CREATE TABLE device_key (
    device_nid INTEGER PRIMARY KEY,
    json       BLOB NOT NULL                  -- as uploaded, with the user's own signatures
) STRICT;

-- Handed out in the order of their upload. Of a key that was handed out a digest stays for a while:
-- a client that uploads it again, because an answer was lost, must not revive it.
CREATE TABLE one_time_key (
    key_nid    INTEGER PRIMARY KEY,
    device_nid INTEGER NOT NULL,
    algorithm  TEXT NOT NULL,
    key_id     TEXT NOT NULL,
    json       BLOB,                          -- NULL: handed out
    digest     BLOB                           -- of one that was handed out
) STRICT;

CREATE INDEX one_time_key_left ON one_time_key (device_nid, algorithm, key_nid)
    WHERE json IS NOT NULL;
CREATE INDEX one_time_key_gone ON one_time_key (device_nid, key_nid) WHERE json IS NULL;

CREATE TABLE fallback_key (
    device_nid INTEGER NOT NULL,
    algorithm  TEXT NOT NULL,
    key_id     TEXT NOT NULL,
    used       INTEGER NOT NULL,
    json       BLOB NOT NULL,
    PRIMARY KEY (device_nid, algorithm)
) STRICT;

CREATE TABLE cross_signing_key (
    user_nid INTEGER NOT NULL,
    usage    TEXT NOT NULL,                   -- master, self_signing, user_signing
    json     BLOB NOT NULL,
    PRIMARY KEY (user_nid, usage)
) STRICT;

CREATE TABLE user_signature (                 -- of one user on another's master key
    signer   INTEGER NOT NULL,                -- user_nid
    target   INTEGER NOT NULL,                -- user_nid
    key_id   TEXT NOT NULL,                   -- the master key
    pos      INTEGER NOT NULL,
    signer_key TEXT NOT NULL,
    signature  TEXT NOT NULL,
    PRIMARY KEY (signer, target, key_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE key_change (
    user_nid  INTEGER PRIMARY KEY,
    pos       INTEGER NOT NULL,               -- of the last change to devices or cross-signing keys
    stream_id INTEGER NOT NULL                -- the last one told to other servers; 0: none
) STRICT;

CREATE INDEX key_change_pos ON key_change (pos);

CREATE TABLE key_notice (                     -- changes that other servers have to be told of
    pos       INTEGER PRIMARY KEY,
    user_nid  INTEGER NOT NULL,
    device_id TEXT,                           -- NULL: cross-signing keys
    stream_id INTEGER NOT NULL,
    prev_id   INTEGER NOT NULL,               -- 0: whoever hears of it asks for the whole list
    room_nid  INTEGER,                        -- only to servers in this room
    told      TEXT NOT NULL DEFAULT ''        -- servers up to this name have been told
) STRICT;

CREATE TABLE remote_device_list (             -- what is known of the devices of users elsewhere
    user_nid  INTEGER PRIMARY KEY,
    stream_id INTEGER NOT NULL,
    since_pos INTEGER NOT NULL,               -- fetched then, and kept up to date since
    stale     INTEGER NOT NULL DEFAULT 0,     -- something was missed
    tries     INTEGER NOT NULL DEFAULT 0,     -- to fetch it anew
    retry_ms  INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX remote_device_list_stale ON remote_device_list (retry_ms) WHERE stale = 1;

CREATE TABLE remote_device (
    user_nid     INTEGER NOT NULL,
    device_id    TEXT NOT NULL,
    display_name TEXT,
    json         BLOB NOT NULL,
    PRIMARY KEY (user_nid, device_id)
) STRICT;

CREATE TABLE inbox (                          -- to-device messages
    device_nid INTEGER NOT NULL,
    pos        INTEGER NOT NULL,
    origin     TEXT,                          -- the server; NULL: ours
    json       BLOB NOT NULL,
    PRIMARY KEY (device_nid, pos)
) STRICT;

CREATE TABLE received_message (               -- to-device messages of other servers
    origin      TEXT NOT NULL,
    message_id  TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    PRIMARY KEY (origin, message_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE backup_version (
    user_nid  INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    algorithm TEXT NOT NULL,
    etag      INTEGER NOT NULL,
    count     INTEGER NOT NULL,
    deleted   INTEGER NOT NULL DEFAULT 0,     -- its number is not used again
    auth_data BLOB NOT NULL,
    PRIMARY KEY (user_nid, version)
) STRICT;

CREATE TABLE backup_key (
    user_nid    INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    room_id     TEXT NOT NULL,
    session_id  TEXT NOT NULL,
    is_verified INTEGER NOT NULL,
    first_index INTEGER NOT NULL,
    forwarded   INTEGER NOT NULL,
    json        BLOB NOT NULL,                -- session_data
    PRIMARY KEY (user_nid, version, room_id, session_id)
) STRICT;

CREATE TABLE dehydrated_device (
    user_nid   INTEGER PRIMARY KEY,
    device_nid INTEGER NOT NULL,
    json       BLOB NOT NULL                  -- device_data
) STRICT;
