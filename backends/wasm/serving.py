"""Serve a folder to browsers on this machine, under the policy that packages promise to get along with.

    python -m prunec.backends.wasm.serving out/wasm [--port 8000]

`python -m http.server` does as well: a page then has a coarser clock, and no policy but its own.
"""

from __future__ import annotations

import argparse
import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    # A page of its own process may have a clock of 5 µs.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012  (the base class has it like that)
        **SimpleHTTPRequestHandler.extensions_map, ".wasm": "application/wasm", ".js": "text/javascript",
        ".mjs": "text/javascript", ".json": "application/json", ".weights": "application/octet-stream",
    }  # fmt: skip

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a terminal full of lines helps nobody."""


def server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of `folder` for this machine alone; port 0 is any that is free. Raises OSError."""
    return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Handler, directory=str(folder)))


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server that runs beside."""
    own = server(folder)
    thread = threading.Thread(target=own.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{own.server_port}"
    finally:
        own.shutdown()
        own.server_close()
        thread.join()


def main() -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve a folder to browsers on this machine.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    return serve_until_interrupted(arguments.folder, arguments.port)


def serve_until_interrupted(folder: Path, port: int) -> int:
    """Exit code 0 after Ctrl-C, 2 where there is nothing to serve or the port is taken."""
    if not folder.is_dir():
        sys.stderr.write(f"{folder} is no folder\n")
        return 2
    try:
        own = server(folder, port)
    except OSError as reason:
        sys.stderr.write(f"port {port}: {reason.strerror}\n")
        return 2
    path = "demo/" if (folder / "demo" / "index.html").exists() else ""
    sys.stdout.write(f"http://127.0.0.1:{own.server_port}/{path} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    with own, suppress(KeyboardInterrupt):
        own.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
