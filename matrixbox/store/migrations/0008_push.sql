-- Where notifications are sent.

-- The actions of push rules that matched some event, each list once: see rooms.counts.
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
