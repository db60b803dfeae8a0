-- More about sessions and accounts.

CREATE TABLE openid_token (
    token_hash BLOB PRIMARY KEY,              -- SHA-256
    user_nid   INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX openid_token_by_user ON openid_token (user_nid);
