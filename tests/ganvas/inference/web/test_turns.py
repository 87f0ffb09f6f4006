import asyncio

import pytest

from ganvas.errors import UserError
from ganvas.inference.web.turns import Turns


def order_of(turns, clients, cancelled=()):
    """Let jobs of these clients begin together, cancel some; return the order of their turns, and most at once."""

    async def run():
        order, active = [], []
        most = 0

        async def job(number, client):
            nonlocal most
            async with turns.turn(client):
                order.append(number)
                active.append(client)
                most = max(most, len(active))
                try:
                    await asyncio.sleep(0.001)
                finally:
                    active.remove(client)

        tasks = [asyncio.create_task(job(number, client)) for number, client in enumerate(clients)]
        await asyncio.sleep(0)
        for number in cancelled:
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return order, most

    return asyncio.run(run())


def test_clients_take_turns_in_rotation():
    assert order_of(Turns(1, 1, 10), "aaaabbc") == ([0, 4, 6, 1, 5, 2, 3], 1)


def test_one_client_leaves_a_turn_to_others():
    assert order_of(Turns(4, 3, 10), "aaaaab")[0] == [0, 1, 2, 5, 3, 4]
    assert order_of(Turns(4, 3, 10), "aaaaa")[1] == 3
    assert order_of(Turns(4, 3, 10), "aaaaab")[1] == 4


def test_leaving_clients_do_not_cost_others_a_turn():
    turns = Turns(1, 1, 10)
    assert order_of(turns, "aabb", cancelled=[0, 1, 2]) == ([0, 3], 1)
    assert order_of(turns, "ab") == ([0, 1], 1)


def test_too_many_jobs_of_one_client_are_refused():
    async def run():
        turns = Turns(1, 1, 2)

        async def wait(client):
            async with turns.turn(client):
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(wait(client)) for client in "aaab"]
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(run())
    assert [type(result) for result in results] == [type(None), type(None), UserError, type(None)]
    with pytest.raises(UserError, match="still working on your other images"):
        raise results[2]
