"""The studio in process, on a toy whose answers are known by hand: layer l holds concept ``planted l`` and nothing else."""

import asyncio
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
import torch
from adapters import FAMILIES
from PIL import Image
from starlette.testclient import TestClient

from higan import boundaries, population, rescoring, store
from higan.editing import apply
from higan.export import about_codes, load_codes, read_recipe
from higan.generators.toy import ToyGenerator
from higan.photographs import open_photograph
from higan.recipes import Recipe
from higan.scorers.toy import ToyScorer
from higan.segmenters.toy import ToySegmenter
from higan.studio import create_app, shipped_study
from higan.studio.desk import Desk, Kept
from higan.studio.encoding import encode, encode_mask
from higan.studio.facts import about
from higan.studio.jobs import Jobs
from higan.studio.lines import BusyError, FairLine, SupersededError, TooManyError
from higan.studio.looks import Look, parse_look
from higan.types import Edit, SegmentClass
from higan.web.serve import listen
from higan.workbench import edit, open_workbench, repeat
from userstudies import make_run

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def toy():
    return ToyGenerator(), ToyScorer()


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy):
    path = tmp_path_factory.mktemp("studio") / "run"
    run = store.open_run(path, {"num_samples": 800, "shard_size": 500, "seed": 0, "generator": "toy"})
    population.fill(run, *toy)
    found = boundaries.fit(store.read_population(run), mode="all")
    store.save_boundaries(run, found)
    store.save_rescoring(run, rescoring.rescore(*toy, found, num=40, num_random=40))
    (path / "report.html").write_text("<p>report</p>")
    (path.parent / "secret.txt").write_text("not for everybody")
    (path / "linked.html").symlink_to(path.parent / "secret.txt")
    return run


@pytest.fixture(scope="module")
def bench(run, toy):
    return open_workbench(run, *toy)


@pytest.fixture(scope="module")
def client(run, toy):
    app = create_app(run, *toy, segmenter=ToySegmenter(), inversion_steps=60)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def look_of(seed=7, *edits, mix=()):
    return {
        "seed": seed,
        "mix": [{"seed": s, "layers": list(layers)} for s, layers in mix],
        "edits": [{"concept": c, "strength": s, "layers": list(layers)} for c, s, layers in edits],
    }


def decoded(answer):
    assert answer.status_code == 200, answer.text
    picture = Image.open(io.BytesIO(answer.content)).convert("RGB")
    return torch.tensor(list(picture.tobytes()), dtype=torch.uint8).reshape(*picture.size, 3).permute(2, 0, 1)


def finished(client, job, *, within=30.0):
    """The job once it is over."""
    deadline = time.monotonic() + within
    while (told := client.get(f"/api/jobs/{job['job']}").json())["state"] in ("waiting", "running"):
        assert time.monotonic() < deadline, told
        time.sleep(0.02)
    return told


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_picture_is_that_of_the_command_line_bit_for_bit(client, bench):
    asked = look_of(7, ("planted 2", 1.5, [2]), ("planted 4", -2.0, [3, 4]))
    image = decoded(client.post("/api/picture", json={"look": asked}))
    assert torch.equal(image, edit(bench, ["planted 2=+1.5@2", "planted 4=-2@3,4"], seed=7).image)
    assert not torch.equal(image, edit(bench, [], seed=7).image)


def test_lent_layers_come_before_edits(client, bench):
    asked = look_of(7, ("planted 2", 1.5, [2]), mix=[(5, [4, 5])])
    image = decoded(client.post("/api/picture", json={"look": asked}))
    donor, own = edit(bench, [], seed=5).code, edit(bench, ["planted 2=+1.5@2"], seed=7).code
    expected = torch.cat([own[:4], donor[4:]])
    assert torch.equal(image, population.render(bench.generator, expected[None])[0])


def test_samples_of_the_gallery_are_the_samples(client, bench):
    answer = client.get(f"/api/samples/3?v={client.get('/api/study').json()['version']}")
    assert torch.equal(decoded(answer), edit(bench, [], seed=3).image)
    assert "max-age" in answer.headers["cache-control"]
    assert client.get("/api/samples/4294967296").status_code == 400


@pytest.mark.parametrize("seed", ["9" * 5000, "9" * 20, "-1", "x", "1.5", "٣"])
def test_samples_of_no_number_are_refused_with_words(client, seed):
    answer = client.get(f"/api/samples/{seed}")
    assert answer.status_code == 400
    assert "a seed is a whole number" in answer.json()["error"]


def test_changes_are_measured_in_standard_deviations(client, bench):
    found = client.post("/api/changes", json={"look": look_of(7, ("planted 2", 1.0, [2]))}).json()
    scorer, std = bench.scorer, bench.rescoring.score_std
    before, after = (scorer.score(edit(bench, edits, seed=7).image[None])[0] for edits in ([], ["planted 2=+1@2"]))
    names = [concept.name for concept in scorer.concepts]
    for name, sigma in found.items():
        k = names.index(name)
        assert sigma == pytest.approx(float((after[k] - before[k]) / std[k]), abs=1e-4)
    assert found["planted 2"] > 0.3
    assert abs(found["planted 3"]) < 0.05
    assert "constant" not in found


