"""How the bodies of events are stored: packed, since most of a PDU says what every PDU says.

A body is a byte that tells the form and what follows it: a brace, and it is JSON as it stands; 1,
and it is deflated with the dictionary of that number, which halves events of common sizes.  What
does not get smaller stays JSON.  A dictionary is never edited after its release: there would be a
new number.
"""

from __future__ import annotations

import zlib

_DICTIONARY_1 = (
    b'"formatted_body":"","format":"org.matrix.custom.html","m.new_content":{"body":"",'
    b'"m.relates_to":{"event_id":"$","rel_type":"m.replace"}"rel_type":"m.thread"'
    b'"is_falling_back":true,"m.in_reply_to":{"event_id":"$"}"key":"","rel_type":"m.annotation"}}'
    b'"type":"m.reaction"}"type":"m.room.redaction"}"redacts":"$"{"ciphertext":"","device_id":"",'
    b'"sender_key":"","session_id":"","algorithm":"m.megolm.v1.aes-sha2""type":"m.room.encrypted"}'
    b'"users_default":0,"state_default":50,"type":"m.room.power_levels"}"type":"m.room.topic"}'
    b'"history_visibility":"shared""join_rule":"public""type":"m.room.name"}"creator":"@'
    b'"info":{"h":,"mimetype":"image/jpeg","size":,"w":},"url":"mxc://"msgtype":"m.image""m.notice"'
    b'"join_authorised_via_users_server":"@"reason":"","membership":"leave""membership":"invite"'
    b'{"auth_events":["$","$","$","$"],"content":{"avatar_url":"mxc://","displayname":"",'
    b'"membership":"join"},"depth":,"hashes":{"sha256":""},"origin_server_ts":,"prev_events":["$"],'
    b'"room_id":"!","sender":"@","signatures":{"":{"ed25519:":""}},"state_key":"@",'
    b'"type":"m.room.member"}'
    b'{"auth_events":["$","$","$"],"content":{"body":"","m.mentions":{},"msgtype":"m.text"},'
    b'"depth":1,"hashes":{"sha256":""},"origin_server_ts":17,"prev_events":["$"],'
    b'"room_id":"!","sender":"@","signatures":{"":{"ed25519:auto":""}},"type":"m.room.message"}'
)
# A window of 4 KiB: it takes the dictionary and most events, and little to set up.  Copies of a
# fresh compressor are cheaper than new ones.
_WINDOW = 12
_PACKER = zlib.compressobj(
    6, zlib.DEFLATED, -_WINDOW, 4, zlib.Z_DEFAULT_STRATEGY, zdict=_DICTIONARY_1
)
_UNPACKER = zlib.decompressobj(-_WINDOW, zdict=_DICTIONARY_1)
_DEFLATED = b"\x01"
_MIN_BYTES = 64  # below, nothing is won
MAX_BYTES = 16 * 2**20  # of an unpacked body; far above what an event may have


def pack(json: bytes) -> bytes:
    """An event's JSON as it is stored."""
    if len(json) < _MIN_BYTES:
        return json
    packer = _PACKER.copy()
    packed = _DEFLATED + packer.compress(json) + packer.flush()
    return packed if len(packed) < len(json) else json


def unpack(stored: bytes) -> bytes:
    """The inverse of :func:`pack`.  Raises ValueError for what it did not make."""
    if stored[:1] == b"{":
        return stored
    if stored[:1] != _DEFLATED:
        raise ValueError("an event is stored in an unknown form")
    unpacker = _UNPACKER.copy()
    try:
        json = unpacker.decompress(stored[1:], MAX_BYTES)
    except zlib.error as error:
        raise ValueError("an event's stored form is damaged") from error
    if not unpacker.eof:
        raise ValueError("an event's stored form is cut off")
    return json
