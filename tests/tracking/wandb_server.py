"""As much of a W&B server, on loopback, as the real client needs: to create, resume, log to and finish runs, to name
artifacts, to read runs back (`wandb.Api`) and to save views. It counts requests, and fails or hangs where told to.

Usage by hand: python tests/tracking/wandb_server.py [PORT]   (prints what it holds when it is interrupted)
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "tests"
_OPERATION = re.compile(r"\b(?:query|mutation)\s+(\w+)")
_STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream")


@dataclass
class Received:
    """One run as the client has sent it. `history` holds its rows; `exit_code` is None until it is finished."""

    config: dict[str, Any] = field(default_factory=dict)
    display_name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None


@dataclass
class Version:
    """One version of an artifact, and the runs (entity, project, run id) that made and used it."""

    name: str
    type: str
    digest: str
    metadata: dict[str, Any]
    aliases: set[str] = field(default_factory=set)
    made_by: tuple[str, str, str] | None = None
    used_by: set[tuple[str, str, str]] = field(default_factory=set)


class Server:
    """What the clients of one server have sent.

    Attributes:
        runs: by (entity, project, run id).
        artifacts: by their id.
        views: workspaces and reports, as their mutation's input.
        files: what was uploaded, by path.
        requests: (seconds, kind) of each request: the operation of a query, or ``file_stream`` with the run's id.
        failing: HTTP status of every answer, if set.
        hanging: set to let every request wait for `released`.
        faults: what becomes of the next file-stream requests, one each: an HTTP status, ``cut`` (the connection, half
            way through what is sent) or ``unheard`` (what was sent counts, but the connection ends without an answer).
    """

    def __init__(self, port: int = 0) -> None:
        self.runs: dict[tuple[str, str, str], Received] = {}
        self.artifacts: dict[str, Version] = {}
        self.views: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[float, str]] = []
        self.failing: int | None = None
        self.hanging = False
        self.faults: deque[int | str] = deque()
        self.released = threading.Event()
        self.on_stream: Callable[[tuple[str, str, str]], None] = lambda key: None
        self._types: dict[str, str] = {}  # of artifacts, by their name
        self._lock = threading.Lock()
        self.http = _Http(("127.0.0.1", port), type("Handler", (_Handler,), {"server_of": self}))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send the client here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "0" * 40, "WANDB_ERROR_REPORTING": "false"}

    def counted(self) -> Counter[str]:
        """Requests so far by kind."""
        return Counter(kind.partition(" ")[0] for _, kind in self.requests)

    def most_in_a_second(self, kind: str) -> int:
        """The most requests of a kind, or of those that begin so, within any second."""
        found = sorted(when for when, one in self.requests if one.startswith(kind))
        return max((bisect_left(found, when + 1) - place for place, when in enumerate(found)), default=0)

    def graphql(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """The answer to a query, told by its operation or by the field it asks for."""
        found = _OPERATION.search(query)
        operation = found[1] if found else ""
        with self._lock:
            self.requests.append((time.monotonic(), operation))
            if "Artifact" in operation or operation == "ClientIDMapping":
                return self._artifact(operation, given)
            if "upsertView" in query:
                self.views.append(given)
                view = {"id": "view", "name": given.get("name"), "displayName": given.get("displayName")}
                view |= {"type": given.get("type"), "spec": given.get("spec"), "project": _project(ENTITY, "")}
                return {"upsertView": {"view": view, "inserted": True}}
            if "upsertModel" in query:
                return {"upsertModel": {"model": _project(ENTITY, given.get("name") or ""), "inserted": True}}
            if "upsertBucket" in query:
                return {"upsertBucket": {"bucket": self._upsert(given), "inserted": True}}
            if "createRunFiles" in query:
                place = "/".join(given[name] for name in ("entity", "project", "run"))
                files = [{"name": name, "uploadUrl": f"{self.url}/up/{place}/{name}"} for name in given["files"]]
                return {"createRunFiles": {"runID": given.get("run"), "uploadHeaders": [], "files": files}}
            if "historyTail" in query:
                return {"model": self._resumed(given)}
            if "run(" in query or "runs(" in query:
                return {"project": self._read(query, given)}
            if "serverInfo" in query or "viewer" in query:
                return {"viewer": _viewer(), "serverInfo": _server_info()}
            if "project(" in query or "model(" in query:
                project = _project(*self._place(given))
                return {"project": project, "model": project}
            return {}

    def stream(self, key: tuple[str, str, str], sent: dict[str, Any]) -> None:
        """Rows of history, the summary, and the end of a run."""
        with self._lock:
            self.requests.append((time.monotonic(), f"file_stream {key[2]}"))
            run = self.runs.setdefault(key, Received())
            for name, part in (sent.get("files") or {}).items():
                rows = [json.loads(line) for line in part["content"] if line.strip()]
                if name == "wandb-history.jsonl":
                    run.history[part["offset"] :] = rows
                elif name == "wandb-summary.json" and rows:
                    run.summary = rows[-1]
            if sent.get("complete"):
                run.exit_code = sent.get("exitcode")
        self.on_stream(key)

    def version(self, name: str) -> Version:
        """The only version of the artifact `name`."""
        (found,) = (version for version in self.artifacts.values() if version.name == name)
        return found

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        key = (given.get("entity") or ENTITY, given.get("project") or "uncategorized", given["name"])
        run = self.runs.setdefault(key, Received())
        run.config = json.loads(given["config"]) if given.get("config") else run.config
        run.display_name = given.get("displayName") or run.display_name
        run.group, run.job_type = given.get("groupName") or run.group, given.get("jobType") or run.job_type
        run.tags = given.get("tags") or run.tags
        return _bucket(key, run)

    def _resumed(self, given: dict[str, Any]) -> dict[str, Any]:
        entity, project = self._place(given)
        run = self.runs.get((entity, project, given.get("name", "")))
        found = _project(entity, project) | {"bucket": None}
        return found if run is None else found | {"bucket": _bucket((entity, project, given["name"]), run)}

    def _read(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        entity, project = self._place(given)
        low, high = int(given.get("minStep") or 0), int(given.get("maxStep") or 1 << 62)
        if "runs(" in query:
            found = {key[2]: run for key, run in self.runs.items() if key[:2] == (entity, project)}
            nodes = {name: _node((entity, project, name), run, low, high) for name, run in found.items()}
            edges = [{"node": node, "cursor": name} for name, node in nodes.items()]
            pages = {"endCursor": None, "hasNextPage": False}
            runs = {"totalCount": len(edges), "edges": edges, "pageInfo": pages}
            return _project(entity, project) | {"runCount": len(edges), "readOnly": False, "runs": runs}
        name = next((given[key] for key in ("name", "run", "runName", "runId", "run_id") if key in given), "")
        run = self.runs.get((entity, project, name))
        node = None if run is None else _node((entity, project, name), run, low, high)
        return _project(entity, project) | {"run": node}

    @staticmethod
    def _place(given: dict[str, Any]) -> tuple[str, str]:
        entity = given.get("entity") or given.get("entityName") or ENTITY
        return entity, given.get("project") or given.get("projectName") or "uncategorized"

    def _artifact(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        asked = given.get("input") or given
        match operation:
            case "ArtifactType":
                name = given["name"].partition(":")[0]
                artifact = {"artifactType": {"name": self._types[name]}} if name in self._types else None
                return {"project": _project(*self._place(given)) | {"artifact": artifact}}
            case "CreateArtifact":
                (name,) = asked["artifactCollectionNames"] or [asked["artifactCollectionName"]]
                return {"createArtifact": {"artifact": self._create(name, asked)}}
            case "UseArtifact":
                key = (asked["entityName"], asked["projectName"], asked["runName"])
                self.artifacts[asked["artifactID"]].used_by.add(key)
                return {"useArtifact": {"artifact": {"id": asked["artifactID"]}}}
            case "CommitArtifact":
                version = self.artifacts[given["artifactID"]]
                return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": version.digest}}}
            case "CreateArtifactManifest" | "UpdateArtifactManifest":
                file = {
                    "id": "file",
                    "uploadUrl": f"{self.url}/up/manifest/{given.get('artifactID')}",
                    "uploadHeaders": [],
                }
                name = operation[0].lower() + operation[1:]
                return {name: {"artifactManifest": {"id": "manifest", "file": file}}}
            case "CreateArtifactFiles":
                edges = [
                    {
                        "node": {
                            "storagePath": None,
                            "uploadUrl": f"{self.url}/up/artifact/{one['artifactID']}/{one['name']}",
                            "uploadHeaders": [],
                            "uploadMultipartUrls": None,
                            "artifact": {"id": one["artifactID"]},
                        }
                    }
                    for one in asked["artifactFiles"]
                ]
                return {"createArtifactFiles": {"files": {"edges": edges}}}
        return {}

    def _create(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """A version with this digest, made unless there is one, as W&B does."""
        key = (asked["entityName"], asked["projectName"], asked["runName"])
        maker = key if asked["runName"] else None
        identity = f"{name}:{asked['digest']}"
        state = "COMMITTED" if identity in self.artifacts else "PENDING"
        self._types[name] = asked["artifactTypeName"]
        if identity not in self.artifacts:
            metadata = json.loads(asked.get("metadata") or "{}")
            version = Version(name, asked["artifactTypeName"], asked["digest"], metadata, made_by=maker)
            self.artifacts[identity] = version
        self.artifacts[identity].aliases |= {one["alias"] for one in asked.get("aliases") or ()}
        sequence = {"id": f"sequence-{name}", "latestArtifact": {"id": identity, "versionIndex": 0}}
        return {"id": identity, "digest": asked["digest"], "state": state, "artifactSequence": sequence}


def _project(entity: str, name: str) -> dict[str, Any]:
    return {"id": "1", "internalId": "1", "name": name, "entityName": entity, "entity": {"id": "1", "name": entity}}


def _node(key: tuple[str, str, str], run: Received, low: int, high: int) -> dict[str, Any]:
    """A run as `wandb.Api` reads it."""
    rows = [row for row in run.history if low <= row["_step"] < high]
    names = {name: {"typeCounts": [{"type": "number", "count": 1}]} for row in rows for name in row}
    return _bucket(key, run) | {
        "group": run.group,
        "jobType": run.job_type,
        "state": "running" if run.exit_code is None else "failed" if run.exit_code else "finished",
        "createdAt": "2026-01-01T00:00:00Z",
        "heartbeatAt": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-01T00:00:00Z",
        "projectId": "1",
        "commit": None,
        "description": None,
        "notes": None,
        "readOnly": False,
        "systemMetrics": "{}",
        "historyKeys": {"lastStep": max((row["_step"] for row in run.history), default=-1), "keys": names},
        "user": {"id": "1", "name": ENTITY, "username": ENTITY},
        "history": [json.dumps(row) for row in rows],
        "sampledHistory": [rows],
        "parquetHistory": {"parquetUrls": [], "liveData": rows},
        "events": [],
        "sweep": None,
    }


def _bucket(key: tuple[str, str, str], run: Received) -> dict[str, Any]:
    entity, project, name = key
    return {
        "id": base64.b64encode(":".join(key).encode()).decode(),
        "name": name,
        "displayName": run.display_name,
        "config": json.dumps(run.config),
        "summaryMetrics": json.dumps(run.summary),
        "wandbConfig": json.dumps({"t": 1}),
        "historyLineCount": len(run.history),
        "eventsLineCount": 0,
        "logLineCount": 0,
        "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
        "eventsTail": "[]",
        "tags": run.tags,
        "sweepName": None,
        "project": _project(entity, project),
    }


def _viewer() -> dict[str, Any]:
    return {
        "id": "1",
        "entity": ENTITY,
        "username": ENTITY,
        "flags": "{}",
        "teams": {"edges": [{"node": {"name": ENTITY}}]},
    }


def _server_info() -> dict[str, Any]:
    return {"cliVersionInfo": {"max_cli_version": "1.0.0"}, "latestLocalVersionInfo": None, "features": []}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # as from a client that was killed
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: Server

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        body = self._body()
        if self.path.startswith("/up/"):
            self.server_of.files[self.path.removeprefix("/up/")] = body
        self._answer({})

    def do_POST(self) -> None:
        server, stream = self.server_of, _STREAM.match(self.path)
        fault = server.faults.popleft() if stream and server.faults else None
        if fault == "cut":
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self._body()
        if server.hanging:
            server.released.wait()
        if server.failing is not None:
            server.requests.append((time.monotonic(), str(server.failing)))
            self._answer({}, server.failing)
            return
        if self.path.startswith("/graphql"):
            asked = json.loads(body)
            self._answer({"data": server.graphql(asked["query"], asked.get("variables") or {})})
            return
        if isinstance(fault, int):
            server.requests.append((time.monotonic(), str(fault)))
            self._answer({}, fault)
            return
        if stream:
            server.stream((stream[1], stream[2], stream[3]), json.loads(body))
        if fault == "unheard":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self._answer({"limits": {}})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    """A server that answers while the block runs."""
    server = Server(port)
    threading.Thread(target=server.http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.released.set()
        server.http.shutdown()
        server.http.server_close()


if __name__ == "__main__":
    with serving(int(sys.argv[1]) if len(sys.argv) > 1 else 8080) as running:
        print(" ".join(f"{name}={value}" for name, value in running.environment.items()), flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            for (_, _, name), run in sorted(running.runs.items()):
                print(f"{name} {run.display_name}: {len(run.history)} rows, exit code {run.exit_code}")
