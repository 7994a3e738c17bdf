"""The page to watch streams on, their metrics and their health, over HTTP; nothing is loaded from elsewhere.

Bound to loopback it is open to this machine alone, and answers to its names only, so that no other site's script may
ask it through the browser. Bound to anything else it wants a token.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import re
from functools import partial
from http import HTTPStatus
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stream.errors import OutputError, UsageError
from stream.lanes import Room, Worker
from stream.live.fleet import Fleet
from stream.live.states import State

log = logging.getLogger(__name__)
CONNECTIONS = 64  # at once; what comes on top is closed
POLICY = "default-src 'self'; img-src 'self' blob: data:; style-src 'self' {0}; script-src 'self' {0}".format(
    "'unsafe-inline'"
)


class Page:
    """A server in threads of its own."""

    def __init__(self, where: str, token: str | None, fleet: Fleet) -> None:
        """Serve at `where`, HOST:PORT.

        Raises:
            UsageError: it is no address, or others can reach it and there is no token.
            OutputError: the port is taken.
        """
        host, _, port = where.rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        if not port.isdigit() or int(port) > 65535:
            raise UsageError(f"--web wants HOST:PORT, such as 127.0.0.1:8080, not '{where}'")
        is_open = _is_loopback(host)
        if not is_open and not token:
            raise UsageError(
                f"others can reach {host}: give --web-token (or UNSMEAR_WEB_TOKEN), or serve at 127.0.0.1:{port}"
            )
        if token and not re.fullmatch(r"[A-Za-z0-9._~-]+", token):  # it travels in a header
            raise UsageError("--web-token may hold letters, digits and . _ ~ - only")
        handler = partial(_Handler, fleet, token, is_open)
        try:
            self._server = _Server((host, int(port)), handler)
        except OSError as error:
            raise OutputError(f"cannot serve at {where}: {error.strerror}") from error
        self.port = self._server.server_address[1]
        self._worker = Worker("live-page", self._server.serve_forever)
        log.info("page: http://%s:%d/%s", host, self.port, "?token=..." if token else "")

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._worker.join(5.0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        self._room = Room(CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, while there is room."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """See `ThreadingHTTPServer`."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no fault."""
        log.debug("page: a request failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def __init__(self, fleet: Fleet, token: str | None, is_open: bool, *arguments: Any) -> None:
        self._fleet, self._token, self._is_open = fleet, token, is_open
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer."""
        self._granted = False
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts == ["healthz"]:
            self._reply("ok\n")
        elif parts == ["readyz"]:
            self._ready()
        elif not self._may(parse_qs(url.query)):
            return
        elif parts == ["metrics"]:
            self._reply(generate_latest(self._fleet.metrics.registry), CONTENT_TYPE_LATEST)
        elif parts == [""] or (len(parts) == 2 and parts[0] == "streams"):
            self._reply(files("stream.live").joinpath("page.html").read_bytes(), "text/html; charset=utf-8")
        elif parts == ["state.json"]:
            states = {name: relay.told() for name, relay in self._fleet.relays.items()}
            self._reply(json.dumps(states), "application/json")
        elif len(parts) == 3 and parts[0] == "streams" and parts[2] == "picture.jpg":
            self._picture(parts[1])
        else:
            self._reply("there is nothing here\n", status=HTTPStatus.NOT_FOUND)

    def _ready(self) -> None:
        waiting = [name for name, relay in self._fleet.relays.items() if relay.board.state is not State.RUNNING]
        status = HTTPStatus.SERVICE_UNAVAILABLE if waiting else HTTPStatus.OK
        self._reply("ready\n" if not waiting else f"{len(waiting)} streams without a picture\n", status=status)

    def _picture(self, name: str) -> None:
        from stream.media.preview import before_after

        relay = self._fleet.relays.get(name)
        latest = relay.board.latest if relay is not None else None
        if latest is None:
            self._reply("", status=HTTPStatus.NO_CONTENT)
        else:
            self._reply(before_after(latest.before, latest.frame), "image/jpeg")

    def _may(self, query: dict[str, list[str]]) -> bool:
        """Whether this request may be answered; if not it is refused here."""
        if self._token:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get("unsmear")
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
            self._granted = any(self._is_token(each) for each in query.get("token", []))
            if self._granted or self._is_token(cookie.value if cookie else "") or self._is_token(bearer):
                return True
            self._reply("give the token: /?token=...\n", status=HTTPStatus.UNAUTHORIZED)
            return False
        host = self.headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
        if self._is_open and not _is_loopback(host):
            self._reply("this page answers to localhost only\n", status=HTTPStatus.FORBIDDEN)
            return False
        return True

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self._token or "").encode())

    def _reply(self, body: bytes | str, kind: str = "text/plain; charset=utf-8", status: int = HTTPStatus.OK) -> None:
        data = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if self._granted:  # the token was in the address: the page's own requests carry it on
            self.send_header("Set-Cookie", f"unsmear={self._token}; HttpOnly; SameSite=Strict; Path=/")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged: their paths may hold the token."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
