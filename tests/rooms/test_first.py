from __future__ import annotations

import pytest

from matrixbox.core.json import encode
from matrixbox.errors import Forbidden
from matrixbox.rooms.formatting import Formatter
from matrixbox.rooms.reading import Reader
from matrixbox.rooms.timeline import page
from matrixbox.rooms.tokens import Place
from tests.rooms.house import household


@pytest.mark.parametrize("version", [str(n) for n in range(1, 13)])
async def test_conversation(version):
    async with household() as house:
        ann, bo, eve = [await house.user(n) for n in ("ann", "bo", "eve")]
        room = await house.room(ann, version=version, name="Home", invites=(bo.user_id,))
        await house.join(bo, room)
        await house.say(ann, room, "hi")
        second = await house.say(bo, room, "hello")
        with pytest.raises(Forbidden):
            await house.say(eve, room, "let me in")
        await house.redact(bo, room, second.event.event_id)
        def look(tx):
            reader = Reader(tx, room, ann.user, 0)
            found = page(reader, Place(10**6, 0), None, 100, lambda _: True, back=True)
            return encode(Formatter(reader).all(found.events))
        import json
        events = json.loads(house.store.read(look))
        assert [e["type"] for e in events][:3] == ["m.room.redaction", "m.room.message", "m.room.message"]
        assert events[1]["content"] == {}
        print(json.dumps(events[:2], indent=1))
