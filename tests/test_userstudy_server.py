"""The study as raters meet it: over HTTP, in a real browser, without a server, and when the server is killed."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from itertools import pairwise

import httpx
import pytest

from higan.errors import UserStudyError
from higan.userstudy.answers import Answers
from higan.userstudy.build import build
from higan.userstudy.design import CATCHES, CHOICES
from higan.userstudy.files import import_file
from higan.userstudy.folder import open_study
from higan.userstudy.keys import keys_of
from higan.userstudy.server import create_app
from higan.userstudy.static import export
from higan.web.serve import running
from userstudies import make_run, make_study

KEY = "organiser-key-for-tests"


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study")


@pytest.fixture
def client(study):
    with (
        Answers(study) as answers,
        running(create_app(answers, organiser=KEY)) as address,
        httpx.Client(base_url=address, timeout=60) as opened,
    ):
        yield opened


def join(client, nickname="Ada"):
    joined = client.post("/api/join", json={"nickname": nickname}).json()
    return {"x-rater": joined["rater"]}


# --- over HTTP --------------------------------------------------------------------------------------------------------


def test_a_rater_joins_answers_comes_back_and_finishes(client, study):
    me = join(client)
    shown = client.get("/api/trials", headers=me).json()
    assert (shown["nickname"], shown["total"]) == ("Ada", 38)
    assert [trial["id"] for trial in shown["trials"]] == [trial.id for trial in study.block(0)]
    for trial in shown["trials"]:
        assert client.get(f"/pictures/{trial['before']}.png").headers["content-type"] == "image/png"
        given = client.post("/api/answers", headers=me, json={"trial": trial["id"], "choice": "object", "seconds": 1.5})
        assert given.json() == {"trial": trial["id"], "choice": "object"}
    assert client.get("/api/trials", headers=me).json()["trials"] == []
    rows = client.get("/api/progress", headers={"x-organiser": KEY}).json()["raters"]
    assert rows == [{"number": 1, "nickname": "Ada", "answered": 38}]


def test_an_answer_sent_twice_or_differently_is_kept_once(client):
    me = join(client)
    trial = client.get("/api/trials", headers=me).json()["trials"][0]["id"]
    for choice in ("layout", "layout", "colour"):
        answer = client.post("/api/answers", headers=me, json={"trial": trial, "choice": choice})
        assert answer.json()["choice"] == "layout"


def test_nothing_that_is_served_tells_the_truth(client, study):
    me = join(client)
    page = client.get("/api/trials", headers=me)
    served = page.text + client.get("/api/about").text + client.get("/").text
    truth = {trial.what.concept for trial in study.design.edits} | {*CATCHES, "bottom", "upper", "stage"}
    assert not [word for word in truth if word in page.text]
    assert study.id not in served
    one = next(iter(study.design.trials.values()))
    headers = client.get(f"/pictures/{one.before}.png").headers
    assert not {"last-modified", "etag"} & set(headers)
    assert "immutable" in headers["cache-control"]


@pytest.mark.parametrize(
    "path",
    [
        "/truth.json", "/manifest.json", "/answers.sqlite", "/pictures/", "/pictures/../truth.json",
        "/pictures/..%2ftruth.json", "/pictures/%2e%2e/truth.json", "/..%2f..%2fetc%2fpasswd", "/pictures/x.png",
        "/study.html", "/progress.html", "/pages/__init__.py", "/__init__.py",
    ],
)  # fmt: skip
def test_no_other_file_is_served(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/join", b"not json", 400),
        ("/api/join", b"[1]", 400),
        ("/api/join", b"[" * 8000, 400),
        ("/api/join", b'{"nickname": 7}', 400),
        ("/api/join", b'{"nickname": "' + b"x" * 9000 + b'"}', 413),
        ("/api/answers", b"{}", 400),
        ("/api/answers", b'{"trial": "x", "choice": "object"}', 400),
        ("/api/answers", b'{"trial": 1, "choice": []}', 400),
    ],
)
def test_bad_requests_are_refused(client, path, body, status):
    me = join(client)
    answer = client.post(path, content=body, headers=me)
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    assert client.get("/api/trials", headers=me).json()["total"] == 38


def test_odd_times_do_no_harm(client, study):
    me = join(client)
    trials = client.get("/api/trials", headers=me).json()["trials"]
    for trial, seconds in zip(trials, ("-5", "1e400", "NaN", "true", '"soon"', "1" * 400, "null"), strict=False):
        body = f'{{"trial": "{trial["id"]}", "choice": "object", "seconds": {seconds}}}'
        assert client.post("/api/answers", headers=me, content=body).status_code == 200
    with Answers(study) as answers:
        assert {given.seconds for given in answers.all()} == {None}


def test_strangers_are_refused(client):
    assert client.get("/api/trials").status_code == 404
    assert client.get("/api/trials", headers={"x-rater": "guess"}).status_code == 404
    assert client.get("/api/progress").status_code == 403
    assert client.get("/api/progress", headers={"x-organiser": "guess"}).status_code == 403
    assert client.post("/api/join", json={}, headers={"origin": "http://elsewhere.example"}).status_code == 403
    assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 421


def test_pages_carry_a_strict_policy(client):
    for path in ("/", "/progress", "/study.css", "/rating.js", "/online.js", "/progress.js"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert not re.search(r"https?://", answer.text)


def test_other_addresses_need_a_token(study):
    with Answers(study) as answers:
        with pytest.raises(ValueError, match="a token is needed"):
            create_app(answers, organiser=KEY, host="0.0.0.0")
        token = "t" * 20
        with running(create_app(answers, organiser=KEY, token=token)) as address:
            with httpx.Client(base_url=address, follow_redirects=True, timeout=60) as client:
                assert client.get("/").status_code == 401
                assert client.get(f"/?token={token}").status_code == 200
                link = client.get("/api/trials", headers=join(client)).json()["link"]
            assert link.startswith(f"/?token={token}#rater=")
            with httpx.Client(base_url=address, follow_redirects=True, timeout=60) as another_device:
                assert another_device.get(link).status_code == 200


def test_a_server_that_is_started_again_has_the_same_keys(tmp_path):
    keys = keys_of(tmp_path)
    assert keys_of(tmp_path) == keys
    assert min(len(keys.token), len(keys.organiser)) >= 20
    assert keys.token != keys.organiser
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "keys.json").write_text('{"token": 1')
    with pytest.raises(UserStudyError, match=r"keys\.json is damaged .*delete it, and give raters the address"):
        keys_of(tmp_path)


def test_many_raters_at_once(client, study):
    failures = []

    def rate(k):
        try:
            with httpx.Client(base_url=client.base_url, timeout=60) as mine:
                me = join(mine, f"r{k}")
                for trial in mine.get("/api/trials", headers=me).json()["trials"][:6]:
                    body = {"trial": trial["id"], "choice": CHOICES[k % 5]}
                    assert mine.post("/api/answers", headers=me, json=body).json()["choice"] == CHOICES[k % 5]
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=rate, args=(k,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Answers(study) as answers:
        assert sorted(rater.block for rater in answers.raters()) == list(range(12))
        assert {rater.answered for rater in answers.raters()} == {6}


# --- the program, killed ----------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@contextmanager
def served(folder, port):
    line = [sys.executable, "-m", "higan.cli", "user-study", "serve", str(folder), "--port", str(port)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        first = process.stdout.readline()
        assert f"http://127.0.0.1:{port}/" in first, first + process.stdout.read()
        yield process
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_the_server_killed_while_raters_answer_loses_nothing_acknowledged(study):
    port = free_port()
    acknowledged, kill_at = [], 40
    reached = threading.Event()

    def rate(k):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            me = join(client, f"r{k}")
            try:
                for trial in client.get("/api/trials", headers=me).json()["trials"]:
                    client.post(
                        "/api/answers", headers=me, json={"trial": trial["id"], "choice": "colour"}
                    ).raise_for_status()
                    acknowledged.append((me["x-rater"], trial["id"]))
                    if len(acknowledged) >= kill_at:
                        reached.set()
            except httpx.TransportError:
                pass

    with served(study.path, port) as process:
        threads = [threading.Thread(target=rate, args=(k,)) for k in range(3)]
        for thread in threads:
            thread.start()
        assert reached.wait(60)
        os.kill(process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert kill_at <= len(acknowledged) < 3 * 38
    with Answers(study) as answers:
        for token, trial in acknowledged:
            assert answers.of(answers.find(token))[trial] == "colour"


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    api = pytest.importorskip("playwright.sync_api")
    if path is None:
        pytest.skip("there is no chromium")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A study of real pictures: 4 edits and 2 catch trials of random directions in the toy generator."""
    folder = tmp_path_factory.mktemp("small")
    run, generator = make_run(folder / "run", num=100, K=4, R=4)
    return build(run, generator, folder / "study", directions="random", repeats=1, num_catches=2, seed=3)


