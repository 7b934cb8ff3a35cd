"""The studio as a person uses it: the embedded generator, a real server, a real browser."""

import io
import json
import re
import shutil
import time
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from higan import load_generator, load_scorer, load_segmenter
from higan.export import read_recipe
from higan.photographs import open_photograph
from higan.recipes import Recipe
from higan.scorers.toy import ToyScorer
from higan.statistics import rank
from higan.studio import create_app, shipped_study
from higan.types import Concept
from higan.web.serve import running
from higan.workbench import edit, open_workbench, repeat
from userstudies import make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

SAMPLE = 15
PIXELS = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, k) => k % 4 < 3)"


@pytest.fixture(scope="module")
def models():
    return load_generator("rooms-128"), load_scorer("rooms-128")


@pytest.fixture(scope="module")
def address(models):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    app = create_app(shipped_study(), *models, segmenter=load_segmenter("rooms-128"), inversion_steps=120)
    with running(app) as address:
        yield address
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


class Heard(list):
    """What went wrong on a page, and what it asked other hosts for."""


@pytest.fixture
def open_page(browser, address):
    contexts = []

    def opened(hash_="", lost=None, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        contexts.append(context)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.heard = Heard()
        page.on("console", lambda message: page.heard.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on(
            "request", lambda r: None if r.url.startswith((address, "blob:", "data:")) else page.heard.append(r.url)
        )
        if lost:
            page.route(lost, lambda route: route.abort())
        page.goto(address + hash_)
        page.wait_for_selector("#frame[data-drawn]")
        return page

    yield opened
    for context in contexts:
        for page in context.pages:
            assert page.heard == []
        context.close()


def shows(page, look):
    """Wait until the picture on the page is that of a look."""
    page.wait_for_function(
        "wanted => document.querySelector('#frame').dataset.shows === JSON.stringify(JSON.parse(wanted))",
        arg=json.dumps(look),
    )


def pixels(page, canvas="#picture"):
    flat = torch.tensor(page.eval_on_selector(canvas, PIXELS), dtype=torch.uint8)
    side = round((len(flat) / 3) ** 0.5)
    return flat.reshape(side, side, 3).permute(2, 0, 1)


def close(a, b):
    """The same picture: convolutions add up in another order for other batch sizes."""
    return int((a.int() - b.int()).abs().max()) <= 1


def slider(page, name):
    found = page.locator(f"[data-concept={name}]")
    found.scroll_into_view_if_needed()
    return found


def drag(page, name, share):
    """By the mouse, from the middle to a share of the way to the end, in many small moves."""
    handle = slider(page, name)
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for k in range(1, 41):
        page.mouse.move(x + share * k / 40 * (box["width"] / 2 - 9), y)
    page.mouse.up()
    return float(handle.input_value())


def test_first_view_shows_a_sample_the_gallery_and_every_verified_concept(open_page, models):
    page = open_page()
    bench = open_workbench(shipped_study(), *models)
    assert close(pixels(page), edit(bench, [], seed=SAMPLE).image)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.thumb img')].slice(0, 12).every(i => i.complete && i.naturalWidth)"
    )
    names = page.eval_on_selector_all("input[type=range]", "all => all.map(one => one.dataset.concept)")
    assert sorted(names) == sorted(verdict.concept.name for verdict in rank(bench.rescoring) if verdict.verified)
    assert page.locator(".level h2").all_inner_texts()[0].startswith("Layout")
    for row in page.locator(".concept .bottom").all_inner_texts()[:3]:
        assert re.search(r"Δs \d\.\d\d \[\d\.\d\d, \d\.\d\d\]", row)
        assert re.search(r"layers? \d", row)


def test_a_tall_window_is_filled_with_samples_and_goes_on(open_page):
    page = open_page(viewport={"width": 2560, "height": 1600})
    page.wait_for_function(
        "() => { const t = document.querySelector('#thumbs'); return t.scrollHeight > t.clientHeight + 300; }"
    )
    before = page.locator(".thumb").count()
    page.eval_on_selector("#thumbs", "t => t.scrollTo(0, t.scrollHeight)")
    page.wait_for_function(f"() => document.querySelectorAll('.thumb').length > {before}")


def test_a_page_that_is_opened_again_has_its_samples_from_the_browser(open_page):
    there = (
        "() => document.querySelectorAll('.thumb img').length > 5 && document.querySelector('.thumb img').naturalWidth"
    )
    sent = """() => performance.getEntriesByType('resource').filter(e => e.name.includes('api/samples/'))
              .map(e => e.transferSize)[0]"""
    page = open_page()
    page.wait_for_function(there)
    assert page.evaluate(sent) > 0
    again = page.context.new_page()
    again.heard = Heard()
    again.goto(page.url)
    again.wait_for_function(there)
    assert not again.evaluate(sent)  # what comes from memory is not even listed


def test_skipping_to_the_sliders_leaves_the_edits_alone(open_page):
    page = open_page("#seed=7&edit=wood~1~6-9")
    look = {"seed": 7, "mix": [], "edits": [{"concept": "wood", "strength": 1, "layers": [6, 7, 8, 9]}]}
    shows(page, look)
    page.focus(".skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "sliders"
    assert "edit=wood" in page.evaluate("location.hash")
    page.evaluate("location.hash = 'sliders'")  # an address that says nothing of a look changes none
    page.wait_for_timeout(300)
    shows(page, look)


def test_more_samples_come_as_one_scrolls_and_a_click_chooses_one(open_page):
    page = open_page()
    page.wait_for_selector(".thumb")
    before = page.locator(".thumb").count()
    page.eval_on_selector("#thumbs", "t => t.scrollTo(0, t.scrollHeight)")
    page.wait_for_function(f"() => document.querySelectorAll('.thumb').length > {before}")
    page.locator(".thumb").nth(20).click()
    shows(page, {"seed": 20, "mix": [], "edits": []})
    page.fill("#seed", "123456")
    page.click("#goto button")
    shows(page, {"seed": 123456, "mix": [], "edits": []})
    page.fill("#seed", "-3")
    page.click("#goto button")
    assert page.eval_on_selector("#seed", "e => e.validity.customError")


@pytest.mark.parametrize("size", [(1280, 860), (375, 720)])
def test_the_gallery_follows_the_sample_and_the_page_stays_where_it_is(open_page, size):
    page = open_page(viewport={"width": size[0], "height": size[1]})
    page.wait_for_selector(".thumb[aria-selected=true]")
    inside = """() => {
        const [t, g] = ['.thumb[aria-selected=true]', '#thumbs'].map(s => document.querySelector(s).getBoundingClientRect());
        return t.top >= g.top - 1 && t.bottom <= g.bottom + 1 && t.left >= g.left - 1 && t.right <= g.right + 1;
    }"""
    assert page.evaluate(inside)
    for _ in range(40):
        page.keyboard.press("n")
    shows(page, {"seed": SAMPLE + 40, "mix": [], "edits": []})
    assert page.evaluate(inside)
    assert page.evaluate("scrollY") == 0
    page.eval_on_selector("#thumbs", "t => t.scrollTo(0, 0)")  # to look at others leaves them in sight
    page.keyboard.press("r")
    assert page.eval_on_selector("#thumbs", "t => t.scrollTop + t.scrollLeft") == 0


def test_what_is_read_out_by_itself_is_little(open_page):
    """Every number of the panel was a live region, and every amount beside the slider that says it."""
    page = open_page("#seed=7&edit=natural_light~0.5~9")
    page.wait_for_selector("#panel-changes .bars .asked")
    live = "output:not([aria-live=off]), [role=status]:not([aria-live=off]), [role=alert], [aria-live=polite], [aria-live=assertive]"
    heard = page.eval_on_selector_all(live, "all => all.map(one => one.id || one.closest('[role=tabpanel]').id)")
    assert sorted(heard) == ["found", "job-words", "panel-transition", "toast"]


def test_a_drag_ends_on_the_last_position_and_joint_edits_are_undone_and_redone(open_page, models):
    page = open_page()
    first = drag(page, "natural_light", 0.6)
    second = drag(page, "warm_colours", -0.5)
    assert first > 0 > second
    layers = {c["name"]: c["layers"] for c in page.evaluate("fetch('api/study').then(a => a.json())")["concepts"]}
    one = {"concept": "natural_light", "strength": first, "layers": layers["natural_light"]}
    two = {"concept": "warm_colours", "strength": second, "layers": layers["warm_colours"]}
    shows(page, {"seed": SAMPLE, "mix": [], "edits": [one, two]})
    bench = open_workbench(shipped_study(), *models)
    asked = [f"{e['concept']}={e['strength']:+.9f}@{','.join(map(str, e['layers']))}" for e in (one, two)]
    assert close(pixels(page), edit(bench, asked, seed=SAMPLE).image)
    # Each drag is one step back, however many moves it had.
    page.keyboard.press("Control+z")
    shows(page, {"seed": SAMPLE, "mix": [], "edits": [one]})
    page.click("#undo")
    shows(page, {"seed": SAMPLE, "mix": [], "edits": []})
    assert page.is_disabled("#undo")
    assert float(slider(page, "natural_light").input_value()) == 0
    page.keyboard.press("Control+Shift+z")
    page.click("#redo")
    shows(page, {"seed": SAMPLE, "mix": [], "edits": [one, two]})
    page.wait_for_function("() => document.querySelectorAll('#panel-changes .bars .asked').length === 2")
    assert {"natural light", "warm colours"} == set(page.locator("#panel-changes .asked").all_inner_texts())
    page.keyboard.press("r")
    shows(page, {"seed": SAMPLE, "mix": [], "edits": []})


def test_the_address_holds_the_state_and_opens_it_elsewhere(open_page):
    page = open_page()
    strength = drag(page, "wood", 0.7)
    page.click("#tab-mix")
    page.locator(".thumb").nth(5).click()
    page.wait_for_function("() => location.hash.includes('mix=')")
    shared = page.evaluate("location.hash")
    other = open_page(shared)
    state = json.loads(other.get_attribute("#frame", "data-shows"))
    assert state["seed"] == SAMPLE
    assert state["mix"] == [{"seed": 5, "layers": [10, 11]}]
    assert state["edits"][0]["strength"] == pytest.approx(strength)
    assert close(pixels(other), pixels(page))
    odd = open_page("#seed=99999999999&edit=nobody~1~0&edit=wood~x~0&mix=5~77&edit=%3Cscript%3E~1~0")
    assert json.loads(odd.get_attribute("#frame", "data-shows")) == {"seed": SAMPLE, "mix": [], "edits": []}
    assert "left out" in odd.inner_text("#toast")
    page.evaluate("location.hash = 'seed=8&edit=nobody~1~0'")  # in a page that is open
    shows(page, {"seed": 8, "mix": [], "edits": []})
    assert "left out" in page.inner_text("#toast")


def test_a_held_key_changes_the_address_once_it_rests(open_page):
    """Firefox and Safari refuse to change it more than 100 to 200 times in ten seconds, with an error at each."""
    page = open_page("#seed=7")
    handle = slider(page, "wood")
    page.evaluate("""() => {
        const replace = history.replaceState;
        window.changes = 0;
        history.replaceState = function (...asked) { window.changes++; return replace.apply(this, asked); };
    }""")
    # As a key does that is held for a second.
    handle.evaluate("""async (range) => {
        for (let k = 1; k <= 30; k++) {
            range.value = (k * range.max) / 100;
            for (const name of ["input", "change"]) range.dispatchEvent(new Event(name, { bubbles: true }));
            await new Promise((resolve) => setTimeout(resolve, 30));
        }
    }""")
    last = f"edit=wood~{float(handle.input_value()):g}~"
    page.wait_for_function("last => location.hash.includes(last)", arg=last)
    assert page.evaluate("changes") < 20


def test_layers_are_switched_by_dragging_across_and_by_keys(open_page):
    page = open_page("#seed=7&edit=natural_light~0.5~9")
    strip = page.get_by_role("group", name="Layers that natural light moves")
    strip.scroll_into_view_if_needed()
    boxes = [strip.locator("button").nth(k).bounding_box() for k in (4, 6)]
    at = [(box["x"] + box["width"] / 2, box["y"] + 8) for box in boxes]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=12)
    page.mouse.up()
    edit_of = {"concept": "natural_light", "strength": 0.5}
    shows(page, {"seed": 7, "mix": [], "edits": [{**edit_of, "layers": [4, 5, 6, 9]}]})
    strip.locator("button").nth(6).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    shows(page, {"seed": 7, "mix": [], "edits": [{**edit_of, "layers": [4, 5, 6, 7, 9]}]})
    page.keyboard.press("Control+z")
    shows(page, {"seed": 7, "mix": [], "edits": [{**edit_of, "layers": [4, 5, 6, 9]}]})


def test_a_layer_is_switched_once_by_a_click_with_and_without_a_pointer(open_page):
    page = open_page("#seed=7&edit=natural_light~0.5~9")
    strip = page.get_by_role("group", name="Layers that natural light moves")
    edit_of = {"concept": "natural_light", "strength": 0.5}
    strip.locator("button").nth(4).click()
    shows(page, {"seed": 7, "mix": [], "edits": [{**edit_of, "layers": [4, 9]}]})
    # What a screen reader or voice control sends: no pointer goes before it.
    strip.locator("button").nth(6).evaluate("button => button.click()")
    shows(page, {"seed": 7, "mix": [], "edits": [{**edit_of, "layers": [4, 6, 9]}]})
    strip.locator("button").nth(6).locator(".cell").evaluate("cell => cell.click()")
    shows(page, {"seed": 7, "mix": [], "edits": [{**edit_of, "layers": [4, 9]}]})
    strip.locator("button").nth(9).press("Enter")
    shows(page, {"seed": 7, "mix": [], "edits": [{**edit_of, "layers": [4]}]})


def test_whoever_has_the_focus_is_seen(open_page):
    page = open_page()
    page.wait_for_selector(".thumb[aria-selected=true]")
    look = "e => { const { outline, outlineOffset } = getComputedStyle(e); return [outline, outlineOffset]; }"
    label, thumb = page.locator("label.button"), page.locator(".thumb[aria-selected=true]")
    plain = [label.evaluate(look), thumb.evaluate(look)]
    page.focus("#goto button")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('.thumb[aria-selected=true]')")
    assert thumb.evaluate(look) != plain[1]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "photograph"
    assert label.evaluate(look) != plain[0]
    assert "solid" in label.evaluate(look)[0]
    assert thumb.evaluate(look) == plain[1]


def test_addresses_hold_concepts_of_any_name(open_page):
    page = open_page()
    there_and_back = """([name, layers]) => import('/page/look.js').then(({ toAddress, fromAddress }) => {
        const look = { seed: 7, edits: { [name]: { strength: -1.5, layers } }, mix: { seed: 5, layers: [0] } };
        const study = { generator: { layers: 12 }, concepts: [{ name }] };
        const found = fromAddress('#' + toAddress(look), study, 0);
        return [found.odd, JSON.stringify(found.look) === JSON.stringify(look)];
    })"""
    for name in ("wood", "a~b", "~", "a~1.5~2-3", "café 床", "a+b & c=d#%"):
        assert page.evaluate(there_and_back, [name, [1, 2, 5]]) == [0, True]
    assert page.evaluate(there_and_back, ["a~b", [99]]) == [1, False]


def test_before_difference_and_segments(open_page, models):
    page = open_page("#seed=7&edit=natural_light~0.5~9")
    bench = open_workbench(shipped_study(), *models)
    page.focus("body")
    page.keyboard.down("b")
    page.wait_for_selector("#before:not([hidden])")
    assert close(pixels(page, "#before"), edit(bench, [], seed=7).image)
    page.keyboard.up("b")
    assert page.is_hidden("#before")
    page.keyboard.press("d")
    page.wait_for_function(
        "() => document.querySelector('#overlay').width === 128 && !document.querySelector('#overlay').hidden"
    )
    assert len(pixels(page, "#overlay").flatten().unique()) > 1
    page.click("#segments")
    page.wait_for_selector("#legend li")
    assert "wall" in page.inner_text("#legend")


@contextmanager
def held_back(page, path, wanted):
    """Holds back what is asked of a path, where its body is wanted; gives a function that waits for it and lets it go."""
    held, passed = [], []

    def hear(route):
        body = route.request.post_data_json
        if wanted(body):
            held.append(route)
        else:
            passed.append(body)
            route.continue_()

    def let_go():
        deadline = time.monotonic() + 60
        while not held:
            shown = page.get_attribute("#frame", "data-shows")
            assert time.monotonic() < deadline, f"{shown} is shown, and nothing asked for but {passed}"
            page.wait_for_timeout(10)
        route = held.pop(0)
        with page.expect_response(lambda answer: answer.request == route.request):
            route.continue_()
        page.wait_for_timeout(300)  # for what should not happen

    page.route(f"**/{path}", hear)
    yield let_go
    page.unroute(f"**/{path}")


def test_a_difference_that_comes_late_is_not_painted_over_the_segments(open_page):
    page = open_page("#seed=7&edit=natural_light~0.5~9")
    page.focus("body")
    page.keyboard.press("d")
    page.wait_for_function("() => document.querySelector('#overlay').style.opacity === '1'")
    with held_back(page, "api/picture", lambda asked: not asked.get("drag")) as let_go:
        page.keyboard.press("n")
        page.wait_for_function("() => document.querySelector('#caption').textContent.startsWith('Sample 8')")
        page.keyboard.press("s")
        page.wait_for_selector("#legend li")
        before = pixels(page, "#overlay")
        let_go()
    assert page.eval_on_selector("#overlay", "c => c.style.opacity") == "0.6"
    assert torch.equal(pixels(page, "#overlay"), before)
    assert page.get_attribute("#difference", "aria-pressed") == "false"


def test_a_difference_is_never_between_two_samples(open_page):
    page = open_page("#seed=7")
    page.focus("body")
    asked = []
    with held_back(page, "api/picture", lambda body: body.get("drag") and body["look"]["seed"] == 8) as let_go:
        page.on("request", lambda r: asked.append(r.post_data_json) if r.url.endswith("api/picture") else None)
        page.keyboard.press("n")
        page.keyboard.press("d")
        page.wait_for_function("() => document.querySelector('#overlay').style.opacity === '1'")
        # Sample 7 is still shown: beside itself it is grey, not orange.
        overlay = pixels(page, "#overlay").int()
        assert int((overlay[0] - overlay[2]).abs().max()) <= 3
        let_go()
    shows(page, {"seed": 8, "mix": [], "edits": []})
    assert [body["look"] for body in asked if not body.get("drag")] == [{"seed": 7}, {"seed": 8}]


def test_before_is_of_the_sample_that_is_shown(open_page, models):
    page = open_page("#seed=7&edit=natural_light~0.5~9")
    bench = open_workbench(shipped_study(), *models)
    page.focus("body")
    page.keyboard.down("b")
    page.wait_for_selector("#before:not([hidden])")
    page.keyboard.press("n")
    page.wait_for_function("() => document.querySelector('#caption').textContent.startsWith('Sample 8')")
    wanted, deadline = edit(bench, [], seed=8).image, time.monotonic() + 60
    while not close(pixels(page, "#before"), wanted):
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)
    assert page.is_visible("#before")
    page.keyboard.up("b")
    assert page.is_hidden("#before")


