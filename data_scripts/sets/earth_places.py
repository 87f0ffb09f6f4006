"""Which places of the Earth are for training and which are held out.

Paired:

- The world between 63°N and 63°S is divided into blocks of 18°. A few of them are held out for val and test, from
  all continents and latitudes in turn, never side by side. The choice depends on the seed alone, so images of
  every size and layer are tested in the same places.
- Val and test tiles lie inside their blocks and do not overlap. Train tiles lie anywhere else between 65°N and 65°S, at
  least one degree away from every held-out block, and overlap by half.
- A climate is a continent and a band of latitude. A block is held out only when at least half of the land of each of
  its climates stays for training, and a held-out tile is kept only when training has tiles of its climate.

Unpaired (``--unpaired``): blocks that are not for testing are dealt out to domains a and b, alike in climate and land;
no train tile leaves its block, so no place is seen in both domains. Test images exist in both, under equal names.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from data_scripts.sets.earth_world import Climate, Square, World

LATITUDE_LIMIT = 65  # degrees: farther away pixels are stretched more than 2.4 times
BLOCK_DEGREES = 18  # holds a tile of MAXIMUM_SIZE, and divides 360
BLOCK_ROWS = 7  # 63°N to 63°S
BUFFER_DEGREES = 1  # between a train tile and a held-out block
SPACING_DEGREES = 2  # tiles start at least so far apart, or small sizes would give hundreds of thousands of files
MINIMUM_LAND = 0.25  # share of land in a tile, and in a block that can be held out
HELD_OUT_BLOCKS = {"test": 8, "val": 4}  # of the 51 blocks with MINIMUM_LAND; unpaired datasets have no val
SPLITS = ("train", "trainA", "trainB", "val", "test")


def list_blocks(world: World) -> list[Square]:
    """List the blocks of the world, BLOCK_ROWS x 20, row by row; as many rows north of the equator as south."""
    size = BLOCK_DEGREES * world.degree
    top = 90 * world.degree - BLOCK_ROWS * size // 2
    return [
        Square(top + row * size, column * size, size)
        for row in range(BLOCK_ROWS)
        for column in range(360 // BLOCK_DEGREES)
    ]


def land_by_climate(world: World, block: Square) -> Counter[Climate]:
    """Count a block's square degrees of land (degrees, not kilometres), climate by climate."""
    found: Counter[Climate] = Counter()
    degree = world.degree
    for top in range(block.top, block.top + block.size, degree):
        for left in range(block.left, block.left + block.size, degree):
            cell = Square(top, left, degree)
            if world.land_in(cell).mean() >= 0.5:
                found[world.climate(cell)] += 1
    return found


def hold_out(world: World, quotas: Mapping[str, int], seed: int) -> dict[Square, str]:
    """Choose the blocks that training never sees, from all continents and bands of latitude.

    The next block comes from the continent, and there from the band, of which its split has the smallest share so far;
    so every continent has its turn before one has a second. Ties are drawn by lot. A seed may leave no room for the
    last block.

    Args:
        world: where there is land.
        quotas: how many blocks each held-out split gets.
        seed: of the lot.

    Returns:
        the split of each held-out block.
    """
    import numpy as np

    land = {block: land_by_climate(world, block) for block in list_blocks(world)}
    total = sum(land.values(), Counter())
    candidates = [block for block in land if land[block].total() >= MINIMUM_LAND * BLOCK_DEGREES**2]
    candidates = [candidates[index] for index in np.random.default_rng(seed).permutation(len(candidates))]
    home = {block: land[block].most_common(1)[0][0] for block in candidates}
    blocks_in: Counter[str | int] = Counter(itertools.chain.from_iterable(home.values()))  # by continent, by band

    held: dict[Square, str] = {}
    taken: Counter[Climate] = Counter()
    given: Counter[tuple[str, str | int]] = Counter()  # blocks that a split has in a continent, in a band

    def is_free(block: Square) -> bool:
        stays = all(2 * (taken[climate] + land[block][climate]) <= total[climate] for climate in land[block])
        return stays and is_far(world, block, held)

    # Splits take turns in proportion to their quotas.
    turns = sorted(((turn + 0.5) / quota, split) for split, quota in quotas.items() for turn in range(quota))
    for _, split in turns:
        free = [block for block in candidates if is_free(block)]
        if not free:
            break
        shares = {part: given[split, part] / blocks_in[part] for part in blocks_in}
        chosen = min(free, key=lambda block: [shares[part] for part in home[block]])
        held[chosen] = split
        taken.update(land[chosen])
        given.update((split, part) for part in home[chosen])
    return held


