"""One W&B run while it is open: the only module that calls the W&B client to write.

Requests stay far below W&B's published limits (2 file-stream requests a second a run, 500 a project, 80 new runs a
second) because one process sends for all runs of a sweep: it opens a few runs at a time (`wandb_sending`), and the
client puts what is logged of a run within 15 seconds into one request.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from davinci.errors import UserError
from davinci.store import Store
from davinci.tracking.history import Values
from davinci.tracking.wandb_runs import Shown

# How long the server may take to answer when a run is opened, and to take what was logged when it is closed.
OPEN_SECONDS = 60.0
CLOSE_SECONDS = 180.0
# After how long what was logged must have arrived.
STUCK_SECONDS = 60.0

# Held while an artifact is made, or a table, which is one too: the client keeps those it made last in a cache that
# threads must not change at once.
artifact_made = threading.Lock()

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
        self._logged: float | None = None
        self._failure: Exception | None = None
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
        self._logged = time.monotonic()

    def is_stuck(self) -> bool:
        """Whether rows that were logged long ago have not arrived."""
        if self._logged is None or time.monotonic() < self._logged + STUCK_SECONDS:
            return False
        return self.arrived(self.step) < self.step

    def log_table(self, tokens: int, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """One history row that holds a table."""
        table = client().Table(columns=list(columns), data=[list(row) for row in rows])
        with artifact_made:
            self.log(tokens, {name: table})

    def summarise(self, values: Values) -> None:
        self.run.summary.update(values)

    def end(self, exit_code: int, *, goes_on: bool = False) -> None:
        """Begin to end the run, which `close` waits for; W&B shows it as preempted where it `goes_on` later."""
        if goes_on:
            self.run.mark_preempting()
        if self.closer is None:
            self.closer = threading.Thread(target=self._finish, args=(exit_code,), daemon=True)
            self.closer.start()

    def _finish(self, exit_code: int) -> None:
        try:
            self.run.finish(exit_code)
        except Exception as error:  # As when its service was ended meanwhile (`reset`).
            self._failure = error

    def close(self) -> None:
        """Send what is left and end the run; again where that did not succeed.

        Raises:
            Unreachable: the server did not take it in time.
        """
        self.end(exit_code=0)
        assert self.closer is not None
        self.closer.join(CLOSE_SECONDS)
        if self.closer.is_alive():
            raise Unreachable(f"W&B did not take all of run {self.run.id} within {CLOSE_SECONDS:.0f} s{self.trouble()}")
        if self._failure is not None:
            raise Unreachable(f"W&B's client did not end run {self.run.id}: {_line(self._failure)}{self.trouble()}")

    def trouble(self) -> str:
        """What the client's service last had to say of an error, to be added to a line; empty where it had nothing."""
        log = Path(self.run.dir).parent / "logs" / "debug-internal.log"
        with suppress(OSError, ValueError):
            errors = [line for line in log.read_text().splitlines() if '"level":"ERROR' in line]
            return f" ({json.loads(errors[-1])['msg']})" if errors else ""
        return ""

    def arrived(self, wanted: int) -> int:
        """How many history rows the server has, once it has `wanted`, or after some patience."""
        found = 0
        with plain_errors():
            for wait in (0.0, 1.0, 4.0):
                time.sleep(wait)
                found = int(_api().run(self.run.path).lastHistoryStep) + 1
                if found >= wanted:
                    break
        return found

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The history rows that the server has, as tokens and metrics, in the order of its steps."""
        with plain_errors():
            for row in _api().run(self.run.path).scan_history():
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
    logging.raiseExceptions = False  # Its log may be on a full disk: one line says so, not a traceback a message.
    import wandb

    return wandb


@lru_cache(maxsize=1)
def _api() -> Any:
    """What reads from W&B, one for all runs: each asks who it is first."""
    from wandb.apis.public import Api

    return Api(timeout=30)


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
    _api.cache_clear()  # Before that it would have to say goodbye.


@contextmanager
def plain_errors() -> Iterator[None]:
    """Say what the W&B client raises in one line."""
    wandb = client()
    try:
        yield
    except wandb.errors.AuthenticationError as error:
        if "verify" in str(error) and not re.search(r"\b40[13]\b", str(error)):  # It could not ask.
            raise Unreachable(f"W&B at {_server(wandb)} does not answer: {_line(error)}") from None
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
    except Exception as error:  # its own service is busy with requests that it repeats, or is gone
        if not type(error).__module__.startswith("wandb."):
            raise
        raise Unreachable(f"W&B's client does not answer: {_line(error)}") from None


def _server(wandb: Any) -> str:
    return str(wandb.setup().settings.base_url)


def _line(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())[:500].rstrip(".")


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
