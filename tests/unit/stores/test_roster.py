"""Exact counts of the living."""

from __future__ import annotations

import random

from kato.stores.sqlite.roster import Entry, Roster


def test_counts_equal_those_of_looking_at_everybody() -> None:
    source = random.Random(7)
    roster = Roster()
    users = ("a", "b", None)
    now = 0.0
    for step in range(6000):
        now += source.choice((0.0, 0.0, 1.0, 2.5)) if source.random() < 0.995 else -source.random() * 50
        chosen = f"s{source.randrange(60)}"
        entry = roster.entries.get(chosen)
        expires_at = now + source.choice((-1.0, 0.0, 1.0, 5.0, 30.0))
        if entry is None:
            roster.add(chosen, Entry(step, "node", source.choice(users), now, expires_at, 0))
        elif source.random() < 0.2:
            assert roster.remove(chosen) is entry
        elif source.random() < 0.1:
            roster.move(chosen, "other", source.choice(users))
        else:
            roster.change(entry, entry.revision + 1, expires_at)
        alive = [each for each in roster.entries.values() if each.expires_at > now]
        assert roster.living(now) == len(alive)
        for user in users:
            assert roster.living_of(user, now) == sum(each.user == user for each in alive)
        assert roster.next_expiry(now) <= min((each.expires_at for each in alive), default=float("inf"))
        over = sorted(name for name, each in roster.entries.items() if each.expires_at <= now)
        assert roster.over(now) == over


def test_sessions_that_come_and_go_leave_nothing_behind() -> None:
    roster = Roster()
    for number in range(20_000):
        roster.add(f"s{number}", Entry(number, "node", None, 0.0, 1e9, 0))
        roster.remove(f"s{number}")
    assert len(roster._queue) <= 1001
    assert roster.remove("s1") is None
    assert roster.living(0.0) == 0
