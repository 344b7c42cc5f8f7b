"""The scene of a chaos run: a sweep on a Slurm of its own, and what an onlooker sees of it.

Nothing here asks the program how it stands: Slurm is asked, and files and processes are looked at.
"""

from __future__ import annotations

import pickle
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from davinci.launching.lock import holder
from davinci.planning.plan import Plan
from davinci.store import Store, read_json
from davinci.tracking.records import read

CLUSTER = Path(__file__).parents[1] / "slurm" / "cluster.sh"
LIVE = {"RUNNING", "PENDING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED"}


@dataclass(frozen=True)
class Working:
    """A process in the middle of training a node: rows of this attempt are there, those of the end are not."""

    chain: str
    node: str
    pid: int


@dataclass(frozen=True)
class SlurmJob:
    """A job as squeue lists it; `host` is the Slurm node it runs on."""

    id: str
    chain: str | None
    state: str
    restarts: int
    host: str


@dataclass
class Ledger:
    """What was done to the sweep: counts by fault, and how often each chain was hit.

    `killed` are the chains whose process was killed while it trained, `requeued` the ids of jobs that were hit in a way
    after which they must come back by themselves, `damaged` the nodes whose finished weights were damaged.
    """

    faults: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    killed: set[str] = field(default_factory=set)
    requeued: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)

    def note(self, fault: str, chains: Iterable[str], words: str = "", count: int = 1) -> None:
        chains = list(chains)
        self.faults[fault] += count
        self.hits.update(chains)
        self.say(f"{fault}: {words or ', '.join(chains)}")

    def say(self, words: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {words}", flush=True)


@dataclass
class Scene:
    """The sweep of `plan` in `store`, launched by `command` on the cluster in `cluster`; the store has a file system of
    its own, so that it can be filled."""

    plan: Plan
    store: Store
    command: Sequence[str]
    cluster: Path
    environment: Mapping[str, str]
    logs: Path
    ledger: Ledger = field(default_factory=Ledger)

    @cached_property
    def chain_of(self) -> dict[str, str]:
        return {node: chain.name for chain in self.plan.chains() for node in chain.nodes}

    @cached_property
    def _paths(self) -> dict[str, str]:
        return {}

    def launch(self) -> subprocess.Popen[bytes]:
        """Start a launcher."""
        with (self.logs / "launchers.log").open("ab") as log:
            return subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment
            )

    def queue(self) -> list[SlurmJob]:
        """The sweep's jobs that Slurm still knows, the finished ones too."""
        columns = "JobArrayID:|,State:|,RestartCnt:|,NodeList:|,Name"
        command = ["squeue", "--noheader", "--array", "--states=all", "-O", columns.replace(":|", ":40")]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        found = []
        for line in listed.splitlines():
            job, state, restarts, host, name = (line[start : start + 40].strip() for start in range(0, 200, 40))
            if name.startswith(f"{self.plan.sweep}/"):
                found.append(SlurmJob(job, self.chain_of_job(job), state, int(restarts or 0), host))
        return found

    def chain_of_job(self, job: str) -> str | None:
        """The chain that a job was submitted for; None before submitit has left its file."""
        if job not in self._paths:
            path = self.store.jobs(self.plan.sweep) / "slurm" / f"{job}_submitted.pkl"
            try:
                call = pickle.loads(path.read_bytes()).function
            except (OSError, EOFError):
                return None
            self._paths[job] = Path(getattr(call, "_path", "")).stem
        return self._paths[job]

    def submitted(self) -> int:
        """How many jobs were submitted."""
        return len(list((self.store.jobs(self.plan.sweep) / "slurm").glob("*_submitted.pkl")))

    def frozen(self) -> int:
        """How many job files were written."""
        folder = self.store.jobs(self.plan.sweep)
        return sum((folder / f"{chain.name}.json").is_file() for chain in self.plan.chains())

    def working(self) -> list[Working]:
        """The nodes that are being trained and are neither at their beginning nor at their end."""
        found = []
        for name, node in self.plan.nodes.items():
            if self.is_done(name) or (owner := holder(self.store.node(name))) is None:
                continue
            if node.begin < self.reached(name) < node.end - self.margin(name):
                found.append(Working(self.chain_of[name], name, owner.pid))
        return found

    def margin(self, node: str) -> int:
        """A tenth of a node, in tokens: too near to its end to be struck in the middle."""
        return (self.plan.nodes[node].end - self.plan.nodes[node].begin) // 10

    def reached(self, node: str) -> int:
        """Tokens of the newest training row, as the last attempt counts; the node's begin where there is none."""
        rows = read(self.store.records(node), "train")
        last = max((row["attempt"] for row in rows), default=0)
        return max((row["tokens"] for row in rows if row["attempt"] == last), default=self.plan.nodes[node].begin)

    def is_done(self, node: str) -> bool:
        return (self.store.node(node) / "done.json").is_file()

    def is_finished(self) -> bool:
        """Whether every node is marked done and no job of the sweep is left."""
        return all(map(self.is_done, self.plan.nodes)) and not any(job.state in LIVE for job in self.queue())

    def progress(self) -> float:
        """The mean over chains of how much of each is trained, 0 to 1: by tokens, short branches would hardly count."""
        parts = []
        for chain in self.plan.chains():
            nodes = [self.plan.nodes[name] for name in chain.nodes]
            trained = sum((one.end if self.is_done(one.id) else self.reached(one.id)) - one.begin for one in nodes)
            parts.append(trained / sum(one.end - one.begin for one in nodes))
        return sum(parts) / len(parts)

    def failed(self) -> set[str]:
        """Chains with a note that they failed."""
        folder = self.store.jobs(self.plan.sweep)
        return {chain.name for chain in self.plan.chains() if (folder / f"{chain.name}.failed.json").is_file()}

    def digests(self) -> dict[str, str]:
        """Digest of the weights at the end of each finished node."""
        return {
            node: read_json(self.store.node(node) / "done.json")["weights_digest"]
            for node in self.plan.nodes
            if self.is_done(node)
        }

    def on_cluster(self, command: str, host: str) -> None:
        subprocess.run([CLUSTER, command, self.cluster, host], check=True, timeout=60, stderr=subprocess.DEVNULL)
