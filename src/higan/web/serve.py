"""An application on an address: in the foreground until it is interrupted, or beside the caller."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from higan.extras import optional
from higan.web.guards import App

__all__ = ["address_of", "listen", "running", "serve"]


def listen(host: str, port: int) -> socket.socket:
    """A socket on this address; port 0 takes a free one.

    Raises:
        ValueError: the port is out of range.
        OSError: the address is taken or not this machine's.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"a port lies between 0 and 65535; got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol said, asyncio turns Nagle's algorithm off: it costs every answer 40 ms otherwise.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host.strip("[]"), port))
    except OSError as error:
        opened.close()
        other = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}; choose another {other}") from error
    return opened


def address_of(opened: socket.socket, *, token: str | None = None) -> str:
    """The address to open in a browser, with the token where there is one."""
    host, port = opened.getsockname()[:2]
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{port}/" + (f"?token={quote(token, safe='')}" if token else "")


def serve(
    app: App,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    ready: Callable[[str], None] | None = None,
    connections: int = 512,
) -> None:
    """Serve until interrupted.

    Args:
        app: behind its `higan.web.guards.Guard`.
        host: address to listen on.
        port: 0 takes a free one.
        token: shown in the address that ``ready`` is called with.
        ready: called with the address once requests are answered.
        connections: at a time; what comes beyond is answered with 503.

    Raises:
        MissingExtraError: uvicorn is not installed.
        OSError: see `listen`.
    """
    opened = listen(host, port)
    address = address_of(opened, token=token)
    with opened:
        _server(app, connections, None if ready is None else lambda: ready(address)).run(sockets=[opened])


@contextmanager
def running(app: App, *, host: str = "127.0.0.1", port: int = 0, connections: int = 512) -> Iterator[str]:
    """An application in a thread of its own while the context lasts; gives its address without a token."""
    opened = listen(host, port)
    up = threading.Event()
    server = _server(app, connections, up.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    try:
        while not up.wait(0.05):
            if not thread.is_alive():
                raise OSError("the server stopped before it was up")
        yield address_of(opened)
    finally:
        server.should_exit = True
        thread.join(10)
        opened.close()


def _server(app: App, connections: int, ready: Callable[[], None] | None) -> Any:
    uvicorn = optional("uvicorn", "studio")

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]  # loaded when it is needed
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if ready is not None and self.started:
                ready()

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=connections,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
    )
    return Server(config)