def copy_of(study, path):
    shutil.copytree(study.path, path, ignore=shutil.ignore_patterns("answers*"))
    return open_study(path)


def open_page(browser, address, heard, width=375, **options):
    context = browser.new_context(viewport={"width": width, "height": 700}, accept_downloads=True, **options)
    page = context.new_page()
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("console", lambda message: heard.append(message.text) if message.type == "error" else None)
    page.goto(address)
    return page


def start(page, nickname):
    page.fill("#nickname", nickname)
    page.click("#start button")
    page.wait_for_selector("#rating:not(.waiting)[data-trial]")


MOVED_ON = """trial => {
  const page = document.getElementById("rating");
  return page.hidden || (page.dataset.trial !== trial && !page.matches(".waiting"));
}"""


def answer(page, press):
    """Answers the trial on show; returns its name once another one, or the end, is there."""
    trial = page.get_attribute("#rating", "data-trial")
    page.wait_for_timeout(400)
    press()
    page.wait_for_function(MOVED_ON, arg=trial)
    return trial


def test_three_raters_at_once_by_keys_mouse_and_touch_through_a_kill_and_a_restart(browser, small, tmp_path):
    study = copy_of(small, tmp_path / "study")
    port, heard = free_port(), []
    address = f"http://127.0.0.1:{port}/"
    with served(study.path, port):
        keys = open_page(browser, address, heard, width=1280)
        mouse = open_page(browser, address, heard, color_scheme="dark")
        touch = open_page(browser, address, heard, has_touch=True, is_mobile=True)
        pages = [keys, mouse, touch]
        for page, name in zip(pages, ("Ada", "<img src=x onerror=alert(1)>", "=1+1"), strict=True):
            start(page, name)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        presses = [
            lambda: keys.keyboard.press("2"),
            lambda: mouse.click("[data-choice=colour]"),
            lambda: touch.tap("[data-choice=nothing]"),
        ]
        given = [[answer(page, press)] for page, press in zip(pages, presses, strict=True)]
        assert heard == []
    # The server is dead. An answer is given all the same; the page tries until it is kept.
    keys.wait_for_timeout(400)
    lost = keys.get_attribute("#rating", "data-trial")
    keys.keyboard.press("1")
    keys.wait_for_selector("#notice:not([hidden])")
    with served(study.path, port):
        keys.wait_for_function(MOVED_ON, arg=lost, timeout=20_000)
        assert keys.is_hidden("#notice")
        given[0].append(lost)
        # One rater goes on by the personal link in another browser.
        link = mouse.get_attribute("#link", "href")
        again = open_page(browser, address.rstrip("/") + link, heard)
        again.wait_for_selector("#rating:not(.waiting)[data-trial]")
        assert again.inner_text("#count") == "2 of 6"
        pages[1] = again
        presses[1] = lambda: again.click("[data-choice=colour]")
        for page, press, mine in zip(pages, presses, given, strict=True):
            while page.is_hidden("#thanks"):
                mine.append(answer(page, press))
        for page in pages:
            page.reload()
            page.wait_for_selector("#thanks:not([hidden])")
    with Answers(study) as answers:
        raters = answers.raters()
        assert [rater.nickname for rater in raters] == ["Ada", "<img src=x onerror=alert(1)>", "=1+1"]
        assert [rater.answered for rater in raters] == [6, 6, 6]
        for rater, mine, choice in zip(raters, given, ("object", "colour", "nothing"), strict=True):
            kept = answers.of(rater)
            assert [trial.id for trial in study.block(rater.block)] == mine
            assert [kept[trial] for trial in mine] == [
                ("layout" if (choice, trial) == ("object", lost) else choice) for trial in mine
            ]
        assert all(given.seconds >= 0.35 for given in answers.all())
    for page in pages:
        page.context.close()


