"""As much of a W&B server, on loopback, as the real client needs to create, resume, log to and finish runs.

Usage by hand: python tests/tracking/wandb_server.py [PORT]   (prints what it holds when it is interrupted)
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "tests"
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


class Server:
    """What the clients of one server have sent: `runs` by (entity, project, run id)."""

    def __init__(self, port: int = 0) -> None:
        self.runs: dict[tuple[str, str, str], Received] = {}
        self._lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"server_of": self}))

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send the client here."""
        return {
            "WANDB_BASE_URL": f"http://127.0.0.1:{self.http.server_address[1]}",
            "WANDB_API_KEY": "0" * 40,
            "WANDB_ERROR_REPORTING": "false",
        }

    def graphql(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """The answer to a query, told by the field it asks for."""
        with self._lock:
            if "upsertBucket" in query:
                return {"upsertBucket": {"bucket": self._upsert(given), "inserted": True}}
            if "createRunFiles" in query:
                return {"createRunFiles": {"runID": given.get("run"), "uploadHeaders": [], "files": []}}
            if "wandbConfig" in query or "historyTail" in query:
                return {"model": self._resumed(given)}
            if "serverInfo" in query or "viewer" in query:
                return {"viewer": _viewer(), "serverInfo": _server_info()}
            return {}

    def stream(self, key: tuple[str, str, str], sent: dict[str, Any]) -> None:
        """Rows of history, the summary, and the end of a run."""
        with self._lock:
            run = self.runs.setdefault(key, Received())
            for name, part in (sent.get("files") or {}).items():
                rows = [json.loads(line) for line in part["content"] if line.strip()]
                if name == "wandb-history.jsonl":
                    run.history[part["offset"] :] = rows
                elif name == "wandb-summary.json" and rows:
                    run.summary = rows[-1]
            if sent.get("complete"):
                run.exit_code = sent.get("exitcode")

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        key = (given.get("entity") or ENTITY, given.get("project") or "uncategorized", given["name"])
        run = self.runs.setdefault(key, Received())
        run.config = json.loads(given["config"]) if given.get("config") else run.config
        run.display_name = given.get("displayName") or run.display_name
        run.group, run.job_type = given.get("groupName") or run.group, given.get("jobType") or run.job_type
        run.tags = given.get("tags") or run.tags
        return _bucket(key, run)

    def _resumed(self, given: dict[str, Any]) -> dict[str, Any]:
        entity, project = given.get("entity") or ENTITY, given.get("project") or "uncategorized"
        run = self.runs.get((entity, project, given.get("name", "")))
        found = {"id": "1", "name": project, "entity": {"id": "1", "name": entity}, "bucket": None}
        return found if run is None else found | {"bucket": _bucket((entity, project, given["name"]), run)}


def _bucket(key: tuple[str, str, str], run: Received) -> dict[str, Any]:
    entity, project, name = key
    owner = {"id": "1", "name": project, "entity": {"id": "1", "name": entity}}
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
        "project": owner,
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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: Server

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self._body()
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path.startswith("/graphql"):
            asked = json.loads(body)
            self._answer({"data": self.server_of.graphql(asked["query"], asked.get("variables") or {})})
            return
        if found := _STREAM.match(self.path):
            self.server_of.stream((found[1], found[2], found[3]), json.loads(body))
        self._answer({"limits": {}})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
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
