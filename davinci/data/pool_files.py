"""A pool's YAML file: found, read, and its chains made of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from davinci.config import Level, Pool, Source, parse
from davinci.data.operations import Operation, Places, Reader, depths_of, read_chain, up_to
from davinci.errors import UserError, nearest

CONF = Path(__file__).resolve().parents[2] / "conf"
_SMALL = 100_000_000  # tokens


@dataclass(frozen=True)
class Chain:
    """How one source is made. `parts` are what its reader reads, in order; `ends` is, for each of the depths that the
    pool has it at, the position in `operations` of the last one of that depth."""

    source: str
    domain: str
    heldout_fraction: float
    operations: tuple[Operation, ...]
    ends: Mapping[Level, int]
    parts: tuple[dict[str, Any], ...]

    @property
    def reader(self) -> Reader:
        assert isinstance(self.operations[0], Reader)  # `read_chain` saw to it
        return self.operations[0]


@dataclass(frozen=True)
class PoolFile:
    """A pool and the file it is written in."""

    pool: Pool
    path: Path

    @property
    def root(self) -> Path:
        """What its relative paths start from."""
        return self.path.parent

    def chains(self, sources: Sequence[str], places: Places) -> dict[str, Chain]:
        """The chains of `sources`, in the pool's order.

        Raises:
            UserError: a source without a chain, or with a depth that its chain does not reach; nothing to read.
        """
        return {
            name: self._chain(name, source, places) for name, source in self.pool.sources.items() if name in sources
        }

    def _chain(self, name: str, source: Source, places: Places) -> Chain:
        where = f"{self.path}: sources.{name}"
        if not source.chain:
            raise UserError(f"{where}.chain: missing; a source that is built here says how")
        operations = read_chain(source.chain, f"{where}.chain")
        # Text that is only read is at whatever depth it was brought to elsewhere.
        reached = depths_of(operations) if len(operations) > 1 else list(source.depths[:1])
        for depth in source.depths:
            if depth not in reached:
                raise UserError(f"{where}.depths: {depth} is not reached; the chain's levels are {', '.join(reached)}")
        reader = operations[0]
        assert isinstance(reader, Reader)
        try:
            operations = [step.located(places) for step in operations]
            parts = reader.parts(places)
        except UserError as error:
            raise UserError(f"{where}.chain: {error}") from None
        ends = {depth: max(0, len(up_to(operations, depth)) - 1) for depth in source.depths}
        return Chain(name, source.domain, source.heldout_fraction, tuple(operations), ends, tuple(parts))


def find_pool(name: str, folders: Sequence[Path] = ()) -> PoolFile:
    """The pool of that name in ``pool/`` of `folders` or of ``conf/``, or the one in the file of that path.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if name.endswith((".yaml", ".yml")):
        return read_pool(Path(name))
    found = [folder / "pool" for folder in (*folders, CONF)]
    for folder in found:
        if (folder / f"{name}.yaml").is_file():
            return read_pool(folder / f"{name}.yaml")
    known = [path.stem for folder in found for path in folder.glob("*.yaml")]
    raise UserError(f"pool {name!r}: no {name}.yaml in {', '.join(map(str, found))}" + nearest(name, known))


def own_small_pool(pool: Pool) -> PoolFile | None:
    """The file of `pool` where it is one of ``conf/`` that says how all of it is made and that it is small: what a
    launch builds without being asked."""
    path = CONF / "pool" / f"{pool.name}.yaml"
    sources = pool.sources.values()
    is_made = path.is_file() and all((source.chain or source.tokens_from) and source.tokens for source in sources)
    return PoolFile(pool, path) if is_made and sum(source.tokens or 0 for source in sources) <= _SMALL else None


def read_pool(path: Path) -> PoolFile:
    """Read one file."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: a pool has name, tokenizer, vocab_size and sources")
    return PoolFile(parse(Pool, data, where=lambda key: str(path)), path)
