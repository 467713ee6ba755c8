"""Chromium without a window, driven over its DevTools protocol: what tests and benchmarks of web pages need of it.

Messages go through a pair of pipes (`--remote-debugging-pipe`), JSON with a zero byte behind each, so that neither a
port nor a websocket is needed. https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check", "--disable-gpu",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--disable-breakpad", "--mute-audio", "--window-size=1200,1000",
)  # fmt: skip
_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD_CLOEXEC, 10) for end in sys.argv[1:3]]
for end in sys.argv[1:3]: os.close(int(end))
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""What the pipes are called is fixed: 3 to read from, 4 to write to."""
_TIMEOUT_S = 120.0


class BrowserError(RuntimeError):
    """The browser ended, did not answer, or a page threw."""


def chromium() -> str | None:
    """The command, where it is installed."""
    return next((found for name in _NAMES if (found := shutil.which(name)) is not None), None)


class Browser:
    """One page in a browser with a profile of its own. A context manager.

    Raises:
        BrowserError: it is not installed, or does not start.
    """

    def __init__(self) -> None:
        command = chromium()
        if command is None:
            raise BrowserError("there is no Chromium here")
        self._profile = tempfile.TemporaryDirectory(prefix="prunec-chromium-", ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # As root it has no sandbox: pages are those of the packages alone.
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        ends = (str(theirs_in), str(theirs_out))
        arguments = [command, *_FLAGS, *sandbox, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, *ends, *arguments], pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "HOME": self._profile.name},
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._read, self._asked = b"", 0
        self.complaints: list[str] = []
        """What pages wrote to the console as errors, exceptions that nobody caught, and violations of the policy."""
        self._session: str | None = None
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BrowserError:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and all its processes."""
        self._session = None
        with suppress(BrowserError, OSError):
            self.call("Browser.close", timeout_s=10.0)
        with suppress(OSError):
            os.close(self._out)
            os.close(self._in)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        self._profile.cleanup()

    def version(self) -> str:
        """As in Chrome/130.0.6723.91."""
        return str(self.call("Browser.getVersion")["product"])

    def peak_rss_bytes(self) -> int:
        """High-water mark of the largest process of a page."""
        session, self._session = self._session, None
        processes = self.call("SystemInfo.getProcessInfo")["processInfo"]
        self._session = session
        found = [0]
        for process in processes:
            if process["type"] == "renderer":
                with suppress(OSError):
                    lines = Path(f"/proc/{process['id']}/status").read_text().splitlines()
                    found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
        return max(found)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it has loaded."""
        answer = self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise BrowserError(f"{url}: {answer['errorText']}")
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str, *, timeout_s: float = _TIMEOUT_S) -> Any:
        """The JSON value of an expression, awaited where it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, timeout_s=timeout_s
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details.get("text")
            raise BrowserError(f"the page threw {text}")
        return answer["result"].get("value")

    def wait_for(self, condition: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Until an expression is true."""
        end = time.monotonic() + timeout_s
        while not self.evaluate(condition):
            if time.monotonic() > end:
                raise BrowserError(f"{condition} did not become true within {timeout_s:g} s")
            time.sleep(0.05)

    def screenshot(self) -> bytes:
        """The page as it looks now, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def call(self, method: str, *, timeout_s: float = _TIMEOUT_S, **parameters: Any) -> dict[str, Any]:
        """One request of the protocol."""
        self._asked += 1
        request: dict[str, Any] = {"id": self._asked, "method": method, "params": parameters}
        if self._session is not None:
            request["sessionId"] = self._session
        data = json.dumps(request).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError:
            raise BrowserError("Chromium has ended") from None
        end = time.monotonic() + timeout_s
        while True:
            message = self._message(end, method)
            if message.get("id") == self._asked:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error'].get('message')}")
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _message(self, end: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise BrowserError(f"Chromium did not answer {method} in time")
            piece = os.read(self._in, 2**20)
            if not piece:
                raise BrowserError("Chromium has ended")
            self._read += piece
        text, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details.get("text", ""))
        elif event.get("method") == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.complaints.append(f"{given['entry']['text']} {given['entry'].get('url', '')}".strip())
        elif event.get("method") == "Runtime.consoleAPICalled" and given["type"] == "error":
            self.complaints.append(" ".join(str(a.get("value", a.get("description", ""))) for a in given["args"]))
