"""The Earth dataset's splits: which places are for training, and which are held out.

Paired:

- The world between 63°N and 63°S is divided into blocks of 18°. A few of them are held out for val and test, from
  all continents and latitudes in turn, never adjacent. The choice depends on the seed alone, so every image size and
  layer is tested in the same places.
- Val and test tiles lie inside their blocks and do not overlap. Train tiles lie anywhere else between 65°N and 65°S, at
  least one degree away from every held-out block, and overlap by half.
- A climate is a continent and a band of latitude. A block is held out only if at least half of the land of each of its
  climates stays for training, and a held-out tile is kept only if training has tiles of its climate.

Unpaired (``--unpaired``): the remaining blocks are assigned to domains A and B, balanced in climate and land; no train
tile leaves its block, so no place is in both domains. Test images exist in both, under equal names.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from data_scripts.sets.earth_world import Climate, Square, World

LATITUDE_LIMIT = 65  # degrees: closer to the poles, pixels are stretched more than 2.4 times
BLOCK_DEGREES = 18  # holds the largest tile (512 pixels), and divides 360
BLOCK_ROWS = 7  # 63°N to 63°S
BUFFER_DEGREES = 1  # between a train tile and a held-out block
SPACING_DEGREES = 2  # minimum stride: small sizes would give hundreds of thousands of files otherwise
MIN_LAND = 0.25  # fraction of land in a tile, and in a block that can be held out
HELD_OUT_BLOCKS = {"test": 8, "val": 4}  # of the 51 blocks with MIN_LAND; unpaired datasets have no val
SPLITS = ("train", "trainA", "trainB", "val", "test")


def list_blocks(world: World) -> list[Square]:
    """List the blocks of the world, BLOCK_ROWS x 20, row by row, centered on the equator."""
    size = BLOCK_DEGREES * world.degree
    top = 90 * world.degree - BLOCK_ROWS * size // 2
    return [
        Square(top + row * size, column * size, size)
        for row in range(BLOCK_ROWS)
        for column in range(360 // BLOCK_DEGREES)
    ]


def land_by_climate(world: World, block: Square) -> Counter[Climate]:
    """Count a block's square degrees of land by climate."""
    found: Counter[Climate] = Counter()
    degree = world.degree
    for top in range(block.top, block.top + block.size, degree):
        for left in range(block.left, block.left + block.size, degree):
            cell = Square(top, left, degree)
            if world.land_in(cell).mean() >= 0.5:
                found[world.climate(cell)] += 1
    return found


def hold_out(world: World, quotas: Mapping[str, int], seed: int) -> dict[Square, str]:
    """Choose the held-out blocks, from all continents and bands of latitude.

    The next block comes from the continent, and within it from the band, of which its split has the smallest fraction
    so far; so every continent has its turn before one has a second. Ties are broken at random. Some seeds leave no
    candidate for the last block.

    Args:
        world: The world.
        quotas: Number of blocks of each held-out split.
        seed: Breaks ties.

    Returns:
        The split of each held-out block.
    """
    import numpy as np

    land = {block: land_by_climate(world, block) for block in list_blocks(world)}
    total = sum(land.values(), Counter())
    candidates = [block for block in land if land[block].total() >= MIN_LAND * BLOCK_DEGREES**2]
    candidates = [candidates[index] for index in np.random.default_rng(seed).permutation(len(candidates))]
    home = {block: land[block].most_common(1)[0][0] for block in candidates}
    blocks_in: Counter[str | int] = Counter(itertools.chain.from_iterable(home.values()))  # by continent, by band

    held: dict[Square, str] = {}
    taken: Counter[Climate] = Counter()
    chosen_in: Counter[tuple[str, str | int]] = Counter()  # blocks by split and continent, by split and band

    def is_free(block: Square) -> bool:
        stays = all(2 * (taken[climate] + land[block][climate]) <= total[climate] for climate in land[block])
        return stays and is_far(world, block, held)

    # Splits take turns in proportion to their quotas.
    turns = sorted(((turn + 0.5) / quota, split) for split, quota in quotas.items() for turn in range(quota))
    for _, split in turns:
        free = [block for block in candidates if is_free(block)]
        if not free:
            break
        fractions = {part: chosen_in[split, part] / blocks_in[part] for part in blocks_in}
        chosen = min(free, key=lambda block: [fractions[part] for part in home[block]])
        held[chosen] = split
        taken.update(land[chosen])
        chosen_in.update((split, part) for part in home[chosen])
    return held


