"""A small web server on this machine that publishes files as the wide world does: with ranges, breaks and lies."""

from __future__ import annotations

import http.server
import io
import re
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

ENVIRONMENT = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of the files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


@dataclass
class Publisher:
    """What is published, how badly, and what was asked for (path, Range header)."""

    files: dict[str, bytes] = field(default_factory=dict)
    address: str = ""
    breaks: list[int] = field(default_factory=list)  # each answer that breaks off, after so many bytes
    knows_ranges: bool = True
    heeds_versions: bool = True  # If-Range
    tag: str = '"one"'  # empty: none
    delay_s: float = 0.0
    announces: int | None = None  # a Content-Length of its own
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def url(self, name: str) -> str:
        return self.address + name

    def ranges(self) -> list[str | None]:
        return [header for _, header in self.asked]

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append((request.path, request.headers["Range"]))
        time.sleep(self.delay_s)
        content = self.files.get(request.path[1:])
        if content is None:
            request.send_error(404)
            return
        start = self.start_of(request)
        if start and start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.tag:
            request.send_header("ETag", self.tag)
        request.send_header("Content-Length", str(self.announces or len(content) - start))
        request.end_headers()
        end = start + self.breaks.pop(0) if self.breaks else len(content)
        request.wfile.write(content[start:end])

    def start_of(self, request: http.server.BaseHTTPRequestHandler) -> int:
        """Where the answer begins: 0 where ranges or the asker's version are not known."""
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers["Range"] or "")
        is_other = self.heeds_versions and request.headers["If-Range"] not in (None, self.tag)
        if not asked or not self.knows_ranges or is_other:
            return 0
        return int(asked[1])


@contextmanager
def reachable(monkeypatch) -> Iterator[Publisher]:
    """The server, with no proxy in between and no pauses between retries."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("semgan.download.PAUSE_S", 0.0)
    with publishing() as server:
        yield server


@contextmanager
def publishing() -> Iterator[Publisher]:
    """A publisher that answers until the block ends."""
    publisher = Publisher()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            publisher.answer(self)

        def log_message(self, *arguments):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass  # who asked has gone away

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        publisher.address = f"http://127.0.0.1:{server.server_port}/"
        yield publisher
        server.shutdown()