def test_a_job_is_asked_about_again_where_the_server_is_busy_or_gone_and_given_up_where_it_is_forgotten(open_page):
    page = open_page()
    told = {"job": "x", "state": "running", "done": 1, "total": 2}
    script = [503, None, 429, told, {**told, "state": "done", "result": {"upload": "ab"}}, 404]

    def answer(route):
        now = script.pop(0)
        if now is None:
            route.abort()
        elif isinstance(now, int):
            route.fulfill(status=now, json={"error": f"told {now}"})
        else:
            route.fulfill(json=now)

    page.route("**/api/jobs/x", answer)
    follow = """job => import('/page/jobs.js').then(jobs => jobs.follow(job, new AbortController().signal))"""
    assert page.evaluate(follow, told) == {"upload": "ab"}
    with pytest.raises(api.Error, match="told 404"):
        page.evaluate(follow, told)
    assert script == []
    assert len(page.heard) == 4  # the browser tells of each in its console
    page.heard.clear()


def test_a_click_that_is_lost_on_the_way_still_cancels_a_job(open_page):
    page = open_page()
    script = []

    def answer(route):
        script.append(route.request.method)
        lost = script == ["DELETE"]
        route.fulfill(status=503 if lost else 200, json={"job": "x", "state": "cancelled", "done": 0, "total": 0})

    page.route("**/api/jobs/x", answer)
    told = {"job": "x", "state": "waiting", "done": 0, "total": 0}
    follow = "job => import('/page/jobs.js').then(jobs => jobs.follow(job, AbortSignal.abort()))"
    assert page.evaluate(follow, told) is None
    assert script == ["DELETE", "DELETE", "GET"]
    page.heard.clear()


