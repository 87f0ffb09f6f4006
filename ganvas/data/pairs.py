"""The files of paired datasets, in the layouts of `ganvas.data.layout`: two folders hold partners of equal stems."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ganvas.data.layout import ANY_LAYOUT, find_layout, require_both, split_folder
from ganvas.data.listing import Files, describe_empty, image_names, require_unique_stems, stem
from ganvas.data.shards import Member, Members, find_members
from ganvas.errors import UserError
from ganvas.messages import join_first


@dataclass(frozen=True)
class Pair:
    """The files of one pair.

    Attributes:
        a: A; without ``b``, A and B side by side.
        b: B.
        more: More sources, whose channels follow those of ``a``.
    """

    a: Path | Member
    b: Path | Member | None = None
    more: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The stem that the files share."""
        return self.a.stem


@dataclass(frozen=True)
class Pairs:
    """The pairs of a split, by number; files are as in `Pair`."""

    a: Files | Members
    b: Files | Members | None = None
    more: tuple[Files, ...] = ()

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, index: int) -> Pair:
        more = tuple(files[index] for files in self.more)
        return Pair(self.a[index], None if self.b is None else self.b[index], more)

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))

    def sources(self, index: int) -> Sequence[Path | Member]:
        """Return the file of A, or the files that are stacked."""
        pair = self[index]
        return (pair.a, *pair.more)

    def targets(self, index: int) -> Sequence[Path | Member]:
        """Return the file of B, which may be that of A."""
        pair = self[index]
        return (pair.b or pair.a,)

    @property
    def files(self) -> dict[str, Files | Members]:
        """All files, by side: a, b if separate, and more sources."""
        more = {f"source {number}": files for number, files in enumerate(self.more, start=2)}
        return {"a": self.a, **({} if self.b is None else {"b": self.b}), **more}

    @property
    def shard_sizes(self) -> tuple[int, ...]:
        """Pairs in each shard; empty without shards."""
        return self.a.shard_sizes if isinstance(self.a, Members) else ()

    @property
    def unread(self) -> Counter[str]:
        """Files next to the images that are not read, as in `ganvas.data.listing.Listing`."""
        return sum((files.unread for files in (self.a, self.b, *self.more) if isinstance(files, Files)), Counter())


def find_pairs(root: Path, split: str) -> Pairs:
    """List the pairs of a split, sorted by name; in shards, in stored order.

    Raises:
        UserError: The folder or split is missing, empty, or has more than one layout, an image has no partner, two have
            one name, or a shard cannot be read.
    """
    layout = find_layout(root, split)
    if layout.kind == "shards":
        return Pairs(*find_members(layout.paths))
    if layout.kind == "two folders":
        return _match(*layout.paths)
    (folder,) = layout.paths
    names, unread = _unique_names(folder)
    if not names:
        raise UserError(f"{folder}: {describe_empty(unread)} Expected {ANY_LAYOUT}.")
    return Pairs(Files(folder, sorted(names), unread))


def find_stacked_pairs(root: Path, split: str, sources: Sequence[str], target: str) -> Pairs:
    """List pairs with several sources, DIR/SPLIT/SOURCE/x.png each, and one target, DIR/SPLIT/TARGET/x.png.

    Raises:
        UserError: A folder is missing or empty, given twice, or an image has no partner in another.
    """
    if len({*sources, target}) <= len(sources):
        raise UserError(f"--source {' --source '.join(sources)} --target {target}: one folder is named twice.")
    folders = [split_folder(root, split, name) for name in (*sources, target)]
    first = _match(folders[0], folders[-1])
    more = [_match(folders[0], folder).b for folder in folders[1:-1]]
    return Pairs(first.a, first.b, tuple(files for files in more if isinstance(files, Files)))


def _match(a: Path, b: Path) -> Pairs:
    """List the pairs of two folders by stem.

    Raises:
        UserError: A folder is missing or empty, an image has no partner, or two of one folder have one name.
    """
    require_both(a, b)
    (names_a, unread_a), (names_b, unread_b) = _unique_names(a), _unique_names(b)
    if len(names_a) != len(names_b) or any(stem(x) != stem(y) for x, y in zip(names_a, names_b, strict=True)):
        stems_a, stems_b = set(map(stem, names_a)), set(map(stem, names_b))
        alone = ((a, sorted(stems_a - stems_b)), (b, sorted(stems_b - stems_a)))
        found = "; ".join(f"only in {folder}: {join_first(names)}" for folder, names in alone if names)
        raise UserError(f"{a.parent}: images without a partner of the same name ({found}). Add or remove them.")
    if not names_a:
        raise UserError(f"{a} and {b}: {describe_empty(unread_a + unread_b)}")
    return Pairs(Files(a, names_a, unread_a), Files(b, names_b, unread_b))


def _unique_names(folder: Path) -> tuple[list[str], Counter[str]]:
    """Return the names of images, sorted by stem, and the count of files that are not read.

    Raises:
        UserError: Two have one stem.
    """
    unread: Counter[str] = Counter()
    names = sorted(image_names(folder, unread), key=stem)
    require_unique_stems(folder, names)
    return names, unread
