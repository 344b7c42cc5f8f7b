"""``data train-classifier``: labels to a classifier, and how good it is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from davinci.store import Store


def run(options: argparse.Namespace, store: Store) -> int:
    from davinci.data.l3_model_filter.training import read_labels, train

    classifier = train(read_labels(Path(options.labels), options.at_least), options.strength)
    classifier.save(Path(options.output))
    if options.json:
        print(json.dumps({"folder": options.output, "labels": list(classifier.labels), **classifier.about}))
    else:
        _show(classifier.about)
        print(f"classifier: {options.output}")
    return 0


def _show(about: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    report = about["report"]
    splits = ", ".join(f"{name} {sum(counts.values()):,}" for name, counts in about["documents"].items())
    table = Table(
        title=f"held-out labels: accuracy {report['accuracy']:.3f}, "
        f"calibration error {report['calibration_error']:.3f}",
        caption=f"documents: {splits}",
    )
    for column in ("label", "documents", "AUC", "threshold", "precision", "recall", "kept"):
        table.add_column(column, justify="left" if column == "label" else "right")
    for label, quality in report["labels"].items():
        for row, at in enumerate(quality["thresholds"]):
            first = (label, str(quality["documents"]), f"{quality['auc']:.3f}") if row == 0 else ("", "", "")
            precision = "–" if at["precision"] is None else f"{at['precision']:.3f}"
            table.add_row(*first, f"{at['threshold']:.1f}", precision, f"{at['recall']:.3f}", f"{at['kept']:.3f}")
        table.add_section()
    Console().print(table)
