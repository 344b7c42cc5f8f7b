"""W&B as a mirror of a sweep: a copy of the records, never the truth.

One process mirrors all runs of a sweep, apart from those that train: whatever becomes of W&B, they do not notice. What
it shows are committed rows only: of a stretch that is not done, those up to its last checkpoint, since what comes after
may be trained again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from davinci.store import Store
from davinci.tracking import wandb_lineage as lineage
from davinci.tracking.history import History, history, summary
from davinci.tracking.wandb_runs import Shown, launched, shown
from davinci.tracking.wandb_sent import Sent
from davinci.tracking.wandb_session import STUCK_SECONDS, Refused, Session, Unreachable, reset

Mode = Literal["offline", "online"]

# Seconds until rows that no checkpoint has committed yet are looked at again.
LOOK_SECONDS = 20.0


class Mirror:
    """Sends what W&B does not have yet of a sweep.

    Args:
        store: whose records.
        sweep: its name.
        mode: where to; None for what each run's `tracking.mode` says.
        log: told what was sent, a line each.

    Raises:
        UserError: the sweep was never launched from this store.
    """

    def __init__(self, store: Store, sweep: str, mode: Mode | None, log: Callable[[str], None]) -> None:
        self._store = store
        self._mode = mode
        self._log = log
        self._plan = launched(store, sweep)
        self._sessions: dict[str, Session] = {}
        self._looks: dict[str, _Look] = {}
        self.shown = shown(store, sweep)

    @property
    def modes(self) -> set[Mode]:
        """Where it sends to."""
        return {mode for one in self.shown.values() if (mode := self._mode_of(one)) is not None}

    def is_finished(self, name: str) -> bool:
        """Whether everything of a run or trunk is trained."""
        return self.shown[name].is_finished(self._store)

    def is_mirrored(self, name: str) -> bool:
        """Whether W&B has everything that the records hold, as far as file sizes and times tell."""
        one = self.shown[name]
        mode = self._mode_of(one)
        return mode is None or self._sent(one, mode).records == _stamp(self._store, one)

    def waves(self, names: Iterable[str]) -> Iterator[list[str]]:
        """`names` in groups that may be sent at once: what one continues, as its checkpoint, is in a group before."""
        in_order = sorted(names, key=lambda name: self.shown[name].begin)
        for _, wave in groupby(in_order, key=lambda name: self.shown[name].begin):
            yield list(wave)

    def send(self, name: str) -> None:
        """Send what is new of a run or trunk; it stays open in W&B while it trains. Different ones may be sent at once.

        Raises:
            Unreachable: W&B does not answer; what it has is known.
            Refused: it does not take this run.
            UserError: it takes none.
        """
        one = self.shown[name]
        mode = self._mode_of(one)
        finished = one.is_finished(self._store)
        if mode is None or not (finished or mode == "online"):
            return
        # Before reading: rows that arrive meanwhile make the next pass look again.
        committed, stamp = one.committed(self._store), _stamp(self._store, one)
        looked = _Look(committed, stamp)
        if name in self._looks and not looked.shows_more_than(self._looks[name]):
            return
        sent = self._sent(one, mode)
        if sent.records != stamp:
            rows = history(self._store, one.manifest, committed)
            _mark_stages(rows, one)
            # What does not train its own stretch yet has nothing that its trunk does not show.
            if finished or (any(tokens > one.begin for tokens in rows) and sent.missing(rows)):
                self._send(name, one, mode, sent, rows, stamp if finished else None)
        self._looks[name] = looked

    def close(self, *, goes_on: bool = False) -> None:
        """End what is still open: those runs do not train any more, though they are not finished; or, where their
        mirroring `goes_on` in another process, W&B is told so.

        Raises:
            Unreachable: W&B does not answer.
        """
        for session in self._sessions.values():
            session.end(exit_code=1, goes_on=goes_on)
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def abandon(self) -> None:
        """Let go of everything that is open, as it is: what W&B does not have is sent again."""
        self._sessions.clear()
        self._looks.clear()
        reset()

    def _send(
        self, name: str, one: Shown, mode: Mode, sent: Sent, rows: History, stamp: list[list[Any]] | None
    ) -> None:
        """`stamp` is that of the records of a finished run; None while it trains."""
        evaluations = lineage.evaluated(self._store, one) if stamp else []
        outputs = self._outputs(one, evaluations) if stamp else []
        known = {artifact.version for artifact in outputs} <= set(sent.artifacts)
        if name not in self._sessions and not sent.missing(rows) and known and sent.confirmed == len(sent.rows):
            sent.records = stamp
            sent.write()
            return
        session = self._sessions.get(name) or self._open(one, mode, sent)
        self._sessions[name] = session
        if mode == "online" and session.is_stuck():
            raise Unreachable(f"W&B took nothing of {name} for {STUCK_SECONDS:.0f} s{session.trouble()}")
        if session.closer is None:
            missing = sent.missing(rows)
            for tokens, values in missing.items():
                sent.note(tokens, values)
            sent.write()  # Before anything is on its way.
            for tokens, values in missing.items():
                session.log(tokens, values)
            session.summarise(summary(rows))
            if missing:
                self._log(f"{name}: {len(missing)} rows sent to W&B run {one.id}")
            if stamp is None:
                return
            if not known:
                self._send_lineage(one, session, sent, outputs, evaluations)
        session.close()
        del self._sessions[name]
        if mode == "online" and (arrived := session.arrived(session.step)) < session.step:
            raise Unreachable(f"W&B has {arrived} of the {session.step} rows of {name}{session.trouble()}")
        if mode == "offline" and (trouble := session.trouble()):
            raise Refused(f"W&B's client did not write it whole{trouble}")
        sent.folders += [session.folder] if mode == "offline" else []
        if evaluations and not known:
            self._send_evaluation(one, mode, sent, evaluations)
        sent.confirmed, sent.records = len(sent.rows), stamp
        sent.artifacts = sorted({*sent.artifacts, *(artifact.version for artifact in outputs)})
        sent.write()

    def _open(self, one: Shown, mode: Mode, sent: Sent) -> Session:
        if mode == "offline":
            for identity in (one.id, lineage.evaluation_of(one).id):
                self._remove_leftovers(identity, sent.folders)
            sent.cut(sent.confirmed)
        session = Session(one, self._store, mode, first_step=len(sent.rows))
        if session.rows_before > len(sent.rows):  # Sent from elsewhere, or the notes are lost.
            sent.cut(0)
            for tokens, values in session.rows():
                sent.note(tokens, values)
        sent.cut(session.rows_before)
        return session

    def _outputs(self, one: Shown, evaluations: list[dict[str, Any]]) -> list[lineage.Artifact]:
        """The checkpoints that the run's own training left, and its evaluation."""
        own = [node for node in one.nodes if node["begin"] >= one.begin]
        states = {(point["node"], point["tokens"]) for point in one.manifest["points"]}
        states = {(node, tokens) for node, tokens in states if node in {node["id"] for node in own}}
        states |= {(node["id"], node["end"]) for node in own[-1:]}
        found = [lineage.checkpoint(self._store, node, tokens) for node, tokens in sorted(states)]
        return found + ([lineage.evaluation(self._store, one, evaluations)] if evaluations else [])

    def _send_lineage(
        self,
        one: Shown,
        session: Session,
        sent: Sent,
        outputs: list[lineage.Artifact],
        evaluations: list[dict[str, Any]],
    ) -> None:
        if (data := lineage.dataset(one, self._store, self._plan)) is not None:
            lineage.send(session, data, used=True)
        parents = [node for node in one.nodes if node["end"] <= one.begin]
        if parents:
            lineage.send(session, lineage.checkpoint(self._store, parents[-1]["id"], one.begin), used=True)
        for artifact in outputs:
            if artifact.type == "checkpoint":
                lineage.send(session, artifact, used=False)
        if evaluations:
            sent.note(one.nodes[-1]["end"], {"evaluations": len(evaluations)})
            sent.write()
            columns = lineage.COLUMNS
            rows = ([row[name] for name in columns] for row in evaluations)
            session.log_table(one.nodes[-1]["end"], "evaluations", columns, rows)

    def _send_evaluation(self, one: Shown, mode: Mode, sent: Sent, evaluations: list[dict[str, Any]]) -> None:
        session = Session(lineage.evaluation_of(one), self._store, mode)
        for node, tokens in sorted({(row["node"], row["tokens"]) for row in evaluations}):
            lineage.send(session, lineage.checkpoint(self._store, node, tokens), used=True)
        lineage.send(session, lineage.evaluation(self._store, one, evaluations), used=False)
        session.summarise({f"eval/{row['benchmark']}": row["score"] for row in evaluations})
        session.close()
        sent.folders += [session.folder] if mode == "offline" else []

    def _mode_of(self, one: Shown) -> Mode | None:
        mode = self._mode or one.tracking["mode"]
        return None if mode == "disabled" else mode

    def _sent(self, one: Shown, mode: Mode) -> Sent:
        path = self._store.wandb / "mirrored" / f"{one.id}.{mode}.json"
        return Sent.read(path, {**one.tracking, "mode": mode})

    def _remove_leftovers(self, identity: str, folders: list[str]) -> None:
        """Remove offline runs that a killed mirror left half-written: they are sent again whole."""
        for path in self._store.wandb.glob(f"offline-run-*-{identity}"):
            if path.name not in folders:
                shutil.rmtree(path)


