"""Which requests get through to an application, and the headers that every answer carries. Plain ASGI.

In this order: the Host header (a page of somebody else that lets its name point here, "DNS rebinding", is not heard),
the token where there is one, the origin (other pages may neither write here nor load anything from here), the size of
the body. What is refused never reaches the application.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

__all__ = ["CONTENT_SECURITY_POLICY", "Guard", "check_access", "is_loopback"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from other hosts, no script or style that is written into the page itself."""

_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not "no-referrer": forms would then be sent with the origin "null".
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"cache-control", b"no-store"),
)
_SAFE = ("GET", "HEAD")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_LEAST_TOKEN = 16
_MOST_DIGITS = 15


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_access(host: str, token: str | None, names: tuple[str, ...] = ()) -> None:
    """Refuse an address that others can reach without a token, tokens that could be guessed, and names of no host.

    Frameworks make their middleware at the first request; whoever makes an application asks here at once.

    Raises:
        ValueError: see above.
    """
    if token is None and not is_loopback(host):
        raise ValueError(f"{host} can be reached from other machines: a token is needed")
    if token is not None and (len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable()):
        raise ValueError(f"a token needs at least {_LEAST_TOKEN} printable ASCII characters")
    if token is not None and token != token.strip():
        raise ValueError("a token must not begin or end with a blank, which an Authorization header would lose")
    for name in names:
        if not (_NAME.fullmatch(name) or _is_address(name.strip("[]"))):
            raise ValueError(f"a host name is given without scheme, port and path, as studio.example.org; got {name!r}")


