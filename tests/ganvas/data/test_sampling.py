import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ganvas.data.sampling import WINDOW, ResumableBatchSampler, epoch_order, steps_per_epoch

lengths, batches, worlds = st.integers(1, 23), st.integers(1, 5), st.integers(1, 4)


@given(lengths, batches, worlds, st.integers(0, 3))
def test_ranks_share_every_epoch(length, batch, world, seed):
    steps = steps_per_epoch(length, batch, world)
    epochs = {0: [], 1: []}
    for rank in range(world):
        sampler = ResumableBatchSampler(length, batch, seed=seed, stop_step=2 * steps, rank=rank, world_size=world)
        keys = list(sampler)
        assert len(keys) == len(sampler) == 2 * steps
        assert all(len(step) == batch for step in keys)
        for step in keys:
            for epoch, index in step:
                epochs[epoch].append(index)
    for seen in epochs.values():
        assert set(seen) == set(range(length))
        assert len(seen) == steps * batch * world
        assert len(seen) - length < batch * world  # only the last step is filled up


@given(lengths, batches, worlds, st.integers(0, 60), st.integers(0, 30))
def test_a_step_has_the_same_keys_for_every_start(length, batch, world, start, further):
    whole = list(ResumableBatchSampler(length, batch, seed=5, stop_step=start + further, world_size=world))
    rest = list(
        ResumableBatchSampler(length, batch, seed=5, start_step=start, stop_step=start + further, world_size=world)
    )
    assert whole[start:] == rest


def test_order_depends_on_seed_and_epoch():
    def order(seed, epoch):
        steps = ResumableBatchSampler(50, 1, seed=seed, start_step=50 * epoch, stop_step=50 * (epoch + 1))
        return [index for ((_, index),) in steps]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert order(0, 0) != sorted(order(0, 0))


def test_steps_per_epoch():
    assert [steps_per_epoch(n, 4) for n in (1, 4, 5, 8)] == [1, 1, 2, 2]
    assert steps_per_epoch(100, 4, 3) == 9


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(sum), st.integers(0, 3), st.integers(0, 3))
def test_samples_in_shards_are_all_visited_once_an_epoch(sizes, seed, epoch):
    order = epoch_order(sum(sizes), seed, epoch, sizes)
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    assert np.array_equal(order, epoch_order(sum(sizes), seed, epoch, sizes))


def test_a_window_reads_few_shards():
    sizes = [3000] * 10
    orders = [epoch_order(30_000, 0, epoch, sizes) for epoch in range(3)]
    first_shards = set()
    for order in orders:
        for start in range(0, 30_000, WINDOW):
            window = np.sort(order[start : start + WINDOW])
            pieces = np.split(window, np.flatnonzero(np.diff(window) != 1) + 1)
            assert len(pieces) <= 3  # runs of neighbors: the end of a shard, perhaps a whole one, the start of another
            assert not np.array_equal(window, order[start : start + WINDOW])
        first_shards.add(order[0] // 3000)
    assert len(first_shards) > 1
    assert not np.array_equal(orders[0], orders[1])


def test_a_dataset_of_one_window_is_fully_shuffled():
    """Each sample is as often in the first half as in the second: 200 epochs, five standard deviations."""
    firsts = np.zeros(100)
    for epoch in range(200):
        firsts[epoch_order(100, 0, epoch, [50, 50])[:50]] += 1
    assert np.abs(firsts - 100).max() < 5 * np.sqrt(200 / 4)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), batches, worlds, st.floats(0, 1))
def test_processes_share_shards_and_resume_at_any_step(sizes, batch, world, share):
    length = sum(sizes)
    steps = steps_per_epoch(length, batch, world)
    start, seen = round(share * 2 * steps), []
    for rank in range(world):
        options = {"seed": 1, "rank": rank, "world_size": world, "shard_sizes": sizes}
        whole = list(ResumableBatchSampler(length, batch, stop_step=2 * steps, **options))
        rest = list(ResumableBatchSampler(length, batch, start_step=start, stop_step=2 * steps, **options))
        assert whole[start:] == rest
        seen += [index for keys in whole[:steps] for _, index in keys]
    assert set(seen) == set(range(length))
    assert len(seen) - length < batch * world