def test_the_invitation_goes_on_in_the_same_browser_and_lets_somebody_else_start(browser, small, tmp_path):
    study, heard = copy_of(small, tmp_path / "study"), []
    with Answers(study) as answers, running(create_app(answers, organiser=KEY)) as address:
        page = open_page(browser, address, heard)
        page.on("dialog", lambda dialog: dialog.accept())
        start(page, "Ada")
        answer(page, lambda: page.keyboard.press("1"))
        again = page.context.new_page()
        again.goto(address)
        again.wait_for_selector("#rating:not(.waiting)[data-trial]")
        assert again.inner_text("#count") == "2 of 6"
        assert again.evaluate("document.documentElement.scrollWidth <= innerWidth")
        while again.is_hidden("#thanks"):
            answer(again, lambda: again.keyboard.press("1"))
        again.close()
        page.goto("about:blank")
        page.goto(address)
        page.wait_for_selector("#thanks:not([hidden])")
        page.click("#again")
        page.wait_for_selector("#welcome:not([hidden])")
        start(page, "Bo")
        assert [rater.nickname for rater in answers.raters()] == ["Ada", "Bo"]
        # At one device halfway, too.
        page.click("#come-back [data-restart]")
        page.wait_for_selector("#welcome:not([hidden])")
        start(page, "Cy")
        # Who was removed is asked anew, and not turned away.
        answers.forget(2)
        page.goto("about:blank")
        page.goto(address)
        page.wait_for_selector("#welcome:not([hidden])")
        assert page.evaluate("localStorage.length") == 0
        page.context.close()
    assert [message for message in heard if "404" not in message] == []


