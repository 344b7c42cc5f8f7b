"""``data tokenize``: text files of one's own as a source of a pool, ready to train on."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import yaml

from davinci.errors import UserError
from davinci.store import Store, checked_name, write_text

_HEADER = "# Written by `python -m davinci data tokenize`"
_READERS = {"parquet": (".parquet",), "jsonl": (".jsonl", ".json", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst")}
_PADDED = {"qwen2": 151_936}  # rows of the embedding, as its models have
_TRAIN = re.compile(r"train:([1-9][0-9_]*)")


def run(options: argparse.Namespace, store: Store) -> int:
    from davinci.data.build import Request, build
    from davinci.data.cards import read_card
    from davinci.data.pool_files import CONF, find_pool

    folder = Path(options.config_dir).absolute() if options.config_dir else CONF
    path = folder / "pool" / f"{checked_name(options.pool, 'pool')}.yaml"
    before = path.read_text(encoding="utf-8") if path.is_file() else None
    write_text(path, _new_pool(options) if before is None else _with_source(path, before, options))
    try:
        build(find_pool(str(path)), store, print, Request(workers=options.workers))
    except (UserError, OSError):
        if before is None:
            path.unlink()
        else:
            write_text(path, before)
        raise
    card = read_card(store, options.pool)
    assert card is not None  # just built
    tokens: dict[str, int] = {}
    for source in card.sources.values():
        deepest = source.variants[max(source.variants)]
        tokens[source.domain] = tokens.get(source.domain, 0) + deepest.tokens
    mixture = folder / "mixture" / f"{options.pool}.yaml"
    if not mixture.is_file() or mixture.read_text(encoding="utf-8").startswith(_HEADER):
        write_text(mixture, f"{_HEADER}: domains by their tokens.\n{_yaml(_mixture(tokens))}")
    print(_usage(options, path, mixture))
    return 0


def _new_pool(options: argparse.Namespace) -> str:
    source, name = _source(options), _source_name(options)
    if options.tokenizer is None:
        raise UserError(f"--tokenizer: pool {options.pool} is new; qwen2, PATH or train:SIZE say which it has")
    tokenizer, size = _tokenizer(options.tokenizer, options.pool)
    whole = {
        "name": options.pool,
        "tokenizer": tokenizer,
        "vocab_size": size,
        "sources": {name: source},
    }
    return f"{_HEADER}.\n{_yaml(whole)}"


def _with_source(path: Path, before: str, options: argparse.Namespace) -> str:
    """The pool's file with another source at its end, its comments left alone."""
    pool: Any = yaml.safe_load(before)
    source, name = _source(options), _source_name(options)
    if not isinstance(pool, dict) or not isinstance(pool.get("sources"), dict):
        raise UserError(f"{path}: a pool has name, tokenizer, vocab_size and sources")
    if options.tokenizer is not None and _tokenizer(options.tokenizer, options.pool)[0] != pool.get("tokenizer"):
        raise UserError(
            f"--tokenizer {options.tokenizer}: {path} has {pool.get('tokenizer')}; a pool has one tokenizer"
        )
    if name in pool["sources"]:
        if pool["sources"][name] == source:
            return before
        raise UserError(f"--source {name}: {path} has one of that name already; give another")
    block = "".join(f"  {line}\n" for line in _yaml({name: source}).splitlines())
    after = f"{before.rstrip()}\n{block}"
    if yaml.safe_load(after) != pool | {"sources": pool["sources"] | {name: source}}:
        raise UserError(f"{path}: sources are not the last key of the file; add this one by hand: {{{name}: {source}}}")
    return after


def _tokenizer(said: str, pool: str) -> tuple[str, int]:
    """What a pool's file says of its tokenizer: ``tokenizer`` and ``vocab_size``."""
    trained = _TRAIN.fullmatch(said)
    if trained:
        return pool, int(trained[1])
    if said in _PADDED:
        return said, _PADDED[said]
    from davinci.data.tokenizer_choice import size_at

    path = Path(said).expanduser().absolute()
    return str(path), size_at(path, "--tokenizer")


def _source(options: argparse.Namespace) -> dict[str, Any]:
    kinds = {_kind(file) for file in options.files}
    if len(kinds) > 1:
        raise UserError(f"FILES: of one format they must be, but are {' and '.join(sorted(kinds))}")
    for file in options.files:
        if not Path(file).exists():
            raise UserError(f"FILES: {file} is not there")
    paths = [str(Path(file).absolute()) for file in options.files]
    reader = {kinds.pop(): {"paths": paths} | ({} if options.text == "text" else {"text": options.text})}
    return {"domain": options.domain, "depths": [options.depth], "chain": [reader]}


def _kind(file: str) -> str:
    for kind, endings in _READERS.items():
        if file.endswith(endings):
            return kind
    accepted = ", ".join(ending for endings in _READERS.values() for ending in endings)
    raise UserError(f"FILES: {file} is of no format that is read here; accepted are {accepted}")


def _source_name(options: argparse.Namespace) -> str:
    name = options.source or re.sub(r"\W+", "_", Path(options.files[0]).name.partition(".")[0]).strip("_")
    return checked_name(name, "source")


def _mixture(tokens: dict[str, int]) -> dict[str, Any]:
    """Proportions of the domains by their tokens, in thousandths that sum to one."""
    total, left = sum(tokens.values()), 1000
    shares = {}
    for domain, count in sorted(tokens.items(), key=lambda item: item[1]):
        shares[domain] = max(1, round(1000 * count / total)) if domain != max(tokens, key=tokens.__getitem__) else 0
        left -= shares[domain]
    shares[max(tokens, key=tokens.__getitem__)] = left
    return {
        "domains": {domain: share / 1000 for domain, share in sorted(shares.items())},
        "sources": {},
        "substage": None,
    }


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None))


def _usage(options: argparse.Namespace, path: Path, mixture: Path) -> str:
    """How to train on the pool: of a sweep's file, and of a command line."""
    stages = ("stable", "decay")
    overrides = [
        *(f"pool={options.pool}", "depth=native", "curriculum=wsd"),
        *(f"mixture@curriculum.stages.{stage}.mixture={options.pool}" for stage in stages),
        "evaluation.at=[]",
        "evaluation.probes=null",
    ]
    lines = [
        f"# {path} and {mixture} are written. In a sweep's file:",
        "common:",
        *(f"  - {one}" for one in overrides),
    ]
    where = ["--config-dir", options.config_dir] if options.config_dir else []
    store = [] if options.store == "store" else [f"store={options.store}"]
    command = " ".join(["python launch.py", *where, *overrides, *store]).replace("=[]", "='[]'")
    return "\n".join([*lines, "# or at once:", f"# {command}"])