def test_strips_and_transitions(open_page):
    page = open_page("#seed=7&edit=natural_light~0.5~9&edit=wood~1~6-9")
    for tab, count in (("sweep", 5), ("joint", 4), ("grid", 18)):
        page.click(f"#tab-{tab}")
        page.wait_for_function(f"() => document.querySelectorAll('#panel-{tab} img').length === {count}")
    page.click("#tab-transition")
    page.select_option("#from", "bedroom")
    page.select_option("#to", "dining_room")
    page.click("text=Turn them")
    page.wait_for_selector("#panel-transition svg.sankey")
    assert page.locator("#panel-transition .stations").count() == 4


def test_amounts_are_the_measured_response_and_not_a_straight_line(open_page):
    page = open_page()
    limit = -float(slider(page, "view_yaw").get_attribute("min"))
    strength = drag(page, "view_yaw", -0.5)
    output = page.locator("output[for=" + slider(page, "view_yaw").get_attribute("id") + "]")
    page.wait_for_function("e => e.textContent.endsWith('σ')", arg=output.element_handle())
    asked = "fetch('api/response', {method: 'POST', body: JSON.stringify({concept: 'view_yaw'})}).then(a => a.json())"
    curve = page.evaluate(asked)
    wanted = float(np.interp(strength, curve["steps"], curve["sigmas"]))
    assert wanted < -0.3
    assert output.inner_text() == f"−{abs(wanted):.1f} σ"
    assert page.inner_text("#caption").endswith(f"view yaw −{abs(wanted):.1f} σ")
    assert curve["steps"][-1] == pytest.approx(limit)
    small = float(np.interp(drag(page, "view_yaw", 0.02), curve["steps"], curve["sigmas"]))
    assert 0.005 < small < 0.095  # and one digit would say 0.0
    assert output.inner_text() == f"+{small:.2f} σ"


