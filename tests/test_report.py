"""The report of toy runs, whose answers are known by hand: layer l holds concept ``planted l`` and nothing else."""

import base64
import dataclasses
import io
import re
import shutil
from html.parser import HTMLParser

import duckdb
import pytest
import torch
from PIL import Image

from higan import boundaries, population, rescoring, statistics, store
from higan import study as higan_study
from higan.errors import GeneratorError, RunError
from higan.generators.toy import ToyGenerator
from higan.layers import placements
from higan.report import figures, write_report
from higan.report import words as words_of
from higan.report.pictures import Easel, difference_uri, mask_uri, picture_uri
from higan.report.study import TARGET, study
from higan.scorers.toy import ToyScorer
from higan.types import LEVELS, Concept, SegmentClass


def make_run(path, generator, scorer, *, num=800, K=40, R=40, concepts=None):
    settings = {"num_samples": num, "shard_size": 500, "seed": 0, "generator": generator.name, "scorer": scorer.name}
    provenance = {"command": "higan run --out <here>", "versions": {"torch": "2"}}
    run = store.open_run(path, settings, provenance=provenance)
    population.fill(run, generator, scorer)
    found = boundaries.fit(store.read_population(run), concepts, mode="all")
    store.save_boundaries(run, found)
    store.save_rescoring(run, rescoring.rescore(generator, scorer, found, num=K, num_random=R))
    return run


@pytest.fixture(scope="module")
def toy():
    return ToyGenerator(), ToyScorer()


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy):
    return make_run(tmp_path_factory.mktemp("report") / "run", *toy)


@pytest.fixture(scope="module")
def easel(run, toy):
    found = store.load_rescoring(run)
    return Easel(*toy, found.concepts, found.score_std, range(2**31 + 1000, 2**31 + 1024))


@pytest.fixture(scope="module")
def html(run, toy):
    return write_report(run, *toy).read_text("utf-8")


