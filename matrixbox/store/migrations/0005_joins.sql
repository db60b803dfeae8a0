-- Invitations and knocks of our users in rooms that this server is not in.
CREATE TABLE outside (
    room_nid INTEGER NOT NULL,
    user_nid INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    sender   TEXT NOT NULL,                   -- who invited; of a knock, the user
    servers  TEXT NOT NULL,                   -- that may know the room, separated by blanks
    PRIMARY KEY (room_nid, user_nid)
) STRICT, WITHOUT ROWID;

-- Rooms joined without their members so far.
CREATE TABLE partial_room (
    room_nid INTEGER PRIMARY KEY,
    join_nid INTEGER NOT NULL,                -- our join: the full state is asked for before it
    resident TEXT NOT NULL,                   -- the server that let us in
    servers  BLOB NOT NULL                    -- JSON list: the servers in the room before the join
) STRICT;

-- Rooms that were partial once: who asks for everybody's membership must be told of them anew.
CREATE TABLE completed_room (
    room_nid INTEGER PRIMARY KEY,
    pos      INTEGER NOT NULL                 -- at which their members were all known
) STRICT;