def test_a_length_is_told_as_a_length_and_not_as_times_the_step(open_page):
    """The step of this study is λ = 2: "+1.5 λ" would be twice as far as it is."""
    page = open_page("#seed=7&edit=view_yaw~1.5~3")  # at layers whose response is not measured
    assert page.inner_text("#caption") == "Sample 7 · view yaw λ = +1.5"
    handle = slider(page, "view_yaw")
    assert page.inner_text(f"output[for={handle.get_attribute('id')}]") == "λ = +1.5"
    assert handle.get_attribute("aria-valuetext") == "λ = +1.5"
    page.click("#tab-grid")
    page.wait_for_selector("#panel-grid figure")
    assert "the same step, λ = +1.5, at all layers" in page.inner_text("#panel-grid p")


def test_the_caption_is_of_the_picture_that_is_shown_and_a_lost_connection_is_waited_for(open_page):
    page = open_page()
    assert page.inner_text("#caption") == f"Sample {SAMPLE}"
    page.context.set_offline(True)
    page.keyboard.press("n")
    page.wait_for_function("() => document.querySelector('#toast').textContent.includes('does not answer')")
    assert page.inner_text("#caption") == f"Sample {SAMPLE}"
    page.context.set_offline(False)
    shows(page, {"seed": SAMPLE + 1, "mix": [], "edits": []})
    assert page.inner_text("#caption") == f"Sample {SAMPLE + 1}"
    assert page.heard
    assert all("ERR_INTERNET_DISCONNECTED" in words for words in page.heard)
    page.heard.clear()