def test_slips_and_double_presses_count_once_and_pictures_can_be_flipped(browser, small, tmp_path):
    study, heard = copy_of(small, tmp_path / "study"), []
    with Answers(study) as answers, running(create_app(answers, organiser=KEY)) as address:
        page = open_page(browser, address, heard)
        start(page, "")
        first = page.get_attribute("#rating", "data-trial")
        page.keyboard.press("v")
        for side in ("before", "after", "before"):
            assert page.is_visible(f"#{side}")
            page.keyboard.press(" ")
        assert page.get_attribute("#rating", "data-trial") == first
        page.keyboard.press("v")
        assert page.is_visible("#before")
        assert page.is_visible("#after")
        page.wait_for_timeout(400)
        # Three keys at once: the first counts, the others find a page that is busy or a picture nobody has looked at.
        page.evaluate(
            "for (const key of ['3', '3', '4']) document.dispatchEvent(new KeyboardEvent('keydown', { key, cancelable: true }))"
        )
        page.wait_for_function(MOVED_ON, arg=first)
        page.keyboard.press("5")
        assert answers.of(answers.raters()[0]) == {first: "attribute"}
        shown = [page.get_attribute(f"#{side}", "src").rpartition("/")[2][:-4] for side in ("before", "after")]
        now = study.design.trials[page.get_attribute("#rating", "data-trial")]
        assert shown == [now.before, now.after]
        progress = open_page(browser, f"{address}progress#key={KEY}", heard)
        progress.wait_for_selector("table:not([hidden])")
        assert progress.inner_text("#summary") == "1 rater, 0 of them finished; 1 answer."
        wrong = open_page(browser, f"{address}#rater=unknown", [])
        wrong.wait_for_selector("#trouble:not([hidden])")
        assert "not known here" in wrong.inner_text("#reason")
        page.context.close()
        progress.context.close()
        wrong.context.close()
    assert heard == []


def test_a_hiccup_while_the_page_opens_is_waited_for(browser, small, tmp_path):
    study, heard = copy_of(small, tmp_path / "study"), []
    with Answers(study) as answers, running(create_app(answers, organiser=KEY)) as address:
        page = browser.new_context().new_page()
        refusals = [503, 503]
        page.route("**/api/about", lambda r: r.fulfill(status=refusals.pop()) if refusals else r.continue_())
        page.goto(address)
        page.wait_for_selector("#welcome:not([hidden])")
        assert "personal link" in page.inner_text("#back")  # the invitation would begin anew
        start(page, "Ada")
        assert refusals == []
        link = page.get_attribute("#link", "href")
        again = browser.new_context().new_page()
        lost = [1]
        again.route("**/api/trials*", lambda r: r.abort() if lost and lost.pop() else r.continue_())
        again.goto(address.rstrip("/") + link)
        again.wait_for_selector("#rating:not(.waiting)[data-trial]")
        assert lost == []
        # The space bar flips pictures, unless it presses the button that has the focus.
        again.keyboard.press("v")
        trial = again.get_attribute("#rating", "data-trial")
        again.wait_for_timeout(400)
        again.focus("[data-choice=layout]")
        again.keyboard.press(" ")
        again.wait_for_function(MOVED_ON, arg=trial)
        assert again.is_visible("#before")
        page.context.close()
        again.context.close()
    assert heard == []


