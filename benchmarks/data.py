"""Data: rules, near duplicates, a classifier and shards, against datatrove, datasketch, tokenizers and two readers.

Contenders are processes that do the same steps on the same real text (the embedded pool's, at L1), one thread each,
timed in processor time. Peers come from two virtual environments of their own (`--peers`), made where they are missing.

Usage: python benchmarks/data.py [--quick] [--megabytes 4] [--pairs 1000] [--store STORE] [--peers FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import _data_tokens
from _data_classifier import classifier_rows
from _data_rules import near_rows, real_texts, rule_rows
from _peers import peer_python
from _table import finish

from davinci.store import Store

PACKAGES = ("datatrove[processing,io]==0.10.1", "spacy==3.8.18", "datasketch==2.0.0", "lxml_html_clean")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a seventh of the text, a fifth of the pairs")
    parser.add_argument("--megabytes", type=float, default=4.0)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the package archives are, or go")
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "davinci-benchmark-peers-data")
    given = parser.parse_args()
    if given.quick:
        given.megabytes, given.pairs = given.megabytes / 7, given.pairs // 5
    python = peer_python(given.peers, PACKAGES)
    if python is None:
        sys.exit("without peers there is nothing to compare with")
    documents = real_texts(Store(given.store), round(1e6 * given.megabytes))
    print(f"{len(documents):,} documents, {sum(len(one.text) for one in documents):,} characters", flush=True)
    with tempfile.TemporaryDirectory(prefix="davinci-bench-") as folder:
        rows = rule_rows(documents, Path(folder), python)
        rows += classifier_rows(Store(given.store), round(1e6 * max(2, given.megabytes)), Path(folder), python)
        rows += near_rows(documents, Path(folder), python, given.pairs)
        reading = peer_python(given.peers.with_name(f"{given.peers.name}-tokens"), _data_tokens.PACKAGES)
        if reading is not None:
            rows += _data_tokens.token_rows(documents, Path(folder), reading, given.quick)
    finish("Data, one core, processor time", rows)


if __name__ == "__main__":
    main()