def is_far(world: World, square: Square, held: Iterable[Square]) -> bool:
    """Tell whether a square is at least BUFFER_DEGREES away from every held-out block."""
    return all(square.gap(block, world.width) >= BUFFER_DEGREES * world.degree for block in held)


def deal_out(world: World, tiles: Mapping[Square, Sequence[Square]]) -> dict[Square, str]:
    """Deal blocks with their train tiles out to trainA and trainB, alike in climate and in land.

    Blocks are paired in the order of their climates and of the land in their tiles. The most unequal pair is dealt
    first and the most equal last; the domain that is behind gets the one with more land.
    """
    land = {block: sum(float(world.land_in(tile).mean()) for tile in tiles[block]) for block in tiles}
    queue = sorted(tiles, key=lambda block: (world.climate(block), land[block]))
    pairs = [queue[index : index + 2] for index in range(0, len(queue), 2)]  # an odd one out is alone

    def difference(pair: Sequence[Square]) -> float:
        return abs(sum(sign * land[block] for sign, block in zip((1, -1), pair, strict=False)))

    dealt: dict[Square, str] = {}
    lead = 0.0  # land that trainA has more than trainB, in tiles
    for pair in sorted(pairs, key=difference, reverse=True):
        order = ("trainA", "trainB") if lead <= 0 else ("trainB", "trainA")
        for block, split in zip(sorted(pair, key=land.__getitem__, reverse=True), order, strict=False):
            dealt[block] = split
            lead += land[block] if split == "trainA" else -land[block]
    return dealt


# --- tiles -----------------------------------------------------------------------------------------------------------


def split_paired(world: World, size: int, seed: int) -> tuple[dict[Square, str], dict[str, list[Square]]]:
    """Split the world into train, val and test.

    Returns:
        the split of each held-out block, and the tiles of each split.
    """
    held = hold_out(world, HELD_OUT_BLOCKS, seed)
    splits = {"train": train_tiles(world, tiles_in_world(world, size, train_stride(world, size)), held)}
    splits |= {split: held_out_tiles(world, held, split, size) for split in ("val", "test")}
    return held, drop_strange_climates(world, splits)


def split_unpaired(world: World, size: int, seed: int) -> tuple[dict[Square, str], dict[str, list[Square]]]:
    """Split the world into trainA, trainB and test.

    Returns:
        the split of each block that is used, and the tiles of each split.
    """
    held = hold_out(world, {"test": HELD_OUT_BLOCKS["test"]}, seed)
    stride = train_stride(world, size)
    tiles = {block: train_tiles(world, tiles_in_block(block, size, stride), held) for block in list_blocks(world)}
    dealt = deal_out(world, {block: found for block, found in tiles.items() if found})
    splits = {
        name: [tile for block, split in sorted(dealt.items()) if split == name for tile in tiles[block]]
        for name in ("trainA", "trainB")
    }
    splits["test"] = held_out_tiles(world, held, "test", size)
    return held | dealt, drop_strange_climates(world, splits)