def test_masks_have_their_classes_colours_and_shares(client, toy):
    segmenter = ToySegmenter()
    answer = client.post("/api/masks", json={"look": look_of(7)})
    mask = segmenter.segment(population.render(toy[0], population.sample(toy[0], [7])))[0]
    image, shares = decoded(answer), json.loads(answer.headers["x-classes"])
    for k, segment_class in enumerate(segmenter.classes):
        here = mask == k
        assert shares.get(segment_class.name, 0) == pytest.approx(float(here.float().mean()))
        assert (image[:, here] == torch.tensor(segment_class.colour, dtype=torch.uint8)[:, None]).all()


@pytest.mark.parametrize(
    "asked",
    [
        None, [], "x", 7, {}, {"seed": None}, {"seed": 7, "upload": "a"}, {"seed": -1}, {"seed": 2**32}, {"seed": 1.5},
        {"seed": True}, {"seed": "7"}, {"upload": "../../etc/passwd"}, {"upload": 7}, {"upload": "unknown"},
        {"seed": 7, "edits": {}}, {"seed": 7, "edits": [{"concept": "nobody", "strength": 1, "layers": [0]}]},
        {"seed": 7, "edits": [{"concept": ["x"], "strength": 1, "layers": [0]}]},
        look_of(7, ("planted 0", "1", [0])), look_of(7, ("planted 0", 1e300, [0])), look_of(7, ("planted 0", 1, [])),
        look_of(7, ("planted 0", 10**400, [0])), look_of(7, ("planted 0", -(10**400), [0])),
        look_of(7, ("planted 0", 1, [10**400])), look_of(7, mix=[(10**400, [2])]), {"seed": 10**400},
        look_of(7, ("planted 0", 1, [6])), look_of(7, ("planted 0", 1, [-1])), look_of(7, ("planted 0", 1, [True])),
        look_of(7, ("planted 0", 1, [0]), ("planted 0", 1, [0, 1])), look_of(7, mix=[(1, [2]), (3, [2])]),
        look_of(7, *[("planted 0", 0, [0])] * 65), {"seed": 7, "mix": [{"seed": 1}]}, {"seed": 7, "mix": [7]},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_words(client, asked):
    answer = client.post("/api/picture", json={"look": asked})
    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 10


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b"[" * 20_000, b'{"look": {"seed": NaN}}', b'{"look": {"seed": 1e999}}']
)
def test_what_is_not_json_is_refused(client, body):
    assert client.post("/api/picture", content=body).status_code == 400


def test_infinite_strengths_are_refused(client):
    text = json.dumps({"look": look_of(7, ("planted 0", 1, [0]))}).replace('"strength": 1', '"strength": Infinity')
    assert client.post("/api/picture", content=text).status_code == 400


# --- facts ------------------------------------------------------------------------------------------------------------


def test_concepts_are_the_verified_ones_with_interval_layers_and_profile(client, bench):
    study = client.get("/api/study").json()
    assert sorted(c["name"] for c in study["concepts"]) == [f"planted {k}" for k in range(6)]
    assert study["tried"] == 8
    effects = [concept["effect"] for concept in study["concepts"]]
    assert effects == sorted(effects, reverse=True)
    for concept in study["concepts"]:
        layer = int(concept["name"][-1])
        assert concept["layers"] == [layer]
        assert concept["low"] <= concept["effect"] <= concept["high"]
        assert max(range(6), key=concept["profile"].__getitem__) == layer
        assert sum(concept["profile"]) == pytest.approx(concept["profile"][layer], abs=0.02)
    assert about(bench)["generator"] == {"name": "toy", "layers": 6, "resolution": 8}


def test_a_workbench_without_a_rescoring_has_nothing_to_tell(toy):
    from higan.workbench import Workbench

    with pytest.raises(ValueError, match="re-scoring"):
        about(Workbench(toy[0], {}))


def test_the_response_of_a_slider_is_measured_both_ways(client, bench, toy):
    """Against the same samples moved one by one."""
    concept = client.get("/api/study").json()["concepts"][0]
    name, layers, limit = concept["name"], concept["layers"], concept["limit"]
    found = client.post("/api/response", json={"concept": name}).json()
    assert found["steps"] == pytest.approx([limit * k / 3 for k in range(-3, 4)])
    assert found["sigmas"][3] == 0
    generator, scorer = toy[:2]
    codes = population.sample(generator, population.sample_seeds(24, purpose="verify", first=2**22 + 2**21 + 2**20))
    column = bench.column(name)
    std = float(bench.rescoring.score_std[[c.name for c in bench.rescoring.concepts].index(name)])
    before = population.score(scorer, population.render(generator, codes))[:, column]
    for step, sigmas in zip(found["steps"], found["sigmas"], strict=True):
        moved = apply(codes, [Edit(bench.boundaries[name], step, tuple(layers))])
        change = float((population.score(scorer, population.render(generator, moved))[:, column] - before).mean()) / std
        assert sigmas == pytest.approx(change, abs=2e-3)
    # The slider's end is three standard deviations away on a straight line, and the toy's scores bend little.
    assert found["sigmas"][-1] == pytest.approx(3, abs=0.5)
    assert client.post("/api/response", json={"concept": name}).json() == found
    for wrong in ("nobody", 7, [], {}, None):
        assert client.post("/api/response", json={"concept": wrong}).status_code == 400