def test_a_page_left_open_while_another_study_is_served_in_its_place_says_so(browser, tmp_path):
    first, second = make_run(tmp_path / "first", num_layers=6), make_run(tmp_path / "second", num_layers=9)
    context = browser.new_context()
    page = context.new_page()
    with running(create_app(*first)) as address:
        page.goto(address)
        page.wait_for_selector("#frame[data-drawn]")
    with running(create_app(*second), port=int(address.rstrip("/").rpartition(":")[2])):
        page.keyboard.press("n")
        page.wait_for_function("() => document.querySelector('#toast').textContent.includes('load the page again')")
        assert page.inner_text("#caption") == f"Sample {SAMPLE}"
        page.reload()
        shows(page, {"seed": SAMPLE + 1, "mix": [], "edits": []})
        assert "9 layers" in page.inner_text("#about")
    context.close()


def test_while_everything_is_slow_the_picture_has_a_connection_and_waiting_is_shown(open_page):
    """Browsers open six connections to a server: thumbnails, or curves of many sliders, took them all for minutes."""
    page = open_page()
    held = []

    def hold(route):
        held.append(route)

    for path in ("samples/*", "response", "changes", "strip"):
        page.route(f"**/api/{path}*", hold)
    page.locator("#thumbs").evaluate("t => t.scrollTo(0, 900)")
    page.evaluate("location.hash = 'seed=7&edit=natural_light~0.5~9&edit=wood~1~6-9&edit=warm_colours~1~10-11'")
    edited = page.locator("#frame[aria-busy=false]")
    edited.wait_for()
    assert len(json.loads(edited.get_attribute("data-shows"))["edits"]) == 3
    page.wait_for_function("() => document.querySelector('#panel-changes').innerText === 'Measuring …'")
    page.click("#tab-sweep")
    page.wait_for_function("() => document.querySelector('#panel-sweep').innerText === 'Drawing …'")
    page.wait_for_timeout(600)  # curves are asked for a little later
    asked = [re.search(r"api/(\w+)", route.request.url)[1] for route in held]
    assert len(asked) <= 5
    assert {"samples", "response", "changes", "strip"} <= set(asked)
    page.route("**/api/picture", hold)
    page.keyboard.press("n")
    page.locator("#frame[aria-busy=true]").wait_for()
    page.unroute_all()  # which lets them go
    edited.wait_for()
    page.wait_for_selector("#panel-sweep[aria-busy=false] img")
    page.wait_for_function("() => [...document.querySelectorAll('.thumb img')].filter(i => i.naturalWidth).length > 20")