def train_stride(world: World, size: int) -> int:
    """Return the distance between train tiles in pixels: half a tile, but no less than SPACING_DEGREES."""
    return max(size // 2, SPACING_DEGREES * world.degree)


def train_tiles(world: World, tiles: Iterable[Square], held: Iterable[Square]) -> list[Square]:
    """Keep the tiles with enough land that are far from the held-out blocks."""
    return [tile for tile in tiles if has_land(world, tile) and is_far(world, tile, held)]


def held_out_tiles(world: World, held: Mapping[Square, str], split: str, size: int) -> list[Square]:
    """List the tiles with enough land in the blocks of a held-out split; they don't overlap."""
    stride = max(size, SPACING_DEGREES * world.degree)
    blocks = sorted(block for block in held if held[block] == split)
    return [tile for block in blocks for tile in tiles_in_block(block, size, stride) if has_land(world, tile)]


def has_land(world: World, tile: Square) -> bool:
    """Tell whether at least MINIMUM_LAND of a tile is land."""
    return bool(world.land_in(tile).mean() >= MINIMUM_LAND)


def is_training(split: str) -> bool:
    """Tell whether a split is for training: train, trainA or trainB."""
    return split.startswith("train")


def tiles_in_block(block: Square, size: int, stride: int) -> list[Square]:
    """Place tiles in the middle of a block."""
    steps = (block.size - size) // stride
    margin = (block.size - size - steps * stride) // 2
    offsets = range(margin, margin + steps * stride + 1, stride)
    return [Square(block.top + down, block.left + right, size) for down in offsets for right in offsets]


def tiles_in_world(world: World, size: int, stride: int) -> list[Square]:
    """Place tiles between 65°N and 65°S; none crosses 180°."""
    top, bottom = (90 - LATITUDE_LIMIT) * world.degree, (90 + LATITUDE_LIMIT) * world.degree
    return [
        Square(row, column, size)
        for row in range(top, bottom - size + 1, stride)
        for column in range(0, world.width - size + 1, stride)
    ]


def drop_strange_climates(world: World, splits: Mapping[str, Sequence[Square]]) -> dict[str, list[Square]]:
    """Drop held-out tiles of a climate that a training split lacks."""
    known = [{world.climate(tile) for tile in tiles} for split, tiles in splits.items() if is_training(split)]
    common = set.intersection(*known)
    return {
        split: [tile for tile in tiles if is_training(split) or world.climate(tile) in common]
        for split, tiles in splits.items()
    }


def limit_tiles(world: World, splits: Mapping[str, Sequence[Square]], limit: int, seed: int) -> dict[str, list[Square]]:
    """Keep at most ``limit`` tiles of each training split, and the same share (at least one) of the others.

    Climates take turns in every split, in the same order, so that few tiles are still spread over the world and
    training keeps the climates of held-out tiles. Within a climate tiles are drawn by lot.
    """
    import numpy as np

    share = limit / max(len(tiles) for split, tiles in splits.items() if is_training(split))
    if share >= 1:
        return {split: list(tiles) for split, tiles in splits.items()}
    order = order_climates(world, splits)
    kept: dict[str, list[Square]] = {}
    for split, tiles in splits.items():
        lot = np.random.default_rng([seed, SPLITS.index(split)]).permutation(len(tiles))
        turns: Counter[Climate] = Counter()  # tiles that a climate has had
        queue: list[tuple[int, int, Square]] = []
        for tile in (tiles[index] for index in lot):
            climate = world.climate(tile)
            queue.append((turns[climate], order.index(climate), tile))
            turns[climate] += 1
        number = limit if is_training(split) else max(1, round(share * len(tiles)))
        kept[split] = sorted(tile for _, _, tile in sorted(queue)[:number])
    return drop_strange_climates(world, kept)


def order_climates(world: World, splits: Mapping[str, Sequence[Square]]) -> list[Climate]:
    """Order climates by the number of splits that have them, then of tiles; but first comes one of each held-out split.

    When a few climates from the head are all that training keeps, no held-out split is without a tile.
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
