-- What the migrations make, up to number 12. Made by a command: don't edit.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE stream (
    reserved INTEGER NOT NULL
) STRICT;

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

CREATE TABLE stripped_state (
    room_nid INTEGER NOT NULL,
    user_nid INTEGER NOT NULL,
    json     BLOB NOT NULL,
    PRIMARY KEY (room_nid, user_nid)
) STRICT, WITHOUT ROWID;

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

CREATE TABLE sqlite_sequence(name,seq);

CREATE TABLE access_token (
    token_hash BLOB PRIMARY KEY,              -- SHA-256
    device_nid INTEGER NOT NULL,
    user_nid   INTEGER NOT NULL,
    expires_ms INTEGER,                       -- NULL: never
    refresh    BLOB                           -- hash of the refresh token that came with it
) STRICT, WITHOUT ROWID;

CREATE INDEX access_token_by_device ON access_token (device_nid);

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

CREATE TABLE server_key (
    server         TEXT NOT NULL,
    key_id         TEXT NOT NULL,
    public_key     BLOB NOT NULL,
    valid_until_ms INTEGER NOT NULL,          -- at most 7 days after it was fetched
    is_old         INTEGER NOT NULL,          -- signs no requests any more
    PRIMARY KEY (server, key_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE server_key_answer (
    server         TEXT PRIMARY KEY,
    fetched_ms     INTEGER NOT NULL,
    valid_until_ms INTEGER NOT NULL,          -- as in server_key
    json           BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX server_key_answer_by_age ON server_key_answer (fetched_ms);

CREATE TABLE old_key (
    key_id     TEXT PRIMARY KEY,
    public_key BLOB NOT NULL,
    expired_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE server (
    server_nid INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    cursor     INTEGER NOT NULL DEFAULT 0,
    quick_ms   INTEGER NOT NULL DEFAULT 0,    -- when it last took something within little time
    failures   INTEGER NOT NULL DEFAULT 0,    -- in a row
    kind       INTEGER NOT NULL DEFAULT 0,    -- of the last failure, see outbound.FailureKind
    retry_ms   INTEGER NOT NULL DEFAULT 0     -- not before then
) STRICT;

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

CREATE TABLE room_server_past (
    server_nid INTEGER NOT NULL,
    room_nid   INTEGER NOT NULL,
    since      INTEGER NOT NULL,
    until      INTEGER NOT NULL,
    PRIMARY KEY (server_nid, room_nid, until)
) STRICT, WITHOUT ROWID;

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

CREATE TRIGGER room_server_gone AFTER UPDATE ON room_server
WHEN new.joined <= 0 AND NOT new.assumed BEGIN
    INSERT INTO room_server_past (server_nid, room_nid, since, until)
        SELECT new.server_nid, new.room_nid, new.since, new.until WHERE EXISTS
        (SELECT 1 FROM outbound_event WHERE room_nid = new.room_nid AND pos >= new.since)
        ON CONFLICT DO NOTHING;
    DELETE FROM room_server WHERE room_nid = new.room_nid AND server_nid = new.server_nid;
END;

CREATE TABLE outbound_direct (
    server_nid INTEGER NOT NULL,
    pos        INTEGER NOT NULL,
    nid        INTEGER NOT NULL,
    PRIMARY KEY (server_nid, pos, nid)
) STRICT, WITHOUT ROWID;

CREATE INDEX outbound_direct_by_pos ON outbound_direct (pos);

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

CREATE TABLE outside (
    room_nid INTEGER NOT NULL,
    user_nid INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    sender   TEXT NOT NULL,                   -- who invited; of a knock, the user
    servers  TEXT NOT NULL,                   -- that may know the room, separated by blanks
    PRIMARY KEY (room_nid, user_nid)
) STRICT, WITHOUT ROWID;

CREATE TABLE partial_room (
    room_nid INTEGER PRIMARY KEY,
    join_nid INTEGER NOT NULL,                -- our join: the full state is asked for before it
    resident TEXT NOT NULL,                   -- the server that let us in
    servers  BLOB NOT NULL                    -- JSON list: the servers in the room before the join
) STRICT;

CREATE TABLE completed_room (
    room_nid INTEGER PRIMARY KEY,
    pos      INTEGER NOT NULL                 -- at which their members were all known
) STRICT;

CREATE TABLE device_key (
    device_nid INTEGER PRIMARY KEY,
    json       BLOB NOT NULL                  -- as uploaded, with the user's own signatures
) STRICT;

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

CREATE TABLE push_actions (
    actions_nid INTEGER PRIMARY KEY,
    json        TEXT NOT NULL UNIQUE
) STRICT;

CREATE INDEX event_notifying ON event (pos, sub) WHERE notify IS NOT NULL;

CREATE TABLE pusher (
    pusher_nid          INTEGER PRIMARY KEY AUTOINCREMENT,
    user_nid            INTEGER NOT NULL,
    device_nid          INTEGER NOT NULL,     -- that set it; it goes when the device does
    app_id              TEXT NOT NULL,
    pushkey             TEXT NOT NULL,
    app_display_name    TEXT NOT NULL,
    device_display_name TEXT NOT NULL,
    profile_tag         TEXT,
    lang                TEXT NOT NULL,
    data                BLOB NOT NULL,        -- JSON, with the gateway's URL
    set_ms              INTEGER NOT NULL,
    cursor              INTEGER NOT NULL,     -- what happened up to here has been sent
    badge               INTEGER,              -- the number that the gateway was told; NULL: none
    failures            INTEGER NOT NULL,     -- in a row
    failing_since_ms    INTEGER,
    retry_ms            INTEGER NOT NULL,
    UNIQUE (app_id, pushkey, user_nid)
) STRICT;

CREATE INDEX pusher_by_user ON pusher (user_nid);

CREATE INDEX pusher_by_device ON pusher (device_nid);

CREATE TABLE openid_token (
    token_hash BLOB PRIMARY KEY,              -- SHA-256
    user_nid   INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX openid_token_by_user ON openid_token (user_nid);

CREATE TABLE refresh_token (
    token_hash BLOB PRIMARY KEY,              -- SHA-256
    device_nid INTEGER NOT NULL,
    user_nid   INTEGER NOT NULL,
    state      INTEGER NOT NULL,              -- see refresh_tokens.Use
    made_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX refresh_token_by_device ON refresh_token (device_nid, made_ms);

CREATE TABLE erased_user (
    user_nid INTEGER PRIMARY KEY,
    pos      INTEGER NOT NULL                 -- who joins a room later sees nothing of them
) STRICT;

CREATE TABLE undecided_event (
    room_nid INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    is_state INTEGER NOT NULL,                -- told as part of the state before our join
    json     BLOB NOT NULL,
    PRIMARY KEY (room_nid, event_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE undecided_room (
    room_nid INTEGER PRIMARY KEY,
    join_nid INTEGER NOT NULL,
    attempts INTEGER NOT NULL                 -- to get the keys, in vain
) STRICT;

CREATE TABLE owed_join (
    room_nid INTEGER NOT NULL,
    user_nid INTEGER NOT NULL,
    servers  TEXT NOT NULL,                   -- that were handed one, separated by blanks
    content  BLOB NOT NULL,                   -- JSON: what the user wanted the join to say
    goes_on  INTEGER NOT NULL,                -- 1: it is tried again; 0: it is taken back
    attempts INTEGER NOT NULL,
    PRIMARY KEY (room_nid, user_nid)
) STRICT, WITHOUT ROWID;

CREATE TABLE parted (
    event_nid  INTEGER NOT NULL,
    server_nid INTEGER NOT NULL,
    PRIMARY KEY (event_nid, server_nid)
) STRICT, WITHOUT ROWID;

CREATE TABLE threepid (
    medium       TEXT NOT NULL,
    address      TEXT NOT NULL,               -- folded
    user_nid     INTEGER NOT NULL,
    validated_ms INTEGER NOT NULL,
    added_ms     INTEGER NOT NULL,
    PRIMARY KEY (medium, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX threepid_by_user ON threepid (user_nid);

CREATE TABLE validation (
    sid          TEXT PRIMARY KEY,
    purpose      INTEGER NOT NULL,            -- see addresses.Purpose
    address      TEXT NOT NULL,
    secret_hash  BLOB NOT NULL,               -- SHA-256 of the client's secret
    send_attempt INTEGER NOT NULL,
    token_hash   BLOB,                        -- SHA-256; NULL: no link was sent, or it was used
    next_link    TEXT,
    until_ms     INTEGER NOT NULL,
    validated_ms INTEGER,
    UNIQUE (purpose, address, secret_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE mail (
    mail_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    recipient TEXT NOT NULL,
    subject   TEXT NOT NULL,
    text      TEXT NOT NULL,
    due_ms    INTEGER NOT NULL,
    until_ms  INTEGER NOT NULL,               -- of no use any more
    attempts  INTEGER NOT NULL DEFAULT 0
) STRICT;

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

CREATE TABLE was_delayed (
    event_nid INTEGER PRIMARY KEY,
    delay_id  TEXT NOT NULL
) STRICT;

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
