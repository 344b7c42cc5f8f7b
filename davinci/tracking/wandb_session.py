"""One W&B run while it is open: the only module that calls the W&B client to write.

Requests stay far below W&B's published limits (2 file-stream requests a second a run, 500 a project, 80 new runs a
second) because one process sends for all runs of a sweep: it opens one run after the other, and the client puts what is
logged of a run within 15 seconds into one request.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from davinci.errors import UserError
from davinci.store import Store
from davinci.tracking.history import Values
from davinci.tracking.wandb_runs import Shown

# How long the server may take to answer when a run is opened, and to take what was logged when it is closed.
OPEN_SECONDS = 60.0
CLOSE_SECONDS = 180.0

_HIDDEN = ("record/*", "eval_items/*", "eval_seconds/*", "eval_key/*")


class Unreachable(UserError):
    """W&B did not answer, or not in time: nothing is lost, and another attempt may go through."""


class Refused(UserError):
    """W&B does not take this run, as when it was deleted there; it may take others."""


class Session:
    """The W&B run of `shown`, created or continued.

    Args:
        shown: what it shows.
        store: W&B's own files go there too.
        mode: ``online`` or ``offline``.
        first_step: offline, how many rows earlier files of it hold.

    Attributes:
        step: of the next row.
        rows_before: how many rows it had before.

    Raises:
        Unreachable: the server does not answer.
        Refused: it does not take this run.
        UserError: it takes none, as without an API key.
    """

    def __init__(self, shown: Shown, store: Store, mode: str, first_step: int = 0) -> None:
        wandb = client(store)
        tracking = shown.tracking
        store.wandb.mkdir(parents=True, exist_ok=True)
        with plain_errors():
            self.run = wandb.init(
                id=shown.id,
                resume="allow",
                reinit="create_new",
                name=shown.name,
                group=shown.sweep,
                job_type=shown.job_type,
                notes=shown.notes or None,
                tags=list(shown.tags),
                config=shown.config,
                project=tracking["project"],
                entity=tracking["entity"],
                mode=mode,
                dir=store.root,  # wandb adds its own folder "wandb", which is store.wandb.
                settings=_settings(wandb),
            )
        self.closer: threading.Thread | None = None
        # Offline the client cannot know what earlier files of this run hold.
        self.step = max(self.run.step, self.run._starting_step) if mode == "online" else first_step
        # The client's own answer may be that of the summary, which can be ahead of the rows.
        self.rows_before = self.arrived(self.step) if mode == "online" and self.run.resumed else first_step
        self.run.define_metric("tokens", hidden=True)
        self.run.define_metric("*", step_metric="tokens")
        for name in _HIDDEN:
            self.run.define_metric(name, step_metric="tokens", hidden=True)

    @property
    def folder(self) -> str:
        """Name of its local folder."""
        return Path(self.run.dir).parent.name

    def log(self, tokens: int, values: dict[str, Any]) -> None:
        """One history row. It bears the time of the record, so that it stands where it happened on a time axis too."""
        when = values.get("record/time")
        bears = {} if when is None else {"_timestamp": when}
        self.run.log({"tokens": tokens, **values, **bears}, step=self.step, commit=True)  # else it waits for the next
        self.step += 1

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
        """A table as a value to log."""
        return {name: client().Table(columns=list(columns), data=[list(row) for row in rows])}

    def summarise(self, values: Values) -> None:
        self.run.summary.update(values)

    def close(self, exit_code: int = 0) -> None:
        """Send what is left and end the run; again where that did not succeed.

        Raises:
            Unreachable: the server did not take it in time.
        """
        if self.closer is None:
            self.closer = threading.Thread(target=self.run.finish, args=(exit_code,), daemon=True)
            self.closer.start()
        self.closer.join(CLOSE_SECONDS)
        if self.closer.is_alive():
            raise Unreachable(f"W&B did not take all of run {self.run.id} within {CLOSE_SECONDS:.0f} s")

    def arrived(self, wanted: int) -> int:
        """How many history rows the server has, once it has `wanted`, or after some patience."""
        from wandb.apis.public import Api

        found = 0
        with plain_errors():
            for wait in (0.0, 1.0, 4.0):
                time.sleep(wait)
                found = int(Api(timeout=30).run(self.run.path).lastHistoryStep) + 1
                if found >= wanted:
                    break
        return found

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The history rows that the server has, as tokens and metrics, in the order of its steps."""
        from wandb.apis.public import Api

        with plain_errors():
            for row in Api(timeout=30).run(self.run.path).scan_history():
                values = {name: value for name, value in row.items() if not name.startswith("_") and value is not None}
                yield int(values.pop("tokens", 0)), values


def client(store: Store | None = None) -> Any:
    """The module ``wandb``, which takes a second to import, quiet and with its files in the store."""
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    if store is not None:
        # What waits to be uploaded must still be there when an offline run is sent from another machine.
        os.environ.setdefault("WANDB_DATA_DIR", str(store.wandb / "data"))
        os.environ.setdefault("WANDB_CACHE_DIR", str(store.wandb / "cache"))
    import wandb

    return wandb


def reset() -> None:
    """End the client's service, with all that it still holds: it would go on for hours, and not open those runs again.

    What is lost with it is sent again: the server says how far it came.
    """
    wandb = client()
    with suppress(Exception):  # None was started, or it is gone.
        service = wandb.setup()._connection._proc._process
        service.kill()
        service.wait()
    with suppress(Exception):
        wandb.teardown()


@contextmanager
def plain_errors() -> Iterator[None]:
    """Say what the W&B client raises in one line."""
    wandb = client()
    try:
        yield
    except wandb.errors.AuthenticationError as error:
        raise UserError(f"W&B: {_line(error)}") from None
    except wandb.errors.UsageError as error:
        hint = "" if "API key" not in str(error) else "; or WANDB_API_KEY, or tracking=offline"
        raise UserError(f"W&B: {_line(error)}{hint}") from None
    except (wandb.errors.CommError, TimeoutError, OSError) as error:
        if re.search(r"\b40[13]\b", str(error)):
            raise UserError(f"W&B at {_server(wandb)} refuses the API key or the project: {_line(error)}") from None
        if re.search(r"\b4(0[0-79]|1\d|2[0-8])\b", str(error)):
            raise Refused(f"W&B at {_server(wandb)} refuses the run: {_line(error)}") from None
        raise Unreachable(f"W&B at {_server(wandb)} does not answer: {_line(error)}") from None
    except (wandb.errors.Error, ValueError) as error:
        raise Refused(f"W&B's client: {_line(error)}") from None


def _server(wandb: Any) -> str:
    return str(wandb.setup().settings.base_url)


def _line(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())[:500]


def _settings(wandb: Any) -> Any:
    return wandb.Settings(
        console="off",
        silent=True,
        disable_git=True,
        disable_code=True,
        init_timeout=OPEN_SECONDS,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