# --- strips and files -------------------------------------------------------------------------------------------------


def test_strips_show_sweeps_joint_edits_and_grids(client):
    edits = [("planted 2", 1.0, [2]), ("planted 4", 1.0, [4])]
    for kind, count, words in [("sweep", 5, "-1"), ("joint", 4, "original"), ("grid", 1 + 1 + 6 + 4, "original")]:
        found = client.post("/api/strip", json={"look": look_of(7, *edits), "kind": kind}).json()
        assert len(found["pictures"]) == count
        assert found["pictures"][0]["caption"].startswith(words)
        assert all(picture["uri"].startswith("data:image/png;base64,") for picture in found["pictures"])
    chosen = client.post("/api/strip", json={"look": look_of(7), "kind": "grid", "concept": "planted 3"}).json()
    captions = {p["caption"].split("\n")[0]: p["caption"] for p in chosen["pictures"]}
    assert "+2." in captions["layer 3"] or "+1.9" in captions["layer 3"]
    assert "-0.0 sd" in captions["layer 2"] or "+0.0 sd" in captions["layer 2"]


@pytest.mark.parametrize(
    "asked",
    [{"look": look_of(7), "kind": "sweep"}, {"look": look_of(7), "kind": "joint"}, {"look": look_of(7), "kind": "grid"},
     {"look": look_of(7), "kind": "nothing"}, {"look": look_of(7), "kind": []}, {"look": look_of(7), "kind": {}},
     *({"look": look_of(7), "kind": "grid", "concept": concept} for concept in ("nobody", 7, [], {}, [[]]))],
)  # fmt: skip
def test_strips_of_nothing_are_refused(client, asked):
    assert client.post("/api/strip", json=asked).status_code == 400


def test_a_downloaded_picture_carries_the_recipe_that_makes_it_again(client, bench, tmp_path):
    asked = look_of(7, ("planted 2", 1.5, [2]), mix=[(5, [5])])
    answer = client.post("/api/download", json={"look": asked, "kind": "picture"})
    assert answer.headers["content-disposition"] == 'attachment; filename="toy-7.png"'
    path = tmp_path / "picture.png"
    path.write_bytes(answer.content)
    again = repeat(bench, read_recipe(path))
    assert torch.equal(again.image, open_photograph(path, 8))
    recipe = Recipe.from_json(client.post("/api/download", json={"look": asked, "kind": "recipe"}).text)
    assert recipe == read_recipe(path)


def test_strips_animations_and_codes_are_files_that_open(client, bench, tmp_path):
    asked = look_of(7, ("planted 2", 1.5, [2]))
    strip = client.post("/api/download", json={"look": asked, "kind": "strip"})
    assert Image.open(io.BytesIO(strip.content)).format == "PNG"
    animation = Image.open(io.BytesIO(client.post("/api/download", json={"look": asked, "kind": "gif"}).content))
    assert (animation.format, animation.size) == ("GIF", (256, 256))
    assert animation.n_frames > 8
    (tmp_path / "codes.safetensors").write_bytes(
        client.post("/api/download", json={"look": asked, "kind": "codes"}).content
    )
    assert torch.equal(load_codes(tmp_path / "codes.safetensors")[0], edit(bench, [], seed=7).code)
    told = about_codes(tmp_path / "codes.safetensors")
    assert told["truncation"] == bench.generator.truncation.tolist()
    assert told.get("weights", "") == bench.weights
    for kind in ("strip", "gif"):
        assert client.post("/api/download", json={"look": look_of(7), "kind": kind}).status_code == 400


# --- photographs ------------------------------------------------------------------------------------------------------


def png(size=(20, 10), kind="PNG"):
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def slow(run):
    """A studio whose generator waits until it is let go."""
    gate = threading.Event()
    gate.set()
    gate.reached = threading.Event()

    class Slow(ToyGenerator):
        def synthesize(self, codes):
            gate.reached.set()
            gate.wait(20)
            return super().synthesize(codes)

    app = create_app(run, Slow(), ToyScorer(), segmenter=ToySegmenter())
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client, gate
    gate.set()


def test_a_photograph_is_inverted_with_progress_and_then_edited(client):
    answer = client.post("/api/photographs", content=png())
    assert answer.status_code == 202
    told = finished(client, answer.json())
    assert told["state"] == "done", told
    assert 1 < told["total"] == told["done"]
    found = told["result"]
    assert found["error"] <= found["start_error"]
    look = {"upload": found["upload"], "edits": [{"concept": "planted 2", "strength": 2.0, "layers": [2]}]}
    plain = decoded(client.post("/api/picture", json={"look": {"upload": found["upload"]}}))
    assert not torch.equal(plain, decoded(client.post("/api/picture", json={"look": look})))
    recipe = Recipe.from_json(client.post("/api/download", json={"look": look, "kind": "recipe"}).text)
    assert recipe.seed is None
    assert recipe.codes