def test_thumbnails_come_once_the_server_is_back(open_page):
    page = open_page(lost="**/api/samples/*")
    page.wait_for_timeout(500)
    assert page.locator(".thumb img[src]").count() == 0  # or it would be drawn as broken
    assert 0 < len(page.heard) < 12  # and not all of them, again and again
    page.unroute_all()
    page.heard.clear()
    page.wait_for_function("() => [...document.querySelectorAll('.thumb img')].some(i => i.naturalWidth)")


def test_a_message_that_stands_is_not_read_out_again(open_page):
    page = open_page()
    page.evaluate("""async () => {
        const { toast } = await import('/page/dom.js');
        window.said = 0;
        new MutationObserver(() => said++).observe(document.querySelector('#toast'), { childList: true });
        for (let k = 0; k < 3; k++) {
            toast('The server does not answer');
            await new Promise((resolve) => setTimeout(resolve));
        }
    }""")
    assert page.evaluate("said") == 1


def test_a_forgotten_photograph_is_told_where_the_caption_stands(open_page):
    page = open_page()
    page.evaluate(f"location.hash = 'upload={'0' * 32}'")
    page.reload()
    page.wait_for_function("() => document.querySelector('#caption').textContent.includes('upload it again')")
    page.heard.clear()


def test_while_layers_are_lent_keys_still_change_the_sample(open_page):
    page = open_page()
    page.click("#tab-mix")
    page.locator(".thumb").nth(5).click()
    mix = [{"seed": 5, "layers": [10, 11]}]
    shows(page, {"seed": SAMPLE, "mix": mix, "edits": []})
    page.focus("body")
    page.keyboard.press("n")
    shows(page, {"seed": SAMPLE + 1, "mix": mix, "edits": []})
    page.fill("#seed", "40")
    page.click("#goto button")
    shows(page, {"seed": 40, "mix": mix, "edits": []})


