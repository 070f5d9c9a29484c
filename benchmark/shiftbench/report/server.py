"""A small web server for report pages: read only, and for this machine unless asked otherwise.

It knows a few paths, each of which stands for a page in memory, and nothing of the file system. A
page of another site cannot read it: requests whose ``Host`` is a name that somebody else could have
pointed here are refused (DNS rebinding), and no answer may be embedded or read elsewhere.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shiftbench.core.errors import InputError, StorageError
from shiftbench.report.html.assets import static
from shiftbench.report.html.templating import environment

if TYPE_CHECKING:
    from shiftbench.report.live import LivePage

HTML, JSON, TEXT = "text/html", "application/json", "text/plain"
IDLE_S = 30
"""Seconds that a connection may be silent."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src "
    "'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class ReportServer(ThreadingHTTPServer):
    """Serves report pages until it is shut down.

    Args:
        pages: by the path that they stand at, ``""`` for the root, whose list of the others is
            made here where several are given.
        host: address to listen on.
        port: 0 for any that is free.

    Attributes:
        url: of the root.

    Raises:
        InputError: it cannot listen there.
    """

    daemon_threads = True

    def __init__(self, pages: Mapping[str, LivePage], host: str, port: int) -> None:
        self.pages = dict(pages)
        self.host = host
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.address_family = family
            super().__init__((str(address[0]), int(address[1])), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            where = f"--host {host} --port {port}"
            raise InputError(f"{where}: cannot listen there ({reason})") from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Bind without asking anybody for this machine's name, as ``HTTPServer`` does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, unless somebody just went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def index(self) -> bytes:
        """The list of the pages."""
        entries = [
            {"path": path, "title": page.title, "state": page.state()}
            for path, page in self.pages.items()
        ]
        template = environment().get_template("served.html.jinja")
        return template.render(entries=entries, css=static("page.css")).encode()


def is_own_host(header: str | None, host: str) -> bool:
    """True if a request's ``Host`` cannot be a name that somebody else has pointed here.

    Addresses and ``localhost`` cannot; of other names, the one that the server listens on is meant.
    """
    if not header or any(c in header for c in "@/\\? #"):
        return False
    try:
        name = urlsplit(f"//{header}").hostname
        _ = urlsplit(f"//{header}").port  # raises where it is none
    except ValueError:
        return False
    if name is None:
        return False
    if name in ("localhost", host.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    server: ReportServer
    protocol_version = "HTTP/1.1"
    server_version = "shiftbench"
    sys_version = ""
    timeout = IDLE_S

    def do_GET(self) -> None:
        """A page, the list of pages, or the state of a page."""
        if not is_own_host(self.headers.get("Host"), self.server.host):
            self._send(HTTPStatus.MISDIRECTED_REQUEST, TEXT, b"not served under this name\n")
            return
        try:
            path = urlsplit(self.path).path.removeprefix("/")
        except ValueError:  # such as http://[
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        pages = self.server.pages
        if path == "" and "" not in pages:
            self._send(HTTPStatus.OK, HTML, self.server.index())
        elif path in pages and path:  # so that what a page asks for is below it
            self._send(HTTPStatus.PERMANENT_REDIRECT, TEXT, b"", {"Location": f"/{path}/"})
        elif path.removesuffix("/") in pages and (path == "" or path.endswith("/")):
            self._send_page(pages[path.removesuffix("/")])
        elif path.rpartition("/")[2] == "state" and path.rpartition("/")[0] in pages:
            state = json.dumps(pages[path.rpartition("/")[0]].state()).encode()
            self._send(HTTPStatus.OK, JSON, state)
        else:
            self._send(HTTPStatus.NOT_FOUND, TEXT, b"there is no such page\n")

    def do_HEAD(self) -> None:
        """As GET, without the content."""
        self.do_GET()

    def _send_page(self, live: LivePage) -> None:
        try:
            page = live.page()
        except (InputError, StorageError) as error:
            text = f"the rows cannot be read: {error}\n".encode()
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, text)
            return
        known = self.headers.get("If-None-Match", "").removeprefix("W/")
        if known == page.etag:
            self._send(HTTPStatus.NOT_MODIFIED, HTML, b"", {"ETag": page.etag})
        else:
            self._send(HTTPStatus.OK, HTML, page.body, {"ETag": page.etag})

    def _send(
        self,
        status: HTTPStatus,
        kind: str,
        content: bytes,
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", **HEADERS, **(more or {})}
        if status != HTTPStatus.NOT_MODIFIED:
            headers["Content-Length"] = str(len(content))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):  # nobody listens any more
                self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request; methods that would change something are those that nothing is for."""
        unknown = code == HTTPStatus.NOT_IMPLEMENTED
        status = HTTPStatus.METHOD_NOT_ALLOWED if unknown else HTTPStatus(code)
        self.close_connection = True  # what follows of the request is not read
        self._send(status, TEXT, f"{status.phrase}\n".encode(), {"Allow": "GET, HEAD"})

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: the terminal is for what is wrong."""

    def log_error(self, format: str, *args: Any) -> None:  # noqa: A002  (its name there)
        """Say nothing of connections that were silent for too long."""
