-- What is to be sent to other servers, and which servers are in which rooms.

-- Other servers and our own. Of each, as a destination: "cursor" is the stream position up to which
-- it has what concerns it; times are of the wall clock.
CREATE TABLE server (
    server_nid INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    cursor     INTEGER NOT NULL DEFAULT 0,
    quick_ms   INTEGER NOT NULL DEFAULT 0,    -- when it last took something within little time
    failures   INTEGER NOT NULL DEFAULT 0,    -- in a row
    kind       INTEGER NOT NULL DEFAULT 0,    -- of the last failure, see outbound.FailureKind
    retry_ms   INTEGER NOT NULL DEFAULT 0     -- not before then
) STRICT;

-- Servers with joined users in a room.  The triggers below keep it with the memberships.
CREATE TABLE room_server (
    room_nid   INTEGER NOT NULL,
    server_nid INTEGER NOT NULL,
    joined     INTEGER NOT NULL,              -- how many users
    assumed    INTEGER NOT NULL DEFAULT 0,    -- somebody says so, while the members are unknown
    since      INTEGER NOT NULL,              -- stream position at which the server came
    until      INTEGER,                       -- at which its last user left; the row goes then
    PRIMARY KEY (room_nid, server_nid)
) STRICT, WITHOUT ROWID;
CREATE INDEX room_server_by_server ON room_server (server_nid, room_nid);

-- Earlier stays of servers in rooms, while they may have to be told of what was sent meanwhile.
CREATE TABLE room_server_past (
    server_nid INTEGER NOT NULL,
    room_nid   INTEGER NOT NULL,
    since      INTEGER NOT NULL,
    until      INTEGER NOT NULL,
    PRIMARY KEY (server_nid, room_nid, until)
) STRICT, WITHOUT ROWID;

-- Events to give to the servers of their rooms, the newest of each room: one row for all servers.
CREATE TABLE outbound_event (
    room_nid INTEGER NOT NULL,
    pos      INTEGER NOT NULL,                -- servers that were in the room then get it
    nid      INTEGER NOT NULL,
    PRIMARY KEY (room_nid, pos, nid)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER member_new AFTER INSERT ON member WHEN new.membership = 1 BEGIN
    INSERT INTO server (name)
        SELECT substr(user_id, instr(user_id, ':') + 1) FROM user WHERE user_nid = new.user_nid
        ON CONFLICT DO NOTHING;
    INSERT INTO room_server (room_nid, server_nid, joined, since)
        SELECT new.room_nid, server_nid, 1, new.pos FROM server WHERE name =
        (SELECT substr(user_id, instr(user_id, ':') + 1) FROM user WHERE user_nid = new.user_nid)
        ON CONFLICT DO UPDATE SET joined = joined + 1;
END;

CREATE TRIGGER member_joined AFTER UPDATE OF membership ON member
WHEN new.membership = 1 AND old.membership != 1 BEGIN
    INSERT INTO server (name)
        SELECT substr(user_id, instr(user_id, ':') + 1) FROM user WHERE user_nid = new.user_nid
        ON CONFLICT DO NOTHING;
    INSERT INTO room_server (room_nid, server_nid, joined, since)
        SELECT new.room_nid, server_nid, 1, new.pos FROM server WHERE name =
        (SELECT substr(user_id, instr(user_id, ':') + 1) FROM user WHERE user_nid = new.user_nid)
        ON CONFLICT DO UPDATE SET joined = joined + 1;
END;

CREATE TRIGGER member_left AFTER UPDATE OF membership ON member
WHEN old.membership = 1 AND new.membership != 1 BEGIN
    UPDATE room_server SET joined = joined - 1, until = new.pos
        WHERE room_nid = new.room_nid AND server_nid = (SELECT server_nid FROM server WHERE name =
        (SELECT substr(user_id, instr(user_id, ':') + 1) FROM user WHERE user_nid = new.user_nid));
END;

CREATE TRIGGER member_removed AFTER DELETE ON member WHEN old.membership = 1 BEGIN
    UPDATE room_server SET joined = joined - 1, until = (SELECT MAX(nid) FROM event)
        WHERE room_nid = old.room_nid AND server_nid = (SELECT server_nid FROM server WHERE name =
        (SELECT substr(user_id, instr(user_id, ':') + 1) FROM user WHERE user_nid = old.user_nid));
END;

-- A stay is over; what was sent during it is still owed.
CREATE TRIGGER room_server_gone AFTER UPDATE ON room_server
WHEN new.joined <= 0 AND NOT new.assumed BEGIN
    INSERT INTO room_server_past (server_nid, room_nid, since, until)
        SELECT new.server_nid, new.room_nid, new.since, new.until WHERE EXISTS
        (SELECT 1 FROM outbound_event WHERE room_nid = new.room_nid AND pos >= new.since)
        ON CONFLICT DO NOTHING;
    DELETE FROM room_server WHERE room_nid = new.room_nid AND server_nid = new.server_nid;
END;

-- Events for servers that are not in the room, such as that of a user whose invite is withdrawn.
CREATE TABLE outbound_direct (
    server_nid INTEGER NOT NULL,
    pos        INTEGER NOT NULL,
    nid        INTEGER NOT NULL,
    PRIMARY KEY (server_nid, pos, nid)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbound_direct_by_pos ON outbound_direct (pos);

-- EDUs that must arrive: device lists, to-device messages.
CREATE TABLE outbound_edu (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    server_nid INTEGER NOT NULL,
    type       TEXT NOT NULL,
    subject    TEXT NOT NULL,                 -- whom it is about; the newest of a subject is kept
    json       BLOB NOT NULL
) STRICT;
CREATE INDEX outbound_edu_by_server ON outbound_edu (server_nid, seq);


CREATE TABLE presence (
    user_nid  INTEGER PRIMARY KEY,
    state     INTEGER NOT NULL,               -- see presence.State
    status    TEXT,                           -- what the user says
    active_ms INTEGER NOT NULL                -- when last active
) STRICT;