def test_one_click_resets_a_slider_whichever_was_touched_before(open_page):
    page = open_page("#seed=7&edit=view_yaw~1~0-1&edit=room_width~0.5~0-1&edit=camera_side~0.5~0-1")
    for left, label in ((2, "view yaw"), (1, "room width"), (0, "camera side")):
        page.get_by_role("button", name=f"{label} back to zero").click()
        page.wait_for_function(
            f"() => JSON.parse(document.querySelector('#frame').dataset.shows).edits.length === {left}"
        )


def test_downloads_are_the_picture_with_its_recipe(open_page, models, tmp_path):
    page = open_page("#seed=7&edit=natural_light~0.5~9&mix=5~8")
    saved = {}
    for kind in ("picture", "recipe", "gif", "strip"):
        page.click("#download summary")
        with page.expect_download() as download:
            page.click(f"[data-kind={kind}]")
        saved[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[kind])
    assert [path.suffix for path in saved.values()] == [".png", ".json", ".gif", ".png"]
    recipe = read_recipe(saved["picture"])
    assert recipe == Recipe.from_json(saved["recipe"].read_text())
    bench = open_workbench(shipped_study(), *models)
    assert torch.equal(repeat(bench, recipe).image, open_photograph(saved["picture"], 128))
    with Image.open(saved["gif"]) as animation:
        assert animation.n_frames > 8


def test_a_photograph_is_uploaded_inverted_and_edited(open_page, models, tmp_path):
    bench = open_workbench(shipped_study(), *models)
    photograph = tmp_path / "photo.jpg"
    buffer = edit(bench, [], seed=2**31 + 5).image.permute(1, 2, 0).numpy()
    Image.fromarray(buffer).resize((200, 150)).save(photograph)
    page = open_page()
    page.set_input_files("#photograph", photograph)
    page.wait_for_selector("#job:not([hidden])")
    page.click("#job-cancel")
    page.wait_for_selector("#job[hidden]", state="attached")
    assert "seed" in json.loads(page.get_attribute("#frame", "data-shows"))
    page.set_input_files("#photograph", photograph)
    page.wait_for_function("() => document.querySelector('#job-bar').value > 0", timeout=60_000)
    page.wait_for_function("() => JSON.parse(document.querySelector('#frame').dataset.shows).upload", timeout=120_000)
    assert "grey levels" in page.inner_text("#photo-result")
    plain = pixels(page)
    error = (plain.float() - open_photograph(photograph, 128).float()).square().mean().sqrt()
    assert float(error) < 30
    drag(page, "natural_light", 0.8)
    page.wait_for_function("() => JSON.parse(document.querySelector('#frame').dataset.shows).edits.length === 1")
    assert not close(pixels(page), plain)