def is_far(world: World, square: Square, held: Iterable[Square]) -> bool:
    """Return whether a square is at least BUFFER_DEGREES away from every held-out block."""
    return all(square.gap(block, world.width) >= BUFFER_DEGREES * world.degree for block in held)


def assign_domains(world: World, tiles: Mapping[Square, Sequence[Square]]) -> dict[Square, str]:
    """Assign blocks with their train tiles to trainA and trainB, balanced in climate and in land.

    Blocks are paired in the order of their climates and of the land in their tiles. The most unequal pair comes first
    and the most equal last; the domain that is behind gets the block with more land.
    """
    land = {block: sum(float(world.land_in(tile).mean()) for tile in tiles[block]) for block in tiles}
    queue = sorted(tiles, key=lambda block: (world.climate(block), land[block]))
    pairs = [queue[index : index + 2] for index in range(0, len(queue), 2)]  # of an odd number, the last one is alone

    def difference(pair: Sequence[Square]) -> float:
        return abs(sum(sign * land[block] for sign, block in zip((1, -1), pair, strict=False)))

    assigned: dict[Square, str] = {}
    lead = 0.0  # land that trainA has more than trainB, in tiles
    for pair in sorted(pairs, key=difference, reverse=True):
        order = ("trainA", "trainB") if lead <= 0 else ("trainB", "trainA")
        for block, split in zip(sorted(pair, key=land.__getitem__, reverse=True), order, strict=False):
            assigned[block] = split
            lead += land[block] if split == "trainA" else -land[block]
    return assigned


def split_paired(world: World, size: int, seed: int) -> tuple[dict[Square, str], dict[str, list[Square]]]:
    """Split the world into train, val and test.

    Returns:
        The split of each held-out block, and the tiles of each split.
    """
    held = hold_out(world, HELD_OUT_BLOCKS, seed)
    splits = {"train": train_tiles(world, tiles_in_world(world, size, train_stride(world, size)), held)}
    splits |= {split: held_out_tiles(world, held, split, size) for split in ("val", "test")}
    return held, drop_unseen_climates(world, splits)


def split_unpaired(world: World, size: int, seed: int) -> tuple[dict[Square, str], dict[str, list[Square]]]:
    """Split the world into trainA, trainB and test.

    Returns:
        The split of each block that is used, and the tiles of each split.
    """
    held = hold_out(world, {"test": HELD_OUT_BLOCKS["test"]}, seed)
    stride = train_stride(world, size)
    tiles = {block: train_tiles(world, tiles_in_block(block, size, stride), held) for block in list_blocks(world)}
    assigned = assign_domains(world, {block: found for block, found in tiles.items() if found})
    splits = {
        name: [tile for block, split in sorted(assigned.items()) if split == name for tile in tiles[block]]
        for name in ("trainA", "trainB")
    }
    splits["test"] = held_out_tiles(world, held, "test", size)
    return held | assigned, drop_unseen_climates(world, splits)


