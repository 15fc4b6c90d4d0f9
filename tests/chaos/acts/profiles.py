"""What users show of themselves."""

from chaos.acts import act
from chaos.ledger import Change


@act(4)
async def profile(play, chance):
    user, (field, value) = chance.choice(play.users), chance.choice(
        [("displayname", f"name {chance.random()}"), ("avatar_url", f"mxc://burrow.test/{chance.randint(1, 10**9)}")]
    )
    change = Change(user.id, field, value, play.report.now())
    play.ledger.profiles.append(change)
    status, _ = await user.call("PUT", "profile/{userId}/{keyName}", user.id, field, body={field: value})
    change.ended = play.report.now() if status == 200 else None
    return str(user), field, value, status