def test_readable_on_a_phone_and_by_keyboard_alone(open_page):
    page = open_page("#seed=9", viewport={"width": 375, "height": 812}, has_touch=True, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 21, 24)"
    slider(page, "bedroom").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => JSON.parse(document.querySelector('#frame').dataset.shows).edits.length === 1")
    page.keyboard.press("Delete")
    shows(page, {"seed": 9, "mix": [], "edits": []})
    page.keyboard.press("n")
    shows(page, {"seed": 10, "mix": [], "edits": []})
    page.keyboard.press("?")
    assert page.evaluate("document.querySelector('#help').open")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter(e => "
        "!(e.textContent || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize("width", [320, 375, 720, 1100])
def test_every_tab_and_every_download_can_be_got_at_whatever_the_width(open_page, width):
    page = open_page("#seed=7", viewport={"width": width, "height": 720})
    page.eval_on_selector("#report", "link => (link.hidden = false)")  # as where a run has one
    for tab in page.locator("[role=tab]").all():
        tab.click(timeout=5000)
        assert tab.get_attribute("aria-selected") == "true"
    page.click("#download summary")
    for button in page.locator("#download button").all():
        box = button.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


@pytest.mark.parametrize("count", [18, 40])
def test_many_layers_have_room_for_their_numbers_and_arrows_walk_among_them(open_page, count):
    page = open_page(viewport={"width": 375, "height": 720})
    page.evaluate(
        """async (layers) => {
            const { layerStrip } = await import('/page/layers.js');
            const all = [...Array(layers).keys()];
            const stages = { lower: all.slice(0, -8), upper: all.slice(-8) };
            const made = layerStrip({ generator: { layers }, stages }, { label: 'many', change: () => {} });
            made.set(all);
            document.querySelector('#levels').prepend(made.element);
        }""",
        count,
    )
    strip = page.locator("[aria-label=many]")
    cut = "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)"
    assert strip.locator(".cell").evaluate_all(cut) == []
    if count > 18:
        strip.locator("[data-layer='0']").focus()
        above = strip.locator("[data-layer='0']").bounding_box()
        page.keyboard.press("ArrowDown")
        below = page.locator(":focus").bounding_box()
        assert below["x"] == pytest.approx(above["x"], abs=5)
        assert below["y"] > above["y"] + 20


def test_names_in_other_scripts_and_without_blanks_keep_to_their_place(browser, tmp_path):
    names, scorer = ("x" * 120, "غرفة_نوم", "<b>x</b>"), ToyScorer()
    told = zip(names, scorer.concepts[:3], strict=True)
    scorer.concepts = (*(Concept(name, c.level) for name, c in told), *scorer.concepts[3:])
    run, generator = make_run(tmp_path / "run", scorer=scorer)
    context = browser.new_context(viewport={"width": 375, "height": 720})
    page = context.new_page()
    with running(create_app(run, generator, scorer)) as address:
        page.goto(address + "#seed=7&" + "&".join(f"edit={name}~1~{k}" for k, name in enumerate(names)))
        page.wait_for_selector("#panel-changes .bars")
        page.wait_for_function("() => document.querySelector('#caption').textContent.split('σ').length === 4")
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        assert page.locator("b:text-is('x')").count() == 0
        # The number stands after the name, where one reads from the left.
        left = """part => {
            const text = document.querySelector('#caption').firstChild, range = document.createRange();
            const at = text.data.indexOf('غرفة');
            range.setStart(text, part ? text.data.indexOf('+', at) : at);
            range.setEnd(text, range.startOffset + 1);
            return range.getBoundingClientRect().left;
        }"""
        assert page.evaluate(left, 0) < page.evaluate(left, 1)
    context.close()


def fivefold(route):
    """The study with every concept five times, four of them under other names."""
    answer = route.fetch()
    study = answer.json()
    copies = [
        {**concept, "name": f"{concept['name']}_{k}", "label": f"{concept['label']} {k}"}
        for concept in study["concepts"]
        for k in range(1, 5)
    ]
    route.fulfill(response=answer, json={**study, "concepts": [*study["concepts"], *copies]})


def test_among_many_concepts_one_is_found_by_its_words(open_page, browser, address):
    few = open_page()
    assert few.locator("#find").is_hidden()
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.route("**/api/study", fivefold)
    page.goto(address + "#seed=15&edit=natural_light~1~11")
    page.wait_for_selector("#frame[data-drawn]")
    page.locator("#finding").click()
    page.keyboard.press("/")
    page.keyboard.type("LIGHTING 3")
    seen = page.locator(".concept:visible label")
    assert sorted(seen.all_text_contents()) == ["indoor lighting 3", "natural light"]
    assert page.locator("#found").text_content() == f"1 of {5 * few.locator('.concept').count()}"
    assert page.locator("#levels .level:visible").count() == 1
    page.evaluate("location.hash = 'seed=15&edit=wood~1~6-9'")  # what moves comes into view
    page.wait_for_function("() => document.querySelector('[data-concept=wood]').checkVisibility()")
    page.locator("#sought").press("Escape")
    assert page.locator(".concept:visible").count() == page.locator(".concept").count()
    context.close()


def test_two_people_do_not_see_each_others_photographs(address):
    """Without its name, which nobody can guess, an upload cannot be asked for."""
    request = urllib.request.Request(
        f"{address}api/picture", json.dumps({"look": {"upload": "0" * 32}}).encode(), {"X-Client": "somebody"}
    )
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        urllib.request.urlopen(request)
    assert "upload it again" in json.load(io.TextIOWrapper(refused.value))["error"]
    refused.value.close()
