"""``export``: a checkpoint as a folder that transformers loads."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from davinci import imported
from davinci.commands.names import RunName, find_run
from davinci.commands.output import print_json
from davinci.commands.states import chosen
from davinci.config import Node
from davinci.errors import UserError
from davinci.planning.identity import human_tokens
from davinci.planning.plan import State, load_plan
from davinci.store import Store, atomic_folder, read_json

IMPORTED = "imported:"


def run(options: argparse.Namespace, store: Store) -> int:
    folder = Path(options.folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; name a folder that is new or empty")
    if options.run.startswith(IMPORTED):
        return _as_it_came(options.run.removeprefix(IMPORTED), folder, options.json, store)
    name = find_run(store, options.run)
    state, node = _state(name, options, store)
    architecture, lacks = _written(state, node, options.weights, folder, store)
    found = {
        "run": name.id, "tokens": state.tokens, "architecture": architecture, "not_in_vllm": lacks,
        "folder": str(folder),
    }  # fmt: skip
    if options.json:
        print_json(found)
    else:
        print(f"{name.id} at {human_tokens(state.tokens)} tokens as {architecture}: {folder}")
        if lacks:
            print(f"vLLM's own {architecture} has no {', '.join(lacks)} here: see For vLLM in docs/models.md")
    return 0


def _state(name: RunName, options: argparse.Namespace, store: Store) -> tuple[State, Node]:
    plan = load_plan(store, name.sweep)
    planned = next((one for one in plan.runs if one.id == name.id), None)
    if planned is None:
        raise UserError(f"run {name.id} is no longer in the plan of {name.sweep}")
    states = chosen(plan, planned, store, options.checkpoint, options.weights)
    if len(states) != 1:
        there = ", ".join(str(one.tokens) for one in states)
        raise UserError(f"--checkpoint {options.checkpoint}: one is exported at a time; there are {there}")
    return states[0], plan.nodes[states[0].node]


def _written(state: State, node: Node, weights: str, folder: Path, store: Store) -> tuple[str, list[str]]:
    """Write the folder in one step; the class of transformers that reads it, and what vLLM's of that name lacks."""
    from tokenizers import Tokenizer

    from davinci.model.export import export
    from davinci.model.weights import AVERAGE, WEIGHTS, load_model

    checkpoint = store.checkpoint(state.node, state.tokens)
    decoder = load_model(checkpoint, node.model, node.vocab_size, AVERAGE if weights == "average" else WEIGHTS)
    tokenizer = Tokenizer.from_file(str(store.pool(node.pool) / "tokenizer.json"))
    with atomic_folder(folder) as temporary:
        lacks = export(temporary, decoder.state_dict(), node.model, node.vocab_size, tokenizer, node.end_of_text)
    return str(read_json(folder / "config.json")["architectures"][0]), sorted(lacks)


def _as_it_came(name: str, folder: Path, as_json: bool, store: Store) -> int:
    """An imported model: the same tensors, and the small files that came with them."""
    from safetensors.torch import load_file, save_file

    from davinci.model.importing import originals, read_folder

    record, place = imported.read(store, name), store.imported(name)
    weights = load_file(place / imported.WEIGHTS)
    with atomic_folder(folder) as temporary:
        shutil.copytree(place / imported.SMALL_FILES, temporary, dirs_exist_ok=True)
        theirs = originals(weights, record.model, record.architecture, record.dtypes)
        save_file(theirs, temporary / "model.safetensors", {"format": "pt"})
        (temporary / "model.safetensors").chmod(0o644)
        try:
            read_folder(temporary, name)
        except UserError as error:
            why = str(error).replace(str(temporary), "its folder")
            raise UserError(
                f"imported:{name}: taken in by a version that laid it out otherwise; import it again ({why})"
            ) from None
    if as_json:
        print_json({"imported": name, "architecture": record.architecture, "folder": str(folder)})
    else:
        print(f"{name} as it came, {record.architecture}: {folder}")
    return 0
