"""The guards around every page: each refusal by itself, on an application that would answer anything; then served."""

import http.client
import json
import socket
import urllib.parse

import pytest
from starlette.testclient import TestClient

from higan.web.assets import load_assets
from higan.web.guards import CONTENT_SECURITY_POLICY, Guard, is_loopback
from higan.web.serve import address_of, listen, running

TOKEN = "a-token-of-some-length"


class Echo:
    """Says how many bytes it was sent, and remembers whether it was asked at all."""

    def __init__(self):
        self.asked = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.asked += 1
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RuntimeError("the client went away")
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = json.dumps({"size": size, "path": scope["path"]}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def echo():
    return Echo()


def client(echo, *, base="http://127.0.0.1:8000", **options):
    return TestClient(Guard(echo, **options), base_url=base, follow_redirects=False)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:9000", "localhost:8000", "[::1]:8000", "LocalHost", "127.8.8.8"]
)
def test_own_names_are_answered(echo, host):
    assert client(echo).get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "", "192.168.1.5", "::1",
     "127.0.0.1:80:80", "localhost:x", "evil@localhost", "0.0.0.0"],
)  # fmt: skip
def test_a_name_that_is_somebody_elses_is_refused(echo, host):
    assert client(echo).get("/", headers={"host": host}).status_code == 421
    assert echo.asked == 0


def test_on_any_address_addresses_are_answered_but_foreign_names_are_not(echo):
    open_to_all = client(echo, host="0.0.0.0", token=TOKEN, names=("lab.example",))
    bearer = {"authorization": f"Bearer {TOKEN}"}
    for host, status in [
        ("192.168.1.5:80", 200),
        ("lab.example", 200),
        (socket.gethostname(), 200),
        ("evil.example", 421),
    ]:
        assert open_to_all.get("/", headers={"host": host, **bearer}).status_code == status


def test_another_address_than_loopback_needs_a_token(echo):
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org"):
        with pytest.raises(ValueError, match="a token is needed"):
            Guard(echo, host=host)
    for host in ("127.0.0.1", "::1", "[::1]", "localhost"):
        assert is_loopback(host)
        Guard(echo, host=host)
    with pytest.raises(ValueError, match="at least 16"):
        Guard(echo, token="short")


@pytest.mark.parametrize(
    "name", ["https://studio.example.org", "studio.example.org:8443", "studio.example.org/x", "", "a b", "-"]
)
def test_names_that_no_request_asks_for_are_refused_at_the_start(echo, name):
    with pytest.raises(ValueError, match="a host name is given without scheme, port and path"):
        Guard(echo, names=(name,))


@pytest.mark.parametrize(
    ("name", "host"),
    [("Studio.Example.org.", "studio.example.org:8443"), ("10.1.2.3", "10.1.2.3"), ("[fd00::1]", "[fd00::1]:80")],
)
def test_names_of_a_proxy_are_answered(echo, name, host):
    assert client(echo, names=(name,)).get("/", headers={"host": host}).status_code == 200


def test_without_the_token_nothing_is_answered(echo):
    guarded = client(echo, token=TOKEN)
    wrong = [{}, {"authorization": "Bearer nonsense"}, {"authorization": TOKEN}, {"cookie": "higan_0=" + TOKEN}]
    assert {guarded.get("/", headers=headers).status_code for headers in wrong} == {401}
    assert guarded.get("/?token=wrong").status_code == 401
    assert guarded.post(f"/?token={TOKEN}").status_code == 401
    assert echo.asked == 0
    assert guarded.get("/", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_the_token_in_the_address_becomes_a_cookie_and_leaves_the_address(echo):
    guarded = client(echo, token=TOKEN)
    answer = guarded.get(f"/a?x=1&token={TOKEN}&y=2")
    assert (answer.status_code, answer.headers["location"]) == (303, "/a?x=1&y=2")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert guarded.get("/a").status_code == 200
    again = guarded.get("/a?token=old-token-of-another-time")
    assert (again.status_code, again.headers["location"]) == (303, "/a")


def test_the_printed_address_holds_any_token(echo):
    token = "pa9/3Yk+Zq0tP8c&x7Rm=#=="
    with listen("127.0.0.1", 0) as opened:
        address = address_of(opened, token=token)
    path = address[address.index("/", len("http://")) :]
    answer = client(echo, token=token).get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    "token", ["correct horse; battery staple", 'with "quotes", commas=%41', "pa9/3Yk+Zq0tP8c&x7Rm=#=="]
)
def test_the_cookie_carries_any_token(echo, token):
    guarded = client(echo, token=token)
    assert guarded.get("/", params={"token": token}).status_code == 303
    assert guarded.get("/").status_code == 200
    other = client(echo, token=token)
    assert other.get("/", headers={"cookie": f"{next(iter(guarded.cookies))}={token[:12]}"}).status_code == 401