def decode(uri):
    kind, data = uri.split(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    return image


class Page(HTMLParser):
    """What a browser would fetch, and whether every element is closed."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.fetched, self.images, self.alts, self.ids, self.open, self.errors = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.fetched += [values[name] for name in ("src", "href", "srcset", "action") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "img":
            self.images.append(values["src"])
            self.alts.append(values["alt"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(tag)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_that_fetches_nothing(html):
    page = Page(html)
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"url\(|@import|@font-face", html)
    assert all(target.startswith(("data:", "#")) for target in page.fetched)
    assert {target[1:] for target in page.fetched if target.startswith("#")} <= set(page.ids)
    assert page.errors == []
    assert page.open == []


def test_what_is_wider_than_the_page_scrolls_by_keys_too(html):
    assert html.count('<div class="scroll') == len(
        re.findall(r'<div class="scroll(?: tall)?" tabindex="0" role="group" aria-label=', html)
    )


def test_every_picture_decodes_and_has_words_for_those_who_cannot_see_it(html):
    page = Page(html)
    assert len(page.images) > 80
    assert all(page.alts)
    assert all(decode(uri).size == (8, 8) for uri in page.images)
    assert len(html) < 3_000_000


def test_the_page_shows_the_whole_table_both_nulls_and_how_sure_they_are(tmp_path, toy):
    generator, scorer = ToyGenerator(psi=0.5, psi_layers=3), toy[1]
    run = higan_study.open_study(tmp_path / "run", generator, scorer, num=400)
    higan_study.sample_step(run, generator, scorer)
    higan_study.fit_step(run)
    higan_study.rescore_step(run, generator, scorer, num=40, num_random=40)
    before = write_report(run, generator, scorer).read_text("utf-8")
    assert 'id="steps"' not in before
    higan_study.compare_step(run, generator, scorer, num=8)
    html = write_report(run, generator, scorer).read_text("utf-8")
    page = Page(html)
    assert page.errors == []
    assert 'id="steps"' in html
    assert html.count('class="chart') == before.count('class="chart') + 5
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))
    for words in ("same change of the picture", "p againstshuffled", "directions fitted to shuffled scores"):
        assert words in text
    assert "the larger of the two nulls’" in text
    found = study(run)
    assert set(found.modes) == {"official", "equal_step", "equal_change"}
    cells = re.findall(r'<td(?: class="interval")?>([^<]*)</td>', html.split("q of every concept")[1])
    shown = iter(cells)
    for entry in found.entries:
        for q in found.table.q[entry.column].tolist():
            assert next(shown) == words_of.probability(q)


def test_photographs_are_edited_beside_samples(run, toy, html, tmp_path):
    assert 'id="photographs"' not in html
    generator, scorer = toy
    pictures = population.render(generator, population.sample(generator, [5, 6]))
    page = write_report(run, generator, scorer, tmp_path / "r.html", photographs=pictures).read_text("utf-8")
    assert Page(page).errors == []
    section = page.split('id="photographs"')[1].split("</section>")[0]
    assert section.count('alt="photograph ') == 2
    rows = re.findall(r"<tr class=.*?</tr>", section, re.DOTALL)
    assert len(rows) == sum(min(len(study(run).verified(level)), 2) for level in LEVELS)
    ratios = [float(re.findall(r"<td>([^<]*)</td>", row)[2].replace("−", "-")) for row in rows]
    # The generator can draw these pictures, so that edits do to them what they do to samples.
    assert all(0.6 < ratio < 1.5 for ratio in ratios), ratios
    assert all(" – " in cell for row in rows for cell in re.findall(r"<td class=\"interval\">([^<]*)</td>", row))


def test_a_single_photograph_has_no_interval(run, toy, tmp_path):
    generator, scorer = toy
    picture = population.render(generator, population.sample(generator, [5]))
    page = write_report(run, generator, scorer, tmp_path / "r.html", photographs=picture).read_text("utf-8")
    section = page.split('id="photographs"')[1].split("</section>")[0]
    cells = re.findall(r"<td class=\"interval\">([^<]*)</td>", section)
    assert cells
    assert set(cells) == {"–"}
    assert "nan" not in section


def test_the_page_tells_the_finding_every_concept_and_how_it_was_made(html, run):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))
    found = study(run)
    assert found.sentence.replace("'", "&#39;") in text
    for name in [*(f"planted {k}" for k in range(6)), "noise", "constant"]:
        assert name in text
    assert "6 of 8 concepts are verified" in text
    assert "higan run --out &lt;here&gt;" in html
    assert "versions · torch" in text
    out = re.findall(r'<tr class="level-attribute out"><th scope="row" data-value="(\w+)"', html)
    assert sorted(out) == ["constant", "noise"]


def test_the_same_run_gives_the_same_bytes_and_nothing_else_is_left(run, toy, tmp_path, html):
    calls = []
    path = write_report(run, *toy, tmp_path / "again.html", progress=lambda done, total: calls.append((done, total)))
    assert path.read_text("utf-8") == html
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["again.csv", "again.html"]
    assert (tmp_path / "again.csv").read_bytes() == (run.path / "report.csv").read_bytes()
    assert [done for done, _ in calls] == list(range(1, calls[0][1] + 1))


def test_every_cell_is_a_line_that_duckdb_reads(run, html):
    found = store.load_rescoring(run)
    cells = statistics.table(found)
    query = f"SELECT * FROM '{run.path}/report.csv' WHERE concept = 'planted 2' AND placement = 'layer 2'"
    (row,) = duckdb.sql(query).fetchall()
    columns = [name for name, *_ in duckdb.sql(query).description]
    there = dict(zip(columns, row, strict=True))
    c, p = ([thing.name for thing in things].index(name) for things, name in (
        (found.concepts, "planted 2"), (found.placements, "layer 2")))  # fmt: skip
    assert (there["level"], str(there["layers"]), there["samples"]) == (found.concepts[c].level, "2", 40)
    assert there["verified"] is True
    assert there["null_permuted"] is None
    for name in ("delta", "low", "signed_high", "effect", "effect_low", "null", "p_random", "q"):
        assert there[name] == pytest.approx(float(getattr(cells, name)[c, p]), rel=1e-6), name
    number = duckdb.sql(f"SELECT count(*), count(DISTINCT concept) FROM '{run.path}/report.csv'").fetchall()
    assert number == [(len(found.concepts) * len(found.placements), len(found.concepts))]


def test_a_strongest_layer_that_may_be_chance_has_a_question_mark(run, toy, html, tmp_path, monkeypatch):
    found = study(run)
    first, second, *others = (entry for entry in found.entries if entry.verdict.verified)
    assert first.layer_found[first.layer]
    unsure = dataclasses.replace(second, layer_found=(False,) * found.num_layers)
    told = dataclasses.replace(found, entries=(first, unsure, *others))
    monkeypatch.setattr("higan.report.page.study", lambda _: told)
    page = write_report(run, *toy, tmp_path / "r.html").read_text("utf-8")
    assert f"layer {second.layer}?, " in page
    assert f"layer {second.layer}?, " not in html
    assert f"layer {first.layer}, " in page


def test_with_one_null_the_page_speaks_of_one(html):
    assert "shuffled" not in html.lower()
    assert "two nulls" not in html


def test_the_page_says_where_measuring_stopped_early(tmp_path, toy, html):
    assert "<dd>40<small>each under" in html
    assert "Measuring stopped" not in html
    run = make_run(tmp_path / "run", *toy, num=300)
    found = store.load_rescoring(run)
    found.changes[: len(found.concepts) // 2, :, 16:] = torch.nan
    store.save_rescoring(run, found)
    page = write_report(run, *toy).read_text("utf-8")
    assert "<dd>40<small>16 to all of them under" in page
    assert "50% of the edits were made on fewer codes, 16 at least." in page


def test_chosen_samples_are_not_called_fresh(run, toy, tmp_path):
    html = write_report(run, *toy, tmp_path / "chosen.html", seeds=[7, 8]).read_text("utf-8")
    assert set(re.findall(r"sample (\d+)", html)) == {"7", "8"}
    assert "2 chosen samples" in html
    assert "neither step has used" not in html


def test_a_failing_generator_leaves_the_old_report_alone(run, toy, html):
    class Broken(ToyGenerator):
        def synthesize(self, codes):
            raise RuntimeError("out of memory")

    with pytest.raises(GeneratorError, match=r"generator 'toy' raised RuntimeError: out of memory \(test_report\.py"):
        write_report(run, Broken(), toy[1])
    assert (run.path / "report.html").read_text("utf-8") == html


def test_other_models_than_the_runs_are_refused(run, toy):
    generator, scorer = toy
    with pytest.raises(ValueError, match="generator of 6 layers and codes of width 16; 'toy' has 5 and 16"):
        write_report(run, ToyGenerator(5), scorer)
    with pytest.raises(ValueError, match="another scorer: 'toy' does not know planted 5"):
        write_report(run, generator, ToyScorer(5))
    with pytest.raises(ValueError, match="got no seeds"):
        write_report(run, generator, scorer, seeds=[])


def test_an_unfinished_run_is_refused(tmp_path, toy):
    run = store.open_run(tmp_path / "run", {"num_samples": 10, "shard_size": 10, "seed": 0})
    with pytest.raises(RunError, match="has not been done"):
        write_report(run, *toy)


@pytest.mark.parametrize(
    ("num_layers", "resolution", "concepts"),
    [(1, 8, None), (2, 16, ["planted 1"]), (3, 8, ["noise"]), (18, 256, ["planted 3"])],
)
def test_any_depth_resolution_and_number_of_concepts(tmp_path, num_layers, resolution, concepts):
    generator, scorer = ToyGenerator(num_layers, 24, resolution), ToyScorer(num_layers, resolution)
    run = make_run(tmp_path / "run", generator, scorer, num=60, K=4, R=3, concepts=concepts)
    html = write_report(run, generator, scorer).read_text("utf-8")
    page = Page(html)
    assert page.errors == []
    assert len(html) < 3_000_000
    assert all(max(decode(uri).size) <= 192 for uri in page.images)


def test_where_a_re_scoring_begins_does_not_matter(tmp_path, toy):
    run = make_run(tmp_path / "run", *toy, num=200, K=8, R=3)
    html = write_report(run, *toy).read_text("utf-8")
    found = store.load_boundaries(run)
    places = placements(toy[0].num_layers)[::-1]
    store.save_rescoring(run, rescoring.rescore(*toy, found, num=8, num_random=3, places=places))
    turned = write_report(run, *toy).read_text("utf-8")
    rows = [re.search(r"Every number of the test.*?</table>", page, re.S)[0] for page in (html, turned)]
    assert rows[0] == rows[1]


def test_stages_are_named_as_they_are(tmp_path):
    for num_layers, words in ((1, "at the bottom layers, then"), (2, "at the bottom, top layers in turn, then")):
        toy = ToyGenerator(num_layers, 24, 16), ToyScorer(num_layers, 16)
        run = make_run(tmp_path / f"run{num_layers}", *toy, num=60, K=4, R=3)
        assert words in write_report(run, *toy).read_text("utf-8")


class Choir:
    """Every concept of a scorer many times over."""

    name = "choir"

    def __init__(self, scorer, num):
        self.scorer = scorer
        self.columns = [k % len(scorer.concepts) for k in range(num)]
        self.concepts = tuple(Concept(f"concept {k}", LEVELS[k % 4]) for k in range(num))

    def score(self, images):
        return self.scorer.score(images)[:, self.columns]


def test_150_concepts(tmp_path, toy):
    scorer = Choir(toy[1], 150)
    run = make_run(tmp_path / "run", toy[0], scorer, num=200, K=4, R=3)
    html = write_report(run, toy[0], scorer).read_text("utf-8")
    assert html.count('<th scope="row" data-value="concept ') == 150
    assert html.count('<div class="scroll tall" tabindex="0"') == 4
    assert len(html) < 3_000_000


def test_a_level_without_a_verified_concept_says_so_in_place_of_a_picture(tmp_path, toy):
    run = make_run(tmp_path / "run", *toy, num=300, K=10, R=30, concepts=["planted 0", "noise"])
    html = write_report(run, *toy).read_text("utf-8")
    absent = re.findall(r'class="absent level-(\w+)"><span class="level">.*?</span>: (.*?),', html)
    assert ("attribute", "none of 1 concept verified") in absent
    assert ("object", "no concept tried") in absent
    assert "layout" not in {level for level, _ in absent}
    assert "needs verified concepts of at least two" in html


class Renamed:
    """A scorer whose concepts have other names, numbered where they would be the same."""

    name = "renamed"

    def __init__(self, scorer, names):
        self.scorer = scorer
        pairs = zip(names, scorer.concepts, strict=True)
        self.concepts = tuple(Concept(f"{k} {name}", concept.level) for k, (name, concept) in enumerate(pairs))

    def score(self, images):
        return self.scorer.score(images)


class Halves:
    """Sees a bright or a dark half wherever a pixel is brighter or darker than mid-grey."""

    name = "halves"
    classes = (SegmentClass("dark", "stuff", (10, 20, 30)), SegmentClass("bright", "thing", (200, 100, 50)))

    def segment(self, images):
        return (images[:, 0] > 127).to(torch.uint8)


class Rooms:
    """The toy scorer, some of whose concepts are called rooms."""

    name = "rooms"

    def __init__(self, scorer):
        self.scorer = scorer
        names = ["a", *figures.CATEGORIES, "b", "c", "d", "e"]
        self.concepts = tuple(Concept(name, "object") for name in names)

    def score(self, images):
        return self.scorer.score(images)


def test_categories_are_shown_with_masks_where_a_segmenter_is_given(tmp_path, toy):
    scorer = Rooms(toy[1])
    run = make_run(tmp_path / "run", toy[0], scorer, num=300, K=10, R=40)
    assert "From one room to another" not in write_report(run, toy[0], scorer).read_text("utf-8")
    html = write_report(run, toy[0], scorer, segmenter=Halves()).read_text("utf-8")
    assert "From one room to another" in html
    assert "rgb(200, 100, 50)" in html
    assert "What became of the objects" in html
    assert Page(html).errors == []


def test_transition_pictures_raise_the_category_they_lead_to(tmp_path, toy):
    scorer = Rooms(toy[1])
    found = study(make_run(tmp_path / "run", toy[0], scorer, num=300, K=10, R=40))
    easel = Easel(toy[0], scorer, found.rescoring.concepts, found.rescoring.score_std, range(2**31, 2**31 + 4))
    drawn = figures.transition(found, easel, Halves(), num=6, samples=2)
    assert (drawn.num, len(drawn.strips), len(drawn.legs)) == (6, 2, 2)
    for strip in drawn.strips:
        start, _, second, _, third = strip.pictures
        assert [p.label for p in strip.pictures] == ["bedroom", "", "living room", "", "dining room"]
        assert start.changes == ()
        # Each category lives at a layer of its own in the toy: a leg raises its own score and leaves the others alone.
        assert [c.sigma for c in second.changes] == pytest.approx([0, 2, 0], abs=0.2)
        assert [c.sigma for c in third.changes] == pytest.approx([0, 0, 2], abs=0.2)
    assert "dark" in drawn.flow
    other = dataclasses.replace(found, run=dataclasses.replace(found.run, settings={**found.run.settings, "seed": 1}))
    again = figures.transition(other, easel, Halves(), num=6, samples=2)
    assert {strip.note for strip in again.strips}.isdisjoint(strip.note for strip in drawn.strips)


# --- figures ----------------------------------------------------------------------------------------------------------


def test_lead_pictures_move_their_own_score_in_equal_steps_to_the_target(run, easel):
    strips = figures.lead(study(run), easel)
    assert [strip.level for strip in strips] == list(LEVELS)
    for strip in strips:
        moved = [picture.changes[0].sigma if picture.changes else 0.0 for picture in strip.pictures]
        assert moved == pytest.approx([TARGET * k / 4 for k in range(5)], abs=0.05)


def test_stage_grid_moves_the_score_at_its_own_stage_only_and_frames_it(run, easel):
    own = {"planted 0": 0, "planted 1": 1, "planted 2": 1, "planted 3": 2, "planted 4": 2, "planted 5": 3}
    for strip in figures.stage_grid(study(run), easel):
        _, *stages, everywhere = strip.pictures
        for k, picture in enumerate(stages):
            here = k == own[strip.title]
            assert picture.framed == here
            assert picture.changes[0].sigma == pytest.approx(TARGET if here else 0, abs=0.05)
        assert everywhere.changes[0].sigma == pytest.approx(TARGET, abs=0.05)


def test_both_ways_goes_both_ways(run, easel):
    for strip in figures.both_ways(study(run), easel):
        for less, original, more in strip.rows:
            assert less.changes[0].sigma == pytest.approx(-TARGET, abs=0.05)
            assert original.changes == ()
            assert more.changes[0].sigma == pytest.approx(TARGET, abs=0.05)


def test_joint_edits_add_up_where_levels_do_not_share_layers(run, easel):
    for strip in figures.joint(study(run), easel):
        moved = torch.tensor([[change.sigma for change in picture.changes] for picture in strip.pictures[1:]])
        expected = TARGET * torch.cat([torch.eye(3), torch.ones(1, 3)])
        torch.testing.assert_close(moved, expected, atol=0.05, rtol=0)


def test_mixing_takes_the_last_layers_from_the_donor(run, easel, toy):
    (strip,) = figures.mixing(study(run), easel)
    mixed = decode(strip.rows[1][1].uri)
    scores = toy[1].score(
        torch.tensor(list(mixed.tobytes()), dtype=torch.uint8).reshape(1, 8, 8, 3).permute(0, 3, 1, 2)
    )
    donor, source = easel.stock.scores[0], easel.stock.scores[4]
    torch.testing.assert_close(scores[0, 5], donor[5], atol=0.02, rtol=0)
    torch.testing.assert_close(scores[0, :5], source[:5], atol=0.02, rtol=0)


def test_samples_for_pictures_lie_nearest_the_median(easel):
    column = [concept.name for concept in easel.concepts].index("planted 2")
    scores = easel.stock.scores[:, column]
    chosen = easel.typical([column], 3)
    away = (scores - scores.sort().values[11]).abs()
    assert set(chosen) == set(away.argsort()[:3].tolist())
    assert scores[easel.highest(column, 1)[0]] == scores.max()


def test_pictures_use_samples_that_the_study_did_not(run, html):
    shown = {int(seed) for seed in re.findall(r"sample (\d+)", html)}
    used = set(store.load_rescoring(run).seeds.tolist()) | set(store.read_population(run).seeds.tolist())
    assert shown
    assert not shown & used


# --- packing ----------------------------------------------------------------------------------------------------------


def test_small_pictures_are_kept_pixel_by_pixel_and_large_ones_shrunk():
    noise = torch.randint(256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor(list(decode(picture_uri(noise)).tobytes()), dtype=torch.uint8)
    assert torch.equal(kept.reshape(64, 64, 3).permute(2, 0, 1), noise)
    grey = torch.full((3, 1024, 1024), 90, dtype=torch.uint8)
    shrunk = decode(picture_uri(grey))
    assert shrunk.size == (192, 192)
    assert shrunk.getpixel((7, 9)) == (90, 90, 90)


def test_difference_maps_are_transparent_where_nothing_changed_and_opaque_from_a_quarter_of_the_range():
    before = torch.zeros(3, 1, 3, dtype=torch.uint8)
    after = before.clone()
    after[:, 0, 1], after[:, 0, 2] = 32, 64
    alpha = decode(difference_uri(before, after)).getchannel("A")
    assert [alpha.getpixel((x, 0)) for x in range(3)] == [0, pytest.approx(128, abs=9), 255]


def test_masks_have_their_classes_colours():
    picture = decode(mask_uri(torch.tensor([[0, 1]], dtype=torch.uint8), Halves.classes)).convert("RGB")
    assert [picture.getpixel((x, 0)) for x in range(2)] == [(10, 20, 30), (200, 100, 50)]


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    api = pytest.importorskip("playwright.sync_api")
    if path is None:
        pytest.skip("there is no chromium")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 1280])
def test_in_a_browser_names_of_any_length_leave_the_numbers_in_view(tmp_path, toy, browser, width):
    names = [
        "x" * 120,
        "a large and bright living room with wooden furniture, seen from the left, with plants",
        "沙发" * 30,
    ]
    scorer = Renamed(toy[1], (names * 3)[:8])
    run = make_run(tmp_path / "run", toy[0], scorer, num=300, K=10, R=30)
    write_report(run, toy[0], scorer)
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((run.path / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    names = page.evaluate(
        "[...document.querySelectorAll('table[data-sortable] tbody th')].map(e => e.getBoundingClientRect().width)"
    )
    assert max(names) < width / 2


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 1280])
def test_in_a_browser_nothing_overflows_is_fetched_or_fails_and_the_table_sorts(run, html, browser, width):
    heard = []
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url) if request.url[:5] == "http:" else None)
    page.goto((run.path / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    first = "document.querySelector('table[data-sortable] tbody th').dataset.value"
    assert page.evaluate(first) != "constant"
    page.click("table[data-sortable] thead th:first-child button")
    assert page.evaluate(first) == "constant"
    assert heard == []
