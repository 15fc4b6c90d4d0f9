"""A bot on matrix-nio, which many bots are made with: it checks what it is answered, and ends where that has another shape."""

import asyncio
import contextlib

import nio
import pytest

from harness.client import PASSWORD


@contextlib.asynccontextmanager
async def running(user):
    """A bot of the user, which has seen what is there."""
    bot = nio.AsyncClient(user.base_url, user.user_id)
    try:
        assert isinstance(await bot.login(PASSWORD), nio.LoginResponse)
        await synced(bot)
        yield bot
    finally:
        await bot.close()


async def synced(bot):
    """The next sync of the bot."""
    answer = await bot.sync(timeout=0)
    assert isinstance(answer, nio.SyncResponse), answer
    return answer


def said(answer, room):
    return [event.body for event in answer.rooms.join[room].timeline.events if isinstance(event, nio.RoomMessageText)]


@pytest.mark.parametrize("end", ["kick", "ban", "leave"])
def test_a_bot_outlives_its_rooms(alice, bob, end):
    """Of version 12 as of any other: the bot knows no ids of such rooms."""
    room = alice.create_room(preset="public_chat")

    async def live():
        async with running(bob) as bot:
            assert isinstance(await bot.join(room), nio.JoinResponse)
            alice.send(room, "hello, bot")
            assert said(await synced(bot), room) == ["hello, bot"]
            text = {"msgtype": "m.text", "body": "hello, Alice"}
            assert isinstance(await bot.room_send(room, "m.room.message", text), nio.RoomSendResponse)
            await synced(bot)
            if end == "leave":
                assert isinstance(await bot.room_leave(room), nio.RoomLeaveResponse)
            else:
                alice.post(f"rooms/{{roomId}}/{end}", room, json={"user_id": bob.user_id})
            assert room in (await synced(bot)).rooms.leave
            if end == "ban":
                alice.post("rooms/{roomId}/unban", room, json={"user_id": bob.user_id})
            alice.invite(room, bob)
            assert room in (await synced(bot)).rooms.invite
            assert isinstance(await bot.join(room), nio.JoinResponse)
            alice.send(room, "welcome back")
            assert said(await synced(bot), room)[-1] == "welcome back"

    asyncio.run(live())
    history = alice.messages(room, limit=30)["chunk"]
    assert "hello, Alice" in [event["content"].get("body") for event in history]