def test_a_token_that_a_header_would_cut_is_refused_at_the_start(echo):
    for token in (f" {TOKEN}", f"{TOKEN} "):
        with pytest.raises(ValueError, match="must not begin or end with a blank"):
            Guard(echo, token=token)


def test_an_address_cannot_lead_away_or_add_headers(echo):
    guarded = client(echo, token=TOKEN)
    for path in ("//evil.example", "/%0d%0aset-cookie:%20x=1", "/\\evil.example"):
        location = guarded.get(f"{path}?token={TOKEN}").headers["location"]
        assert location[:1] == "/"
        assert location[1:2] not in ("/", "\\")
        assert urllib.parse.urlsplit(location).netloc == ""
        assert "\r" not in location


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://127.0.0.1:8001"}, 403),
        ({"origin": "http://localhost:8000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:8000"}, 403),
        ({"sec-fetch-site": "none"}, 403),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_writes_from_other_pages_are_refused(echo, method, headers, status):
    assert client(echo).request(method, "/", headers=headers).status_code == status
    assert echo.asked == (status == 200)


def test_other_pages_may_link_here_but_not_load_from_here(echo):
    site = {"sec-fetch-site": "cross-site"}
    assert client(echo).get("/", headers={**site, "sec-fetch-mode": "navigate"}).status_code == 200
    assert client(echo).get("/", headers={**site, "sec-fetch-mode": "no-cors"}).status_code == 403


def test_bodies_are_bounded_with_and_without_a_length(echo):
    bounded = client(echo, largest=100, larger={"/upload": 1000})
    assert bounded.post("/", content=b"x" * 100).json()["size"] == 100
    assert bounded.post("/", content=b"x" * 101).status_code == 413
    assert bounded.post("/upload", content=b"x" * 1000).json()["size"] == 1000
    assert bounded.post("/upload", content=b"x" * 1001).status_code == 413
    assert bounded.post("/", content=b"", headers={"content-length": "-1"}).status_code == 413
    for digits in ("9" * 5000, "0" * 5000):
        assert bounded.post("/", content=b"", headers={"content-length": digits}).status_code == 413
    asked = echo.asked
    assert bounded.post("/", content=iter([b"x" * 60, b"x" * 60])).status_code == 413
    assert echo.asked == asked + 1
    assert bounded.post("/", content=iter([b"x" * 60, b"x" * 40])).json()["size"] == 100


def test_an_error_of_the_application_is_not_taken_for_too_large_a_body():
    async def broken(scope, receive, send):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        client(broken).get("/")


def test_every_answer_carries_the_policy_even_a_refusal(echo):
    for answer in (client(echo).get("/"), client(echo).get("/", headers={"host": "evil.example"})):
        policy = answer.headers["content-security-policy"]
        assert policy == CONTENT_SECURITY_POLICY
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers


def test_assets_are_pages_only_and_know_when_they_changed():
    found = load_assets("higan.report")
    assert {"style.css", "sort.js", "template.html"} == set(found)
    assert found["style.css"].media_type == "text/css; charset=utf-8"
    assert found == load_assets("higan.report")
    assert len({asset.etag for asset in found.values()}) == 3


def test_served_on_a_free_port_until_the_context_ends(echo):
    with running(Guard(echo)) as address:
        where = urllib.parse.urlsplit(address)
        line = http.client.HTTPConnection(where.hostname, where.port, timeout=5)
        line.request("POST", "/x", body=b"12345")
        answer = line.getresponse()
        assert json.loads(answer.read()) == {"size": 5, "path": "/x"}
        assert answer.headers["server"] is None
        line.close()
        with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1"):
            listen("127.0.0.1", where.port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((where.hostname, where.port), timeout=1)
    with pytest.raises(ValueError, match="between 0 and 65535"):
        listen("127.0.0.1", 70000)


def test_answers_are_not_held_back_to_be_sent_with_others():
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "http":
            transport = receive.__self__.transport
            seen.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    with running(app) as address:
        where = urllib.parse.urlsplit(address)
        line = http.client.HTTPConnection(where.hostname, where.port, timeout=5)
        line.request("GET", "/")
        assert line.getresponse().status == 204
        line.close()
    assert len(seen) == 1
    assert seen[0]
