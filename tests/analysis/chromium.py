"""A headless Chromium driven over its DevTools pipe: real clicks, real widths, everything the console says."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BINARY = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
PATIENCE = 120  # seconds that the browser may say nothing
# Scrolls the element `e` into view; its box, once it has stood still for three frames with nothing before it, since
# what is drawn as it comes into view moves what is below.
PLACE = """
    e.scrollIntoView({block: 'center', behavior: 'instant'});
    let last = '', still = 0;
    const look = () => {
        const b = e.getBoundingClientRect(), box = [b.left, b.top, b.width, b.height];
        const top = document.elementFromPoint(b.left + ACROSS * b.width, b.top + b.height / 2);
        still = String(box) === last && top && (e.contains(top) || top.contains(e)) ? still + 1 : 0;
        last = String(box);
        if (still >= 3) done(box); else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
"""


class Chromium:
    """One browser with one page. `said` collects console errors, exceptions, and whatever the page tried to load."""

    def __init__(self) -> None:
        assert BINARY is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def hand_over() -> None:  # the browser reads from 3 and writes to 4
            reading, writing = os.dup(to_browser), os.dup(from_browser)
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        self._process = subprocess.Popen(
            [
                BINARY, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                "--disable-dev-shm-usage", f"--user-data-dir={self._profile.name}", "about:blank",
            ],
            preexec_fn=hand_over, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._buffer, self._session = 0, b"", None
        self._loaded: set[str] = set()
        self.said: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                if "navigated" in found.get("error", {}).get("message", ""):
                    return {"result": {}}  # asked while a link was followed: there is no answer yet
                assert "error" not in found, found
                result: dict[str, Any] = found["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], PATIENCE)[0], f"the browser has said nothing for {PATIENCE} s"
            block = os.read(self._read, 1 << 20)
            assert block, "the browser is gone"
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        about = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.said.append(str(about["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.said.append(str(about["args"]))
            case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
                self.said.append(str(about["entry"]))
            case "Page.lifecycleEvent" if about["name"] == "load":
                self._loaded.add(about["loaderId"])
            case "Page.javascriptDialogOpening":
                self.said.append(f"dialog: {about['message']}")
            case "Network.requestWillBeSent" if not about["request"]["url"].startswith(("file:", "data:", "blob:")):
                self.said.append(f"request: {about['request']['url']}")

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a local page at a width in CSS pixels; returns when it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        wanted = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        loader = self.call("Page.navigate", url=path.resolve().as_uri())["loaderId"]
        while loader not in self._loaded:
            self._next()

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def place(self, selector: str, across: float = 0.5) -> tuple[float, float]:
        """Scroll an element into view and say where it is: at `across` of its width, in the middle of its height."""
        element = f"const e = document.querySelector({json.dumps(selector)});"
        box = self.js(f"new Promise(done => {{ {element} {PLACE.replace('ACROSS', str(across))} }})")
        return box[0] + across * box[2], box[1] + box[3] / 2

    def mouse(self, kind: str, x: float, y: float, clicks: int = 0) -> None:
        button = {"button": "left", "buttons": 1, "clickCount": clicks} if clicks else {}
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **button)

    def click(self, selector: str) -> None:
        """A real click in the middle of an element."""
        x, y = self.place(selector)
        self.mouse("Moved", x, y)
        self.mouse("Pressed", x, y, 1)
        self.mouse("Released", x, y, 1)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of the view, or of the whole page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
