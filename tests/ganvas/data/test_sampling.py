from hypothesis import given
from hypothesis import strategies as st

from ganvas.data.sampling import ResumableBatchSampler, steps_per_epoch

lengths, batches, worlds = st.integers(1, 23), st.integers(1, 5), st.integers(1, 4)


@given(lengths, batches, worlds, st.integers(0, 3))
def test_ranks_together_see_every_sample_in_every_epoch(length, batch, world, seed):
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
def test_a_step_has_the_same_keys_wherever_one_starts(length, batch, world, start, further):
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
