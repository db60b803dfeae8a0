-- E-mail addresses of accounts, their validation, and the mail that waits to be sent.

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
