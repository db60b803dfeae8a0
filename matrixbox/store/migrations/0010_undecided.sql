-- Events of joined rooms whose signers' keys could not be had, with those that cite them.
CREATE TABLE undecided_event (
    room_nid INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    is_state INTEGER NOT NULL,                -- told as part of the state before our join
    json     BLOB NOT NULL,
    PRIMARY KEY (room_nid, event_id)
) STRICT, WITHOUT ROWID;

-- The joins whose state such events belong to.
CREATE TABLE undecided_room (
    room_nid INTEGER PRIMARY KEY,
    join_nid INTEGER NOT NULL,
    attempts INTEGER NOT NULL                 -- to get the keys, in vain
) STRICT;

-- Joins that others may have let in, and that did not come to their end here.
CREATE TABLE owed_join (
    room_nid INTEGER NOT NULL,
    user_nid INTEGER NOT NULL,
    servers  TEXT NOT NULL,                   -- that were handed one, separated by blanks
    content  BLOB NOT NULL,                   -- JSON: what the user wanted the join to say
    goes_on  INTEGER NOT NULL,                -- 1: it is tried again; 0: it is taken back
    attempts INTEGER NOT NULL,
    PRIMARY KEY (room_nid, user_nid)
) STRICT, WITHOUT ROWID;

-- Bans of ours that were given to servers whose users had joined on another branch of a room.
CREATE TABLE parted (
    event_nid  INTEGER NOT NULL,
    server_nid INTEGER NOT NULL,
    PRIMARY KEY (event_nid, server_nid)
) STRICT, WITHOUT ROWID;