class Guard:
    """An application behind its guards.

    Args:
        app: what to protect.
        host: the address that is listened on. Requests must ask for it by a name that cannot be somebody else's page:
            ``localhost``, a loopback address, this address (any address where it is 0.0.0.0 or ::), the machine's own
            name, or one of ``names``.
        names: further host names, such as that of a proxy in front.
        token: asked for where it is given: as ``Authorization: Bearer …``, as a cookie, or once as ``?token=…``, which
            is answered with the cookie and the address without it.
        largest: bytes that a body may have.
        larger: other limits for bodies, by path.

    Raises:
        ValueError: the address can be reached from other machines and there is no token, the token is short, or a name
            is that of no host.
    """

    def __init__(
        self,
        app: App,
        *,
        host: str = "127.0.0.1",
        names: tuple[str, ...] = (),
        token: str | None = None,
        largest: int = 64 << 10,
        larger: Mapping[str, int] | None = None,
    ) -> None:
        check_access(host, token, names)
        self._app = app
        self._names = {"localhost", host.strip("[]").lower(), *(_bare(name) for name in names)}
        self._any_address = host in ("0.0.0.0", "::", "")
        if not is_loopback(host):
            self._names.add(socket.gethostname().lower())
        self._token = token
        # Cookies do not tell ports apart: two servers on one machine need two names.
        self._cookie = "higan_" + hashlib.sha256((token or "").encode()).hexdigest()[:8]
        self._largest = largest
        self._larger = dict(larger or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Nothing here speaks WebSocket; before the handshake this is how it is refused.
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        answer = _with_headers(send)
        for check in (self._host, self._authorised, self._origin):
            refusal = check(scope, headers)
            if refusal is not None:
                await _answer(answer, *refusal)
                return
        await self._measured(scope, headers, receive, answer)

    def _host(self, scope: Scope, headers: Mapping[bytes, bytes]) -> _Refusal | None:
        name = _host_name(headers.get(b"host", b"").decode("latin-1"))
        if name in self._names or is_loopback(name) or (self._any_address and _is_address(name)):
            return None
        return 421, f"this server does not answer for the host {name!r}", ()

    def _authorised(self, scope: Scope, headers: Mapping[bytes, bytes]) -> _Refusal | None:
        if self._token is None:
            return None
        bearer = headers.get(b"authorization", b"").decode("latin-1")
        kept = map(unquote, _cookies(headers.get(b"cookie", b"").decode("latin-1"), self._cookie))
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        offered = [value for key, value in query if key == "token"]
        scheme, _, credential = bearer.partition(" ")
        known = (scheme.lower() == "bearer" and self._is_token(credential)) or any(map(self._is_token, kept))
        right = any(map(self._is_token, offered))
        if offered and scope["method"] in _SAFE and (known or right):
            return self._exchange(scope["path"], [(key, value) for key, value in query if key != "token"])
        if known:
            return None
        words = "a token is needed: open the address that the server printed when it started"
        return 401, words, ((b"www-authenticate", b"Bearer"),)

    def _exchange(self, path: str, query: list[tuple[str, str]]) -> _Refusal:
        """The address without the token, which a cookie carries from here on: it stays out of history and links."""
        target = "/" + path.lstrip("/") + (f"?{urlencode(query)}" if query else "")
        value = quote(self._token or "", safe="")  # A cookie ends at a semicolon.
        cookie = f"{self._cookie}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=604800"
        return 303, "", ((b"location", quote(target, safe="/?&=%+").encode()), (b"set-cookie", cookie.encode()))

    def _is_token(self, value: str) -> bool:
        return self._token is not None and hmac.compare_digest(value.encode(), self._token.encode())

    def _origin(self, scope: Scope, headers: Mapping[bytes, bytes]) -> _Refusal | None:
        """Browsers say which page a request comes from; what comes from no browser carries no cookies of one."""
        site = headers.get(b"sec-fetch-site", b"").decode("latin-1")
        safe = scope["method"] in _SAFE
        if safe:
            navigates = headers.get(b"sec-fetch-mode") == b"navigate"
            foreign = site in ("cross-site", "same-site") and not navigates
            return (403, "other pages may not load anything from here", ()) if foreign else None
        origin = headers.get(b"origin")
        own = scope["scheme"].encode() + b"://" + headers.get(b"host", b"")
        # Behind a proxy that ends TLS the scheme differs, and the host name is what counts.
        foreign = origin is not None and origin.partition(b"://")[2] != own.partition(b"://")[2]
        if foreign or (site and site != "same-origin"):
            return 403, "writes are accepted from this server's own pages only", ()
        return None

    async def _measured(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        """The application, with a body that ends where it grows beyond its limit."""
        most = self._larger.get(scope["path"], self._largest)
        refusal = (413, f"the body may have {most:,} bytes", ((b"connection", b"close"),))
        length = headers.get(b"content-length", b"0")
        # Numbers of thousands of digits are not even converted.
        if not length.isdigit() or len(length) > _MOST_DIGITS or int(length) > most:
            await _answer(send, *refusal)
            return
        state = {"received": 0, "started": False}

        async def bounded() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                state["received"] += len(message.get("body", b""))
                if state["received"] > most:
                    return {"type": "http.disconnect"}
            return message

        async def watched(message: Message) -> None:
            if state["received"] <= most or state["started"]:
                state["started"] = True
                await send(message)

        try:
            await self._app(scope, bounded, watched)
        except Exception:
            if state["received"] <= most or state["started"]:
                raise
        if state["received"] > most and not state["started"]:
            await _answer(send, *refusal)


_Refusal = tuple[int, str, tuple[tuple[bytes, bytes], ...]]
"""Status, words, further headers."""


def _with_headers(send: Send) -> Send:
    """Adds the headers that an answer lacks."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", ())}
            missing = [(name, value) for name, value in _HEADERS if name not in present]
            message = {**message, "headers": [*message.get("headers", ()), *missing]}
        await send(message)

    return wrapped


async def _answer(send: Send, status: int, words: str, extra: tuple[tuple[bytes, bytes], ...]) -> None:
    body = words.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _host_name(header: str) -> str:
    """``[::1]:8000`` → ``::1``, ``Localhost:80`` → ``localhost``; the empty string where it is malformed."""
    name, colon, port = header.rpartition(":") if not header.endswith("]") else (header, "", "")
    if not colon:
        name = header
    elif not port.isdigit():
        return ""
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1].lower()
    return "" if ":" in name else name.lower().rstrip(".")


def _bare(name: str) -> str:
    return name.strip("[]").lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _cookies(header: str, name: str) -> list[str]:
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return [value for key, _, value in pairs if key == name]
