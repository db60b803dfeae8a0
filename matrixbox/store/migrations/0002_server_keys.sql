-- Keys of other servers, and our own old ones.

-- What is known of other servers' keys. A key that is old or has vanished stays for old events.
CREATE TABLE server_key (
    server         TEXT NOT NULL,
    key_id         TEXT NOT NULL,
    public_key     BLOB NOT NULL,
    valid_until_ms INTEGER NOT NULL,          -- at most 7 days after it was fetched
    is_old         INTEGER NOT NULL,          -- signs no requests any more
    PRIMARY KEY (server, key_id)
) STRICT, WITHOUT ROWID;

-- The last answer of each server about its keys, which we repeat as a notary.
CREATE TABLE server_key_answer (
    server         TEXT PRIMARY KEY,
    fetched_ms     INTEGER NOT NULL,
    valid_until_ms INTEGER NOT NULL,          -- as in server_key
    json           BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX server_key_answer_by_age ON server_key_answer (fetched_ms);

-- Keys that this server has signed with before.
CREATE TABLE old_key (
    key_id     TEXT PRIMARY KEY,
    public_key BLOB NOT NULL,
    expired_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