def test_the_static_study_works_from_a_folder_and_gives_back_a_file(browser, small, tmp_path):
    study, heard = copy_of(small, tmp_path / "study"), []
    folder = export(study, tmp_path / "web")
    page = open_page(browser, (folder / "index.html").as_uri() + "#block=3", heard)
    page.wait_for_selector("#welcome:not([hidden])")
    assert page.inner_text("#back") == "You can stop and come back in this browser."
    start(page, "</script><b>Ada")
    given = [answer(page, lambda: page.keyboard.press("4")) for _ in range(2)]
    page.reload()
    page.wait_for_selector("#rating:not(.waiting)[data-trial]")
    assert page.inner_text("#count") == "3 of 6"
    # A second tab knows what the first has answered since, and its own answers leave those alone.
    tab = page.context.new_page()
    tab.goto(page.url)
    tab.wait_for_selector("#rating:not(.waiting)[data-trial]")
    given.append(answer(page, lambda: page.keyboard.press("1")))
    assert answer(tab, lambda: tab.keyboard.press("5")) == given[-1]
    given.append(answer(tab, lambda: tab.keyboard.press("1")))
    page.bring_to_front()  # as whoever reloads it does; a tab behind another one may wait for its turn
    page.reload()
    page.wait_for_selector("#rating:not(.waiting)[data-trial]")
    assert page.inner_text("#count") == "5 of 6"
    while page.is_hidden("#thanks"):
        given.append(answer(page, lambda: page.click("[data-choice=layout]")))
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "answers.json")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#again")
    page.wait_for_selector("#welcome:not([hidden])")
    tab.close()
    page.context.close()
    assert heard == []
    assert given == [trial.id for trial in study.block(2)]
    with Answers(study) as answers:
        done = import_file(answers, tmp_path / "answers.json")
        assert (done.new, done.rater.block, done.rater.nickname) == (6, 2, "</script><b>Ada")
        assert [answers.of(done.rater)[trial] for trial in given] == ["colour"] * 2 + ["layout"] * 4


def test_where_a_browser_keeps_nothing_the_static_study_says_so(browser, small, tmp_path):
    heard = []
    folder = export(copy_of(small, tmp_path / "study"), tmp_path / "web")
    context = browser.new_context()
    context.add_init_script(
        "Storage.prototype.setItem = () => { throw new DOMException('no', 'QuotaExceededError'); };"
    )
    page = context.new_page()
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto((folder / "index.html").as_uri())
    page.wait_for_selector("#welcome:not([hidden])")
    assert "forgets your answers" in page.inner_text("#back")
    start(page, "")
    while page.is_hidden("#thanks"):
        answer(page, lambda: page.keyboard.press("4"))
    assert page.is_visible("#download")
    context.close()
    assert heard == []


# --- without a browser ------------------------------------------------------------------------------------------------


def test_the_static_study_tells_nothing_but_names_and_needs_nothing_else(study, tmp_path):
    archive = export(study, tmp_path / "web.zip", num_blocks=8)
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        page = opened.read("web/index.html").decode()
        assert {info.date_time for info in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert names[0] == "web/index.html"
    assert len(names) == 1 + len({n for t in study.design.trials.values() for n in (t.before, t.after)})
    assert not re.search(r"https?://", page)
    data = json.loads(re.search(r'id="study">(.*?)</script>', page)[1])
    assert set(data) == {"format", "id", "title", "trials", "blocks"}
    ids = [trial["id"] for trial in data["trials"]]
    assert all(a < b for a, b in pairwise(ids))
    assert [[ids[k] for k in seen] for seen in data["blocks"]] == [
        [trial.id for trial in study.block(number)] for number in range(8)
    ]
    assert "sha256-" in page
    for word in ("mirror", "tint", "bottom", "random"):
        assert word not in json.dumps(data)


def test_an_export_is_whole_or_not_at_all(study, tmp_path):
    with pytest.raises(ValueError, match="num_blocks must be at least 1"):
        export(study, tmp_path / "web", num_blocks=0)
    next(study.pictures.iterdir()).unlink()
    with pytest.raises(UserStudyError, match="missing or damaged"):
        export(study, tmp_path / "web")
    with pytest.raises(UserStudyError, match="exists already"):
        export(study, study.path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["study"]
