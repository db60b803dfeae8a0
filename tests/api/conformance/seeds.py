"""For every endpoint a request that is right: what the generators of wrong ones begin with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from attrs import define, field

from tests.api.conformance.house import PASSWORD, House, User
from tests.api.conformance.refusals import Place, Target

CLIENT = "/_matrix/client"
ROOM = f"{CLIENT}/v3/rooms/{{room_id}}"
USER = f"{CLIENT}/v3/user/{{user_id}}"
RULE = f"{CLIENT}/v3/pushrules/global/{{kind}}/{{rule_id}}"
RELATIONS = f"{CLIENT}/v1/rooms/{{room_id}}/relations/{{event_id}}"
THREAD = f"{CLIENT}/unstable/io.element.msc4306/rooms/{{room_id}}/thread/{{event_id}}/subscription"
PAGE = {"dir": "b", "from": "t5_0", "to": "t1_0", "limit": "5"}
FILTER = {
    "event_fields": ["type", "content.body"],
    "event_format": "client",
    "account_data": {"not_types": ["m.x*"]},
    "room": {
        "rooms": ["!a:b.test"],
        "timeline": {"limit": 5, "types": ["m.room.*"], "senders": ["@a:b.test"]},
        "state": {"lazy_load_members": True},
        "include_leave": True,
    },
}
EVENT_FILTER = {"types": ["m.room.message"], "not_senders": ["@a:b.test"], "contains_url": False}
LEVELS = {"users": {"@a:b.test": 100}, "events": {"m.room.name": 50}, "ban": 50, "invite": 0}
SLIDING = {
    "conn_id": "main",
    "txn_id": "t",
    "lists": {
        "all": {
            "ranges": [[0, 19]],
            "timeline_limit": 5,
            "required_state": [["m.room.name", ""], ["m.room.member", "$LAZY"], ["*", "*"]],
            "filters": {
                "is_dm": False,
                "spaces": ["!a:b.test"],
                "is_encrypted": False,
                "is_invite": False,
                "room_types": [None, "m.space"],
                "not_room_types": ["x"],
                "tags": ["m.favourite"],
                "not_tags": ["m.lowpriority"],
            },
        }
    },
    "room_subscriptions": {
        "%room_id": {"timeline_limit": 20, "required_state": [["m.room.member", "$ME"]]}
    },
    "extensions": {
        "to_device": {"enabled": True, "since": "5", "limit": 10},
        "e2ee": {"enabled": True},
        "account_data": {"enabled": True, "lists": ["all"], "rooms": ["*"]},
        "receipts": {"enabled": True},
        "typing": {"enabled": True},
        "io.element.msc4308.thread_subscriptions": {"enabled": True, "limit": 5},
    },
}
SLIDING_V4 = {
    "conn_id": "main",
    "timeout": 0,
    "set_presence": "offline",
    "lists": {
        "all": {
            "range": [0, 19],
            "timeline_limit": 5,
            "required_state": {
                "include": [{"type": "m.room.name", "state_key": ""}, {}],
                "exclude": [{"type": "m.room.create"}],
                "lazy_members": True,
            },
            "filters": {"is_invited": False},
        }
    },
    "extensions": {"typing": {"enabled": True, "lists": ["all"], "rooms": []}},
}
RELATED = {
    "msgtype": "m.text",
    "body": "x",
    "m.mentions": {"user_ids": ["@a:b.test"], "room": True},
    "m.new_content": {"msgtype": "m.text", "body": "y"},
    "m.relates_to": {
        "rel_type": "m.thread",
        "event_id": "$event",
        "key": "k",
        "is_falling_back": True,
        "m.in_reply_to": {"event_id": "$event"},
    },
}

SIGNED = {"user_id": "%user_id", "signatures": {"%user_id": {"ed25519:D": "c2ln"}}}
DEVICE_KEYS = {
    **SIGNED,
    "device_id": "%device_id",
    "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
    "keys": {"ed25519:D": "a2V5", "curve25519:D": "a2V5"},
}
PREKEYS = {"signed_curve25519:AAAA": {"key": "a2V5", "signatures": SIGNED["signatures"]}}
CROSS_SIGNING = {**SIGNED, "usage": ["master"], "keys": {"ed25519:a2V5": "a2V5"}}
BACKED_UP = {
    "first_message_index": 1,
    "forwarded_count": 0,
    "is_verified": False,
    "session_data": {"ciphertext": "x"},
}
BACKUP = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "x"}}
BACKUP_KEYS = f"{CLIENT}/v3/room_keys/keys"
DELAYED = f"{CLIENT}/unstable/org.matrix.msc4140"
DEHYDRATED = f"{CLIENT}/unstable/org.matrix.msc3814.v1/dehydrated_device"

# By method and path: bodies and queries. Texts that begin with % stand for a value of the place.
IDENTITY = {"client_secret": "s", "id_server": "id.test", "id_access_token": "t", "sid": "1"}
BODIES: Mapping[str, list[Any]] = {
    f"POST {CLIENT}/v3/register": [
        {
            "username": "somebody",
            "password": PASSWORD,
            "device_id": "D",
            "initial_device_display_name": "d",
            "inhibit_login": False,
            "auth": {"type": "m.login.dummy"},
        }
    ],
    f"POST {CLIENT}/v3/login": [
        {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "%user_id"},
            "password": PASSWORD,
            "device_id": "D",
            "initial_device_display_name": "d",
        },
        {"type": "m.login.password", "user": "%user_id", "password": PASSWORD},
    ],
    f"POST {CLIENT}/v3/user_directory/search": [{"search_term": "x y", "limit": 5}],
    **{
        f"POST {CLIENT}/v3/{path}/email/requestToken": [
            {
                "client_secret": "s",
                "email": "a@example.org",
                "send_attempt": 1,
                "next_link": "https://app.test/next",
            }
        ]
        for path in ("register", "account/password", "account/3pid")
    },
    **{
        f"POST {CLIENT}/v3/{path}/msisdn/requestToken": [
            {"client_secret": "s", "country": "GB", "phone_number": "1", "send_attempt": 1}
        ]
        for path in ("register", "account/password", "account/3pid")
    },
    f"POST {CLIENT}/v3/account/3pid/add": [{"client_secret": "s", "sid": "1"}],
    f"POST {CLIENT}/v3/account/3pid/bind": [IDENTITY],
    f"POST {CLIENT}/v3/account/3pid": [{"three_pid_creds": IDENTITY}],
    f"POST {CLIENT}/v3/account/3pid/delete": [{"medium": "email", "address": "a@example.org"}],
    f"POST {CLIENT}/v3/account/3pid/unbind": [{"medium": "email", "address": "a@example.org"}],
    f"POST {CLIENT}/v3/refresh": [{"refresh_token": "mbr_x"}],
    f"POST {CLIENT}/v1/login/get_token": [{}],
    f"POST {CLIENT}/v3/account/deactivate": [{"erase": True, "id_server": "home.test"}],
    f"PUT {CLIENT}/v1/admin/lock/{{user_id}}": [{"locked": False}],
    f"PUT {CLIENT}/v1/admin/suspend/{{user_id}}": [{"suspended": False}],
    f"POST {CLIENT}/v3/account/password": [{"new_password": PASSWORD, "logout_devices": False}],
    f"DELETE {CLIENT}/v3/devices/{{device_id}}": [{}],
    f"POST {CLIENT}/v3/delete_devices": [{"devices": ["D", "E"]}],
    f"PUT {CLIENT}/v3/devices/{{device_id}}": [{"display_name": "d"}],
    f"PUT {USER}/account_data/{{type}}": [{"a": {"b": [1]}}],
    f"PUT {USER}/rooms/{{room_id}}/account_data/{{type}}": [{"a": {"b": [1]}}],
    f"PUT {USER}/rooms/{{room_id}}/tags/{{tag}}": [{"order": 0.5}],
    f"POST {USER}/filter": [FILTER],
    f"PUT {CLIENT}/v3/directory/room/{{room_alias}}": [{"room_id": "%room_id"}],
    f"PUT {CLIENT}/v3/directory/list/room/{{room_id}}": [{"visibility": "public"}],
    f"POST {CLIENT}/v3/publicRooms": [
        {
            "limit": 5,
            "since": "p1",
            "filter": {"generic_search_term": "x", "room_types": [None, "m.space"]},
            "include_all_networks": False,
        }
    ],
    f"POST {ROOM}/join": [{"reason": "r", "third_party_signed": {}}],
    f"POST {CLIENT}/v3/join/{{room_id_or_alias}}": [{"reason": "r"}],
    f"POST {CLIENT}/v3/knock/{{room_id_or_alias}}": [{"reason": "r"}],
    f"POST {ROOM}/leave": [{"reason": "r"}],
    f"POST {ROOM}/invite": [{"user_id": "%other", "reason": "r"}],
    f"POST {ROOM}/kick": [{"user_id": "%other", "reason": "r"}],
    f"POST {ROOM}/ban": [{"user_id": "%other", "reason": "r"}],
    f"POST {ROOM}/unban": [{"user_id": "%other", "reason": "r"}],
    f"POST {CLIENT}/unstable/org.matrix.simplified_msc3575/sync": [SLIDING],
    f"POST {CLIENT}/v4/sync": [SLIDING_V4],
    f"PUT {THREAD}": [{"automatic": "%event_id"}],
    f"PUT {CLIENT}/v3/profile/{{user_id}}/{{key}}": [{"displayname": "A"}],
    f"PUT {RULE}": [
        {
            "actions": ["notify", {"set_tweak": "sound", "value": "default"}],
            "conditions": [
                {"kind": "event_match", "key": "content.body", "pattern": "x"},
                {"kind": "room_member_count", "is": ">2"},
                {"kind": "event_property_is", "key": "type", "value": True},
            ],
            "pattern": "x",
        }
    ],
    f"POST {CLIENT}/v3/pushers/set": [
        {
            "kind": "http",
            "app_id": "org.example.app",
            "pushkey": "key",
            "app_display_name": "App",
            "device_display_name": "Phone",
            "lang": "en",
            "profile_tag": "x",
            "append": True,
            "data": {
                "url": "https://push.invalid/_matrix/push/v1/notify",
                "format": "event_id_only",
            },
        },
        {"kind": None, "app_id": "org.example.app", "pushkey": "key"},
    ],
    f"PUT {RULE}/enabled": [{"enabled": True}],
    f"PUT {RULE}/actions": [{"actions": ["notify"]}],
    f"POST {ROOM}/receipt/{{receipt_type}}/{{event_id}}": [{"thread_id": "main"}],
    f"POST {ROOM}/read_markers": [{"m.fully_read": "%event_id", "m.read": "%event_id"}],
    f"PUT {ROOM}/state/{{event_type}}/{{state_key}}": [LEVELS, {"name": "n"}],
    f"PUT {ROOM}/state/{{event_type}}": [{"name": "n"}],
    f"POST {CLIENT}/v3/createRoom": [
        {
            "visibility": "private",
            "room_alias_name": "never",
            "name": "n",
            "topic": "t",
            "invite": ["%other"],
            "invite_3pid": [],
            "room_version": "11",
            "creation_content": {"m.federate": True, "type": "m.space"},
            "initial_state": [
                {
                    "type": "m.room.join_rules",
                    "state_key": "",
                    "content": {"join_rule": "restricted", "allow": [{"room_id": "!a:b"}]},
                }
            ],
            "preset": "private_chat",
            "is_direct": True,
            "power_level_content_override": {**LEVELS, "users_default": 100},
        }
    ],
    f"POST {ROOM}/upgrade": [{"new_version": "12", "additional_creators": ["%other"]}],
    f"PUT {ROOM}/send/{{event_type}}/{{txn_id}}": [RELATED, {"redacts": "%event_id"}],
    f"PUT {ROOM}/redact/{{event_id}}/{{txn_id}}": [{"reason": "r"}],
    f"PUT {CLIENT}/v3/presence/{{user_id}}/status": [
        {"presence": "unavailable", "status_msg": "at the sea"}
    ],
    f"PUT {ROOM}/typing/{{user_id}}": [{"typing": True, "timeout": 100}],
    f"POST {CLIENT}/v3/keys/upload": [{"one_time_keys": PREKEYS, "fallback_keys": PREKEYS}],
    f"POST {CLIENT}/v3/keys/query": [{"device_keys": {"@a:home.test": ["D"]}, "timeout": 10}],
    f"POST {CLIENT}/v3/keys/claim": [
        {"one_time_keys": {"@a:home.test": {"D": "signed_curve25519"}}, "timeout": 10}
    ],
    f"POST {CLIENT}/v3/keys/device_signing/upload": [
        {"master_key": CROSS_SIGNING, "self_signing_key": CROSS_SIGNING, "user_signing_key": {}}
    ],
    f"POST {CLIENT}/v3/keys/signatures/upload": [{"@a:home.test": {"D": DEVICE_KEYS}}],
    f"PUT {CLIENT}/v3/sendToDevice/{{event_type}}/{{txn_id}}": [
        {"messages": {"@a:home.test": {"*": {"a": [1]}}}}
    ],
    f"POST {CLIENT}/v3/room_keys/version": [BACKUP],
    f"PUT {CLIENT}/v3/room_keys/version/{{version}}": [{**BACKUP, "version": "1"}],
    f"PUT {BACKUP_KEYS}": [{"rooms": {"!r:home.test": {"sessions": {"s": BACKED_UP}}}}],
    f"PUT {BACKUP_KEYS}/{{room_id}}": [{"sessions": {"s": BACKED_UP}}],
    f"PUT {BACKUP_KEYS}/{{room_id}}/{{session_id}}": [BACKED_UP],
    f"PUT {DEHYDRATED}": [
        {
            "device_id": "SLEEPER",
            "device_data": {"algorithm": "x"},
            "device_keys": DEVICE_KEYS,
            "one_time_keys": PREKEYS,
        }
    ],
    f"POST {DEHYDRATED}/{{device_id}}/events": [{"next_batch": "d1"}],
    f"PUT {DELAYED}/rooms/{{room_id}}/delayed_event/{{event_type}}/{{txn_id}}": [
        {"delay_ms": 10**7, "content": {"a": [1]}, "state_key": "k"}
    ],
    f"POST {ROOM}/report/{{event_id}}": [{"reason": "x"}],
    f"POST {ROOM}/report": [{"reason": "x"}],
    f"POST {CLIENT}/v3/users/{{user_id}}/report": [{"reason": "x"}],
    f"POST {DELAYED}/delayed_events/{{delay_id}}": [{"action": "restart"}],
    "POST /_synapse/admin/v1/register": [
        {"nonce": "n", "username": "u", "password": "p", "admin": False, "mac": "00"}
    ],
}
QUERIES: Mapping[str, dict[str, Any]] = {
    f"POST {CLIENT}/v3/register": {"kind": "user"},
    f"GET {CLIENT}/v3/register/available": {"username": "free"},
    f"GET {CLIENT}/v1/register/m.login.registration_token/validity": {"token": "t"},
    f"GET {CLIENT}/unstable/uk.half-shot.msc2666/user/mutual_rooms": {
        "user_id": "@b:home.test",
        "batch_token": "m1",
    },
    f"GET {CLIENT}/v1/mutual_rooms": {"user_id": "@b:home.test", "from": "m1"},
    f"GET {CLIENT}/v3/publicRooms": {"limit": "5", "since": "p1", "server": "home.test"},
    f"POST {CLIENT}/v3/publicRooms": {"server": "home.test"},
    f"GET {CLIENT}/v3/events": {"from": "s1_0", "timeout": "0"},
    f"GET {CLIENT}/v3/initialSync": {"limit": "5", "archived": "true"},
    f"GET {ROOM}/messages": {**PAGE, "filter": EVENT_FILTER},
    f"GET {ROOM}/context/{{event_id}}": {"limit": "5", "filter": EVENT_FILTER},
    f"GET {CLIENT}/v1/rooms/{{room_id}}/timestamp_to_event": {"ts": "5", "dir": "f"},
    f"PUT {RULE}": {"before": "second"},
    f"GET {CLIENT}/v3/notifications": {"from": "5_0", "limit": "5", "only": "highlight"},
    RELATIONS: {**PAGE, "recurse": "true"},
    f"{RELATIONS}/{{rel_type}}": {**PAGE, "recurse": "true"},
    f"{RELATIONS}/{{rel_type}}/{{event_type}}": {**PAGE, "recurse": "true"},
    f"GET {CLIENT}/v1/rooms/{{room_id}}/threads": {"include": "all", "from": "t5_0", "limit": "5"},
    f"GET {ROOM}/state/{{event_type}}/{{state_key}}": {"format": "event"},
    f"GET {ROOM}/state/{{event_type}}": {"format": "content"},
    f"GET {ROOM}/members": {"at": "s5_0", "membership": "join", "not_membership": "leave"},
    f"POST {CLIENT}/v3/join/{{room_id_or_alias}}": {"via": "home.test", "server_name": "b.test"},
    f"POST {CLIENT}/v3/knock/{{room_id_or_alias}}": {"via": "home.test"},
    f"POST {CLIENT}/unstable/org.matrix.simplified_msc3575/sync": {
        "timeout": "0",
        "set_presence": "offline",
    },
    f"GET {CLIENT}/unstable/io.element.msc4308/thread_subscriptions": {
        "dir": "b",
        "from": "5",
        "to": "1",
        "limit": "5",
    },
    f"GET {CLIENT}/v3/keys/changes": {"from": "s5_0", "to": "s6_0_5"},
    BACKUP_KEYS: {"version": "1"},
    f"{BACKUP_KEYS}/{{room_id}}": {"version": "1"},
    f"{BACKUP_KEYS}/{{room_id}}/{{session_id}}": {"version": "1"},
    f"GET {DEHYDRATED}/{{device_id}}/events": {"from": "d1"},
    f"GET {CLIENT}/v3/sync": {
        "since": "s5_0",
        "timeout": "0",
        "full_state": "false",
        "set_presence": "online",
        "use_state_after": "true",
        "filter": FILTER,
    },
}
# After these have worked, what they were done to is not there any more, or cannot be used.
ENDING = frozenset(
    {
        f"POST {CLIENT}/v3/logout",
        f"POST {CLIENT}/v3/logout/all",
        f"POST {CLIENT}/v3/account/password",
        f"POST {CLIENT}/v3/account/deactivate",
        f"POST {CLIENT}/v3/delete_devices",
        f"DELETE {CLIENT}/v3/devices/{{device_id}}",
        f"POST {ROOM}/leave",
        f"POST {ROOM}/kick",
        f"POST {ROOM}/ban",
        f"POST {ROOM}/upgrade",
        f"PUT {ROOM}/state/{{event_type}}/{{state_key}}",
        f"POST {DELAYED}/delayed_events/{{delay_id}}/send",
        f"POST {DELAYED}/delayed_events/{{delay_id}}/cancel",
    }
)


@define(eq=False)
class Setting:
    """A place with two people, made again when something ends it."""

    house: House
    place: Place = field(init=False)
    other: User = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """New people and a new room."""
        self.place, self.other = Place.of(self.house), self.house.user("other")
        self.place.user.upon(self.place.values["room_id"], "invite", self.other)
        self.other.join(self.place.values["room_id"])

    def filled(self, value: Any) -> Any:
        """A body with the values of the place in it."""
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        if isinstance(value, dict):
            return {self.filled(key): self.filled(member) for key, member in value.items()}
        if value == "%other":
            return self.other.user_id
        if isinstance(value, str) and value.startswith("%"):
            return self.place.values[value[1:]]
        return value


def bodies(target: Target) -> list[Any]:
    """The right bodies for an endpoint."""
    return BODIES.get(target.name, [{}])


def raw_query(parameters: Mapping[str, Any]) -> str:
    """A query; texts stand in it as they are, other values as JSON."""
    pairs = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in parameters.items()
    }
    return urlencode(pairs, errors="surrogatepass")


def query(target: Target) -> dict[str, Any]:
    """The parameters that an endpoint knows, with right values."""
    return QUERIES.get(target.name) or QUERIES.get(target.pattern) or {}