def test_uploads_are_bounded_in_bytes_and_pixels_and_must_be_pictures(client, monkeypatch):
    too_large = client.post("/api/photographs", content=b"x" * (16 * 2**20 + 1))
    assert too_large.status_code == 413
    assert client.post("/api/photographs", content=b"").status_code == 400
    # A bomb: 30 million pixels in a few kilobytes, refused by its header before anything is decoded.
    buffer = io.BytesIO()
    Image.new("1", (6000, 5000)).save(buffer, "PNG", optimize=True)
    assert len(buffer.getvalue()) < 30_000
    pickled = b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    for content, words in [
        (buffer.getvalue(), "6000 x 5000 pixels; pictures of 1 to 24,000,000"),
        (png(kind="TIFF"), "not a picture; expected one of PNG, JPEG, WEBP"),
        (pickled, "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (png()[:-60], "truncated or damaged"),
    ]:
        told = finished(client, client.post("/api/photographs", content=content).json())
        assert told["state"] == "failed"
        assert words in told["error"]
        assert "/tmp" not in told["error"]


def test_an_inversion_can_be_cancelled_and_a_client_has_one_at_a_time(slow):
    client, gate = slow
    gate.clear()
    gate.reached.clear()
    job = client.post("/api/photographs", content=png(), headers={"x-client": "a"}).json()
    assert gate.reached.wait(20)  # From here on it hears of nothing until the gate opens.
    assert client.post("/api/photographs", content=png(), headers={"x-client": "a"}).status_code == 429
    others = [client.post("/api/photographs", content=png(), headers={"x-client": f"b{k}"}) for k in range(8)]
    assert [answer.status_code for answer in others] == [202] * 7 + [503]
    for told in (job, *(answer.json() for answer in others[:7])):
        assert client.delete(f"/api/jobs/{told['job']}").status_code == 204
    # Those that only waited are gone before the one in front has heard of it.
    assert {client.get(f"/api/jobs/{a.json()['job']}").json()["state"] for a in others[:7]} == {"cancelled"}
    gate.set()
    assert {finished(client, told)["state"] for told in (job, *(a.json() for a in others[:7]))} == {"cancelled"}
    assert client.get("/api/jobs/nothing").status_code == 404


def test_a_job_cancelled_while_it_waits_leaves_its_place_at_once():
    jobs, gate, ran = Jobs(waiting=3), threading.Event(), []
    first = jobs.submit("other", lambda progress: {"waited": gate.wait(20)})
    mine = jobs.submit("me", lambda progress: ran.append("mine") or {})
    jobs.cancel(mine.name)
    assert mine.state == "cancelled"
    again = jobs.submit("me", lambda progress: ran.append("again") or {})
    jobs.submit("third", lambda progress: {})
    with pytest.raises(BusyError):
        jobs.submit("fourth", lambda progress: {})
    jobs.cancel(again.name)
    last = jobs.submit("fourth", lambda progress: ran.append("last") or {})
    jobs.cancel("nothing")
    gate.set()
    while last.state != "done":
        time.sleep(0.005)
    assert (first.state, ran) == ("done", ["last"])
    jobs.stop()


def test_a_waiting_job_that_nobody_asks_about_keeps_nobody_out():
    jobs, gate = Jobs(waiting=2, patience=0.2), threading.Event()
    jobs.submit("other", lambda progress: {"waited": gate.wait(20)})
    left = jobs.submit("me", lambda progress: {})
    with pytest.raises(BusyError):
        jobs.submit("third", lambda progress: {})
    time.sleep(0.25)
    jobs.submit("third", lambda progress: {})
    assert left.state == "cancelled"
    gate.set()
    jobs.stop()


def test_a_job_that_nobody_asks_about_stops():
    jobs, steps = Jobs(patience=0.05), []

    def work(progress):
        while len(steps) < 500:
            steps.append(1)
            time.sleep(0.01)
            progress(len(steps), 500)
        return {}

    job = jobs.submit("a", work)
    while job.state in ("waiting", "running"):
        time.sleep(0.01)
    assert (job.state, len(steps) < 100) == ("cancelled", True)
    jobs.stop()


def test_jobs_are_forgotten_but_never_while_they_run():
    jobs = Jobs(waiting=2, kept=3)
    names = []
    for k in range(6):
        job = jobs.submit(f"c{k}", lambda progress: {"k": 1})
        while job.state != "done":
            time.sleep(0.005)
        names.append(job.name)
    assert [jobs.find(name) is not None for name in names] == [False] * 3 + [True] * 3
    broken = jobs.submit("x", lambda progress: 1 // 0)
    while broken.state != "failed":
        time.sleep(0.005)
    assert "ZeroDivisionError" in broken.told()["error"]
    jobs.stop()


# --- transitions ------------------------------------------------------------------------------------------------------


def test_transitions_come_with_pictures_masks_and_the_flow_diagram(client):
    asked = {"categories": ["planted 1", "planted 2"], "num": 6}
    told = finished(client, client.post("/api/transition", json=asked).json())
    assert told["state"] == "done", told
    result = told["result"]
    assert result["drawing"].startswith("<svg")
    assert "style=" not in result["drawing"]
    assert "<script" not in result["drawing"]
    assert len(result["rows"][0]["pictures"]) == len(result["rows"][0]["masks"]) == 3
    assert {row["name"] for row in result["legs"][0]["kept"]} & {"stuff", "things"}
    for wrong in ({"categories": ["planted 1"]}, {"categories": "x"}, {"categories": ["planted 1", "nobody"]},
                  {**asked, "num": 0}, {**asked, "num": 10_000}, {**asked, "num": True},
                  {"categories": [[], []]}, {"categories": [{}, {}]}, {"categories": [1, None]}):  # fmt: skip
        assert client.post("/api/transition", json=wrong).status_code == 400


def test_without_a_scorer_or_a_segmenter_the_studio_shows_what_it_can(run, toy):
    with TestClient(create_app(run, toy[0]), base_url="http://127.0.0.1") as client:
        study = client.get("/api/study").json()
        assert (study["scored"], study["categories"], study["classes"]) == (False, [], {})
        assert client.post("/api/picture", json={"look": look_of(7)}).status_code == 200
        for path in ("masks", "changes"):
            assert client.post(f"/api/{path}", json={"look": look_of(7)}).status_code == 400


# --- safety -----------------------------------------------------------------------------------------------------------


def test_the_application_is_never_without_its_guards(run, toy, client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    assert client.post("/api/picture", json={}, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/api/picture", content=b" " * 70_000).status_code == 413
    for path in ("/", "/api/study", "/page/studio.js", "/nothing"):
        policy = client.get(path).headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
    with pytest.raises(ValueError, match="a token is needed"):
        create_app(run, *toy, host="0.0.0.0")
    with TestClient(create_app(run, *toy, host="0.0.0.0", token=TOKEN), base_url="http://10.0.0.1") as guarded:
        assert guarded.get("/api/study").status_code == 401
        assert guarded.get(f"/?token={TOKEN}").status_code == 200
        assert guarded.get("/api/study").status_code == 200


@pytest.mark.parametrize(
    "name",
    ["secret.txt", "../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "linked.html", "population",
     "population/shard-00000.parquet", "steps.json", "/etc/passwd", "%2fetc%2fpasswd", ".", "report.html%00.txt"],
)  # fmt: skip
def test_only_known_files_of_the_run_folder_are_served(client, name):
    for path in (f"/api/run/{name}", f"/page/{name}"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert b"not for everybody" not in answer.content


def test_a_known_file_that_leads_out_of_the_run_folder_is_not_served(run, toy, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("*.html"))
    (tmp_path / "secret").write_text("not for everybody")
    (folder / "report.html").symlink_to(tmp_path / "secret")
    with TestClient(create_app(store.load_run(folder), *toy), base_url="http://127.0.0.1") as client:
        assert client.get("/api/run/report.html").status_code == 404
        assert client.get("/api/study").json()["report"] is False
        assert client.get("/api/run/boundaries.safetensors").status_code == 200


def test_a_page_of_another_study_is_told_to_load_again(run, toy, client, tmp_path):
    """Its names and numbers would stand under this study's pictures."""
    other, generator = make_run(tmp_path / "run")
    version = client.get("/api/study").json()["version"]
    with TestClient(create_app(other, generator), base_url="http://127.0.0.1") as started:
        asked = {"look": look_of()}
        answer = started.post("/api/picture", json=asked, headers={"x-study": version})
        assert answer.status_code == 409
        assert "load the page again" in answer.json()["error"]
        assert started.get(f"/api/samples/7?v={version}").status_code == 409
        assert started.get("/", headers={"x-study": version}).status_code == 200
        own = started.get("/api/study").json()["version"]
        assert started.post("/api/picture", json=asked, headers={"x-study": own}).status_code == 200
    # The same study served again is the same.
    with TestClient(create_app(run, *toy, segmenter=ToySegmenter()), base_url="http://127.0.0.1") as again:
        assert again.post("/api/picture", json=asked, headers={"x-study": version}).status_code == 200


def test_a_report_is_shown_as_a_document_that_may_run_nothing(client):
    answer = client.get("/api/run/report.html")
    assert answer.text == "<p>report</p>"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy


def test_the_page_comes_from_the_package_alone_and_carries_no_script_in_itself(client):
    html = client.get("/").text
    assert "://" not in html
    assert "<style" not in html
    assert " style=" not in html
    assert " onclick" not in html
    assert html.count("<script") == html.count('<script type="module" src="page/')
    for name in ("studio.js", "look.js", "studio.css", "icon.svg"):
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200
        assert client.get(f"/page/{name}", headers={"if-none-match": answer.headers["etag"]}).status_code == 304
        assert not [word for word in answer.text.split() if "://" in word and "www.w3.org" not in word]
    assert client.get("/page/__init__.py").status_code == 404
    assert client.get("/docs").status_code == 404
    assert client.get("/openapi.json").status_code == 404


# --- who is served when -----------------------------------------------------------------------------------------------


class Recorder:
    """Remembers the batches it was given; the first waits until it is let go, so that a line forms behind it."""

    def __init__(self):
        self.batches, self.gate = [], threading.Event()

    def __call__(self, items):
        self.batches.append(list(items))
        if len(self.batches) == 1:
            self.gate.wait(10)
        if "bad" in items:
            raise ValueError("bad item")
        return [item * 2 for item in items]


def in_line(questions, **options):
    """Asks everything at once behind a first item; answers or errors, and the batches in which they were worked off."""

    async def ask():
        work = Recorder()
        line = FairLine(work, **options)
        line.start()
        first = asyncio.create_task(line.ask("first", "_"))
        while not work.batches:
            await asyncio.sleep(0.001)
        tasks = []
        for client, item, newest in questions:
            tasks.append(asyncio.create_task(line.ask(client, item, newest=newest)))
            await asyncio.sleep(0)
        work.gate.set()
        answers = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert len(line) == 0
        await line.stop()
        return answers[1:], work.batches[1:]

    return asyncio.run(ask())


def test_clients_take_turns_however_much_one_asks():
    questions = [
        *(("greedy", f"g{k}", False) for k in range(6)),
        ("a", "a0", False),
        ("b", "b0", False),
        ("a", "a1", False),
    ]
    answers, batches = in_line(questions, at_once=3)
    assert answers == [item * 2 for _, item, _ in questions]
    assert batches == [["g0", "a0", "b0"], ["g1", "a1"], ["g2"], ["g3"], ["g4"], ["g5"]]


def test_a_client_alone_gets_a_few_at_once():
    _, batches = in_line([("a", f"{k}", False) for k in range(10)], at_once=16)
    assert [len(batch) for batch in batches] == [4, 4, 2]


def test_the_newest_wish_replaces_the_one_before_and_goes_first():
    questions = [("a", "thumb", False), ("a", "old", True), ("b", "other", True), ("a", "new", True)]
    answers, batches = in_line(questions)
    assert [type(answer) for answer in answers] == [str, SupersededError, str, str]
    assert batches == [["new"], ["other"], ["thumb"]]


def test_lines_are_bounded_for_each_and_in_all():
    answers, _ = in_line([("a", "x", False)] * 5 + [("b", "y", False)] * 5, per_client=3, total=5)
    assert [type(answer).__name__ for answer in answers] == ["str"] * 3 + ["TooManyError"] * 2 + ["str"] * 2 + [
        "BusyError"
    ] * 3
    assert issubclass(TooManyError, Exception)
    assert issubclass(BusyError, Exception)


def test_a_replaced_wish_leaves_room_and_a_refused_one_leaves_no_trace():
    answers, batches = in_line(
        [("a", f"{k}", True) for k in range(50)] + [("b", "x", False), ("c", "y", False)], total=2
    )
    assert batches == [["49"], ["x"]]
    assert [type(answer).__name__ for answer in answers[49:]] == ["str", "str", "BusyError"]


def test_a_failing_item_fails_alone():
    answers, _ = in_line([("a", "1", False), ("b", "bad", False), ("c", "3", False)], at_once=3)
    assert (answers[0], answers[2]) == ("11", "33")
    assert isinstance(answers[1], ValueError)


def test_many_clients_share_calls_of_the_generator_and_get_their_own_pictures(run, bench):
    calls = []

    class Counting(ToyGenerator):
        def synthesize(self, codes):
            calls.append(len(codes))
            time.sleep(0.01)
            return super().synthesize(codes)

    with TestClient(create_app(run, Counting()), base_url="http://127.0.0.1") as client:
        found = {}

        def drag(seed):
            for strength in (0.5, 1.0, 1.5):
                asked = {"look": look_of(seed, ("planted 2", strength, [2])), "drag": True}
                found[seed] = decoded(client.post("/api/picture", json=asked, headers={"x-client": f"c{seed}"}))

        threads = [threading.Thread(target=drag, args=(seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for seed, image in found.items():
        assert torch.equal(image, edit(bench, ["planted 2=+1.5@2"], seed=seed).image)
    assert sum(calls) == 36
    assert len(calls) < 36


def test_what_is_kept_is_bounded():
    kept = Kept(3)
    for k in range(10):
        kept.put(k, k)
        kept.get(7)
    assert len(kept) == 3
    assert [kept.get(k) for k in (6, 7, 8, 9)] == [None, 7, 8, 9]


def test_a_drag_over_late_layers_computes_the_early_ones_once():
    from higan import load_generator
    from higan.generators.rooms import RoomsGenerator

    prepared = []

    class Watched(RoomsGenerator):
        def prepare(self, codes, layer):
            prepared.append(layer)
            return super().prepare(codes, layer)

    rooms = load_generator("rooms")
    generator = Watched(rooms.network, rooms.mean_code, truncation=rooms.truncation.tolist())
    bench = open_workbench(shipped_study(), generator)
    desk = Desk(bench)
    for strength in (0.5, 1.0, 1.5):
        asked = look_of(7, ("natural_light", strength, [8, 9]), ("wood", 1.0, [6]), mix=[(5, [2])])
        drawn = desk.images([parse_look(asked, bench.boundaries, 10)])[0]
        wanted = population.render(rooms, desk.code(parse_look(asked, bench.boundaries, 10))[None])[0]
        assert int((drawn.int() - wanted.int()).abs().max()) <= 1
    assert prepared == [6]


def test_uploads_are_forgotten_oldest_first_and_have_names_nobody_guesses(bench):
    desk = Desk(bench, uploads=2)
    names = [desk.keep_upload(torch.full((6, 16), float(k))) for k in range(3)]
    assert len(set(names)) == 3
    assert all(len(name) == 32 for name in names)
    with pytest.raises(ValueError, match="upload it again"):
        desk.start(Look(upload=names[0]))
    assert float(desk.start(Look(upload=names[2])).mean()) == 2


def test_large_pictures_are_drawn_few_at_a_time(bench):
    from dataclasses import replace

    assert Desk(bench).at_once == 16
    assert Desk(replace(bench, generator=ToyGenerator(6, 16, 256))).at_once == 4
    assert Desk(replace(bench, generator=ToyGenerator(6, 16, 1024))).at_once == 1


# --- looks and encodings ----------------------------------------------------------------------------------------------


def test_a_look_keeps_what_counts(bench):
    asked = look_of(7, ("planted 1", 0.0, [1]), ("planted 2", 1.0, [3, 2, 3]), mix=[(4, [0])])
    look = parse_look(asked, bench.boundaries, 6)
    assert [(e.concept, e.amount, e.layers) for e in look.edits] == [("planted 2", 1.0, (2, 3))]
    assert look.plain == Look(seed=7)
    assert look.unedited.loans == look.loans
    assert look.unedited.edits == ()


def test_small_pictures_lose_nothing_and_large_ones_are_small():
    noise = torch.randint(256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    content, kind = encode(noise)
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    assert kind == "image/webp"
    assert picture.tobytes() == noise.permute(1, 2, 0).contiguous().numpy().tobytes()
    smooth = torch.arange(256, dtype=torch.uint8).expand(3, 256, 256)
    content, kind = encode(smooth)
    assert (kind, len(content) < 20_000) == ("image/jpeg", True)
    assert Image.open(io.BytesIO(encode(smooth, largest=96)[0])).size == (96, 96)
    content, _ = encode_mask(
        torch.tensor([[0, 1]], dtype=torch.uint8),
        (SegmentClass("a", "thing", (1, 2, 3)), SegmentClass("b", "stuff", (4, 5, 6))),
    )
    assert Image.open(io.BytesIO(content)).convert("RGB").tobytes() == bytes([1, 2, 3, 4, 5, 6])


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_serves_the_embedded_generator_until_it_is_interrupted():
    line = [sys.executable, "-m", "higan.cli", "studio", "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        printed = server.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", printed)[0]
        with urllib.request.urlopen(address + "api/study", timeout=10) as answer:
            study = json.load(answer)
        server.send_signal(signal.SIGINT)
        rest, errors = server.communicate(timeout=20)
    assert study["generator"] == {"name": "rooms-128", "layers": 12, "resolution": 128}
    assert len(study["concepts"]) > 15
    assert {level["name"] for level in study["levels"]} == {concept["level"] for concept in study["concepts"]}
    assert {"bedroom", "living_room", "dining_room"} <= {category["name"] for category in study["categories"]}
    assert "Traceback" not in rest + errors


@pytest.fixture
def served(monkeypatch):
    """What the command would serve, handed over instead of served; everything before it is real."""
    handed = []
    monkeypatch.setattr("higan.web.serve.serve", lambda app, **options: handed.append((app, options)))
    return handed


def test_a_weight_file_is_studied_first_and_the_study_kept(higan, served, monkeypatch, tmp_path):
    from higan.cli import studio as verb
    from higan.generators.loading import save_generator
    from higan.generators.pretrained import wrap
    from higan.generators.stylegan2 import StyleGAN2Config, StyleGAN2Network

    for name, value in (("_PROBED", 120), ("_VERIFIED", 4), ("_RANDOM", 5)):
        monkeypatch.setattr(verb, name, value)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = StyleGAN2Network(StyleGAN2Config(16, (8, 8, 4), latent_dim=6, mapping=(8, 8)))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    save_generator(wrap(network, "tiny", "cpu"), tmp_path / "tiny.safetensors")
    code, printed = higan("studio", "--port", 0, "tiny.safetensors")
    assert code == 0, printed
    assert "is studied with colour first, into studio-tiny" in printed
    with TestClient(served[0][0], base_url="http://127.0.0.1") as client:
        assert client.get("/api/study").json()["generator"]["resolution"] == 16
        assert client.post("/api/picture", json={"look": look_of(1)}).status_code == 200
    code, printed = higan("studio", "--port", 0, "tiny.safetensors")
    assert "is studied" not in printed
    code, printed = higan("studio", "--port", 0, "studio-tiny")
    assert (code, len(served)) == (0, 3)
    for what in ("studio-tiny", None):
        for option in (("--label", 1), ("--scorer", "colour"), ("--out", "elsewhere")):
            code, printed = higan("studio", "--port", 0, *([what] if what else []), *option)
            assert code == 2
            assert "--label, --generator-option, --scorer and --out go with a generator" in printed
    code, printed = higan("studio", "--port", 0, "toy", "--scorer", "toy")
    assert code == 0, printed
    assert "is studied with toy first, into studio-toy" in printed
    code, printed = higan("studio", "--port", 0, "nothing")
    assert code == 1
    assert "neither a folder of a run, nor a weight file, nor module:name, nor one of rooms, rooms-128" in printed


def test_what_cannot_be_served_is_said_before_the_study(higan, served, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        for options, words in (
            (("--port", port), "choose another --port"),
            (("--port", 0, "--host", "192.0.2.1"), "choose another --host"),  # an address of documentation, nobody's
            (("--port", 0, "--token", "short"), "a token needs at least 16"),
            (("--port", 0, "--segmenter", "nobody"), "nobody: no such file"),
        ):
            code, printed = higan("studio", "toy", "--scorer", "toy", *options)
            assert code != 0
            assert words in printed
            assert "studied" not in printed
    assert list(tmp_path.iterdir()) == []
    assert served == []


def test_a_conditional_generator_is_looked_at_class_by_class(higan, served, monkeypatch, tmp_path):
    from higan.cli import studio as verb
    from higan.generators.loading import save_generator
    from higan.generators.pretrained import wrap

    for name, value in (("_PROBED", 60), ("_VERIFIED", 4), ("_RANDOM", 2)):
        monkeypatch.setattr(verb, name, value)
    monkeypatch.chdir(tmp_path)
    save_generator(wrap(FAMILIES["stylegan conditional"](), "conditional"), tmp_path / "conditional.safetensors")
    code, printed = higan("studio", "--port", 0, "conditional.safetensors")
    assert code == 2
    assert "--label" in printed
    looks = []
    for label in (0, 1):
        out = f"class-{label}"
        code, printed = higan("studio", "--port", 0, "conditional.safetensors", "--label", label, "--out", out)
        assert code == 0, printed
        with TestClient(served[-1][0], base_url="http://127.0.0.1") as client:
            looks.append(client.post("/api/picture", json={"look": look_of(1)}).content)
        assert store.load_run(out).provenance["label"] == label
    assert looks[0] != looks[1]


def test_beyond_this_machine_a_token_is_made_up(higan, served):
    code, printed = higan("studio", "--port", 0, "--host", "0.0.0.0")
    assert code == 0, printed
    app, options = served[0]
    assert len(options["token"]) >= 32
    with TestClient(app, base_url="http://10.1.2.3") as client:
        assert client.get("/").status_code == 401
        assert client.get(f"/?token={options['token']}").status_code == 200
    assert higan("studio", "--port", 0, "--host", "0.0.0.0", "--token", "short")[0] == 2
    assert higan("studio", "--port", 0, "nothing-here")[0] == 1


# --- the study that comes with the package ----------------------------------------------------------------------------


def test_the_shipped_study_is_of_the_shipped_generator_and_small():
    from higan.generators.loading import WEIGHTS
    from higan.weights import digest_of

    run = shipped_study()
    assert run.settings["digests"]["generator rooms-128"] == digest_of(WEIGHTS / "rooms-128.safetensors")
    assert sum(path.stat().st_size for path in run.path.iterdir()) < 400_000
    assert run.provenance["command"] == "higan demo --out demo"
    found = store.load_rescoring(run)
    assert {concept.level for concept in found.concepts} == {"layout", "object", "attribute", "colour"}


def test_a_packed_study_is_that_of_the_run_and_says_where_it_lies(higan, tmp_path):
    code, printed = higan("rooms", "pack-study", shipped_study().path, "--out", tmp_path / "packed")
    assert code == 0, printed
    assert printed.endswith(f"kB in {tmp_path / 'packed'}")
    packed = store.load_run(tmp_path / "packed")
    assert packed.settings == shipped_study().settings
    assert torch.equal(store.load_rescoring(packed).effects, store.load_rescoring(shipped_study()).effects)


@pytest.mark.parametrize(
    ("generator", "digests", "words"),
    [
        ("toy", {}, "is a run of the generator 'toy'"),
        ("rooms", {"generator rooms": "0" * 64}, "is a run of the generator 'rooms'"),
        ("rooms-128", {"generator rooms-128": "0" * 64}, "was made with other weights (SHA-256 000000000000)"),
        ("rooms-128", {}, "was made with other weights (SHA-256 unknown)"),
    ],
)
def test_a_run_of_other_weights_is_not_packed(higan, monkeypatch, tmp_path, generator, digests, words):
    shutil.copytree(shipped_study().path, tmp_path / "run")
    monkeypatch.setattr("higan.studio.shipped.SHIPPED", tmp_path / "package")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    manifest["provenance"]["generator"] = manifest["settings"]["generator"] = generator
    manifest["settings"]["digests"] = digests
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    for out in ([], ["--out", tmp_path / "packed"]):
        code, printed = higan("rooms", "pack-study", tmp_path / "run", *out)
        assert code == 1
        assert words in printed
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
