-- More about sessions and accounts.

CREATE TABLE openid_token (
    token_hash BLOB PRIMARY KEY,              -- SHA-256
    user_nid   INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX openid_token_by_user ON openid_token (user_nid);

-- Of each session one chain: see accounts.refreshing.
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