def train_stride(world: World, size: int) -> int:
    """Return the stride of train tiles in pixels: half a tile, and at least SPACING_DEGREES."""
    return max(size // 2, SPACING_DEGREES * world.degree)


def train_tiles(world: World, tiles: Iterable[Square], held: Iterable[Square]) -> list[Square]:
    """Return the tiles with enough land that are far from the held-out blocks."""
    return [tile for tile in tiles if has_land(world, tile) and is_far(world, tile, held)]


def held_out_tiles(world: World, held: Mapping[Square, str], split: str, size: int) -> list[Square]:
    """List the tiles with enough land in the blocks of a held-out split; they do not overlap."""
    stride = max(size, SPACING_DEGREES * world.degree)
    blocks = sorted(block for block in held if held[block] == split)
    return [tile for block in blocks for tile in tiles_in_block(block, size, stride) if has_land(world, tile)]


def has_land(world: World, tile: Square) -> bool:
    """Return whether at least MIN_LAND of a tile is land."""
    return bool(world.land_in(tile).mean() >= MIN_LAND)


def is_training(split: str) -> bool:
    """Return whether a split is for training: train, trainA or trainB."""
    return split.startswith("train")


def tiles_in_block(block: Square, size: int, stride: int) -> list[Square]:
    """Return a centered grid of tiles in a block."""
    steps = (block.size - size) // stride
    margin = (block.size - size - steps * stride) // 2
    offsets = range(margin, margin + steps * stride + 1, stride)
    return [Square(block.top + down, block.left + right, size) for down in offsets for right in offsets]


def tiles_in_world(world: World, size: int, stride: int) -> list[Square]:
    """Return a grid of tiles between 65°N and 65°S; none crosses 180°."""
    top, bottom = (90 - LATITUDE_LIMIT) * world.degree, (90 + LATITUDE_LIMIT) * world.degree
    return [
        Square(row, column, size)
        for row in range(top, bottom - size + 1, stride)
        for column in range(0, world.width - size + 1, stride)
    ]


def drop_unseen_climates(world: World, splits: Mapping[str, Sequence[Square]]) -> dict[str, list[Square]]:
    """Remove held-out tiles of a climate that a training split lacks."""
    known = [{world.climate(tile) for tile in tiles} for split, tiles in splits.items() if is_training(split)]
    common = set.intersection(*known)
    return {
        split: [tile for tile in tiles if is_training(split) or world.climate(tile) in common]
        for split, tiles in splits.items()
    }


def limit_tiles(world: World, splits: Mapping[str, Sequence[Square]], limit: int, seed: int) -> dict[str, list[Square]]:
    """Keep at most ``limit`` tiles of each training split, and the same fraction (at least one) of the others.

    Climates take turns in every split, in the same order, so that few tiles are still spread over the world and
    training keeps the climates of held-out tiles. Within a climate, tiles are drawn at random.
    """
    import numpy as np

    fraction = limit / max(len(tiles) for split, tiles in splits.items() if is_training(split))
    if fraction >= 1:
        return {split: list(tiles) for split, tiles in splits.items()}
    order = order_climates(world, splits)
    kept: dict[str, list[Square]] = {}
    for split, tiles in splits.items():
        order_of_tiles = np.random.default_rng([seed, SPLITS.index(split)]).permutation(len(tiles))
        turns: Counter[Climate] = Counter()  # tiles already queued, by climate
        queue: list[tuple[int, int, Square]] = []
        for tile in (tiles[index] for index in order_of_tiles):
            climate = world.climate(tile)
            queue.append((turns[climate], order.index(climate), tile))
            turns[climate] += 1
        number = limit if is_training(split) else max(1, round(fraction * len(tiles)))
        kept[split] = sorted(tile for _, _, tile in sorted(queue)[:number])
    return drop_unseen_climates(world, kept)


def order_climates(world: World, splits: Mapping[str, Sequence[Square]]) -> list[Climate]:
    """Order climates by the number of splits that have them, then of tiles, after one climate of each held-out split.

    So no held-out split loses all its tiles when training keeps only the first few climates.
    """
    counts = {split: Counter(world.climate(tile) for tile in tiles) for split, tiles in splits.items()}
    total = sum(counts.values(), Counter())
    ranked = sorted(
        total, key=lambda climate: (-sum(climate in count for count in counts.values()), -total[climate], climate)
    )
    heads = [
        next(climate for climate in ranked if climate in counts[split])
        for split in splits
        if counts[split] and not is_training(split)
    ]
    return list(dict.fromkeys(heads + ranked))