@dataclass(frozen=True)
class _Look:
    """What a run's files were like when it was looked at: up to which tokens nodes that train are committed, and the
    sizes and times of the records."""

    committed: dict[str, int]
    stamp: list[list[Any]]
    at: float = field(default_factory=time.monotonic)

    def shows_more_than(self, before: _Look) -> bool:
        """Whether there may be something to send; where it only trains on, there is not until its next checkpoint, but
        for scores, which may wait a moment."""
        if self.committed == before.committed and self.committed:
            return self.stamp != before.stamp and self.at > before.at + LOOK_SECONDS
        return self.committed != before.committed or self.stamp != before.stamp


def _mark_stages(rows: History, one: Shown) -> None:
    """Note the stage's place in the first row of each stage and in its last: a step curve of boundaries."""
    for place, (_, begin, end) in enumerate(one.stages):
        inside = [tokens for tokens in rows if begin < tokens <= end]
        for tokens in {*inside[:1], end} & rows.keys():
            rows[tokens]["stage/place"] = place


def _stamp(store: Store, one: Shown) -> list[list[Any]]:
    """Size and time of each record file, and the range of it that belongs to the run."""
    stamp = []
    for node in one.nodes:
        path = store.records(node["id"])
        status = path.stat() if path.is_file() else None
        stamp.append(
            [node["id"], node["begin"], node["end"], *([status.st_size, status.st_mtime_ns] if status else [])]
        )
    return stamp
