"""A study from the command line, from build to analysis; what the analysis page carries."""

import csv
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from higan.types import LEVELS
from higan.userstudy.analysis import analyse
from higan.userstudy.answers import Answers
from higan.userstudy.files import FORMAT
from higan.userstudy.folder import open_study
from higan.userstudy.page import headline, write_analysis
from higan.userstudy.raters import simulate
from userstudies import STAGES, make_run, make_study

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def user_study(higan):
    return lambda *words: higan("user-study", *words)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("cli") / "run")[0].path


def test_from_a_run_to_an_analysis(user_study, run, tmp_path):
    folder = tmp_path / "study"
    code, printed = user_study("build", run, "--out", folder, "--repeats", 1, "--seed", 5)
    assert code == 0, printed
    assert re.search(r"92 pictures, about \d+ seconds? on this machine", printed)
    assert "22 trials a rater (16 edits, 6 catch trials); 8 raters see every edit 2 times" in printed
    code, printed = user_study("analyse", folder)
    assert code == 2
    assert "no answers of people can be counted: 0 have answered" in printed
    code, printed = user_study("simulate", folder, "--raters", 6, "--lapse", 0.05, "--careless", 0)
    assert code == 0
    assert "6 SIMULATED raters added" in printed
    code, printed = user_study("analyse", folder, "--simulated", "--resamples", 50)
    assert code == 0, printed
    assert "SIMULATED raters: no person took part." in printed
    assert "Simulated raters most often name layout at bottom" in printed
    # Nothing that holds simulated answers can be mistaken for people's.
    for name in ("analysis-simulated.html", "answers-simulated.csv", "estimates-simulated.csv"):
        assert "simulated" in (folder / name).read_text("utf-8-sig")
    assert not (folder / "analysis.html").exists()

    study = open_study(folder)
    trials = study.block(0)
    file = tmp_path / "answers.json"
    answers = [{"trial": t.id, "choice": t.what.source if t.stage else t.accepted[0], "seconds": 2} for t in trials]
    rater = {"format": FORMAT, "study": study.id, "rater": "ab" * 16, "nickname": HOSTILE, "block": 0}
    file.write_text(json.dumps(rater | {"answers": answers}))
    for expected in ("22 new answers", "0 new answers"):
        code, printed = user_study("import", folder, file)
        assert code == 0
        assert expected in printed
    code, printed = user_study("progress", folder)
    assert HOSTILE in printed
    assert "22 of 22" in printed
    code, printed = user_study("analyse", folder, "--resamples", 50, "--out", tmp_path / "new" / "people.html")
    assert code == 0, printed
    assert "SIMULATED" not in printed
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new" / "people-answers.csv").read_text("utf-8-sig"))))
    assert len(rows) == 22
    assert {row["origin"] for row in rows} == {"file"}

    code, printed = user_study("export", folder, "--out", tmp_path / "web" / "web.zip")
    assert code == 0
    assert "index.html#block=1" in printed
    assert (tmp_path / "web" / "web.zip").stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["analyse", "STUDY", "--out", "STUDY"], 2, "--out must end in .html"),
        (["build", "NOWHERE", "--out", "OUT"], 1, "is no run folder"),
        (["build", "RUN", "--out", "OUT", "--repeats", "0"], 2, "repeats must be at least 1; got 0"),
        (["build", "RUN", "--out", "STUDY/manifest.json/x"], 2, "is a file, no folder"),
        (["build", "RUN", "--out", "OUT", "--along", "up"], 2, "'up' is not one of"),
        (["serve", "OUT"], 1, "is no study folder"),
        (["forget", "STUDY", "1"], 2, "there is no rater 1"),
        (["serve", "STUDY", "--port", "99999"], 2, "a port lies between 0 and 65535"),
        (["serve", "STUDY", "--host", "0.0.0.0", "--token", "short"], 2, "a token needs at least 16"),
        (["analyse", "OUT"], 1, "is no study folder"),
        (["import", "STUDY", "missing.json"], 1, "missing.json"),
        (["simulate", "STUDY", "--raters", "0"], 2, "num must be at least 1"),
        (["simulate", "STUDY", "--raters", "10001"], 1, "has 0; 10,001 more were asked for, and none was added"),
        (["export", "STUDY", "--out", "STUDY"], 1, "exists already"),
        (["export", "STUDY", "--out", "OUT.tar"], 2, "ends in .zip; got OUT.tar"),
    ],
)
def test_bad_input_is_one_clear_line(user_study, run, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    make_study(tmp_path / "STUDY")
    status, printed = user_study(*(run if word == "RUN" else word for word in words))
    assert status == code, printed
    assert message in printed
    assert "Traceback" not in printed
    assert not [*tmp_path.glob("OUT*")]
    with Answers(open_study(tmp_path / "STUDY")) as answers:
        assert not answers.raters()


# --- the page ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.errors, self.fetched, self.names = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.names.append(tag)
        self.fetched += [values[name] for name in ("src", "href", "action") if name in values]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(tag)


def written(folder, *, simulated, **options):
    with Answers(make_study(folder / "study", **options)) as answers:
        if simulated:
            mapping = {stage: {level: 1.0} for stage, level in zip(STAGES, LEVELS, strict=True)}
            simulate(answers, 9, mapping, careless=0.2, seed=1)
        else:
            for k, name in enumerate([HOSTILE, "=1+1", "Ada"]):
                rater, _ = answers.join(name)
                given = {t.id: ("nothing" if t.stage else t.accepted[0], 1.0) for t in answers.study.block(k)}
                answers.record_all(rater, given)
        found = analyse(answers, simulated=simulated, num_resamples=40, sizes=(2, 8))
        return found, write_analysis(found, answers, folder / "analysis.html")


@pytest.mark.parametrize("simulated", [True, False])
def test_the_page_is_one_file_whole_and_marked(tmp_path, simulated):
    found, (path, answers, estimates) = written(tmp_path, simulated=simulated)
    text = path.read_text("utf-8")
    page = Page(text)
    assert page.errors == []
    assert page.open == []
    assert page.fetched == ["data:,"]
    assert "script" not in page.names
    assert not re.search(r"https?:|url\(|@import|nan", text)
    assert ("No person took part" in text) == simulated
    assert ("SIMULATED" in text) == simulated
    marked = re.findall(r"<h2>.*?</h2>", text)
    # Three people are too few to foretell other studies from.
    assert len(marked) == (6 if simulated else 5)
    assert ("How many raters are needed" in text) == ("±10 points" in text) == simulated
    assert ("From 4 counted raters on" in text) == (not simulated)
    assert all(("simulated raters" in head) == simulated for head in marked)
    assert headline(found) in re.sub(r"\s+", " ", text)
    if not simulated:
        assert HOSTILE not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert headline(found) == "People see no change of any level at any stage."
        assert found.agreement.twice
        assert "all gave the same answer" in text
        assert "no edit was rated twice" not in text
    rows = list(csv.DictReader(io.StringIO(estimates.read_text("utf-8-sig"))))
    assert {row["raters"] for row in rows} == {"simulated" if simulated else "people"}
    given = list(csv.DictReader(io.StringIO(answers.read_text("utf-8-sig"))))
    passed = Counter(row["rater"] for row in given if row["passed"] == "1")
    assert all((row["counted"] == "1") == (passed[row["rater"]] >= 5) for row in given)
    assert {row["counted"] for row in given} == ({"0", "1"} if simulated else {"1"})
    counted = Counter(row["stage"] for row in given if row["counted"] == "1")
    assert [counted[stage] for stage in STAGES] == list(found.answers)
    shares = [row for row in rows if row["table"] == "share of answers"]
    assert len(shares) == 20
    for stage in STAGES:
        assert sum(float(row["value"]) for row in shares if row["row"] == stage) == pytest.approx(1, abs=1e-4)
    assert answers.name == ("answers-simulated.csv" if simulated else "answers.csv")


@pytest.mark.parametrize("num", [1, 2])
def test_one_rater_is_not_taken_for_many(tmp_path, num):
    with Answers(make_study(tmp_path / "study")) as answers:
        seen = {"bottom": "layout", "lower": "object", "upper": "attribute", "top": "nothing"}
        simulate(answers, num, {stage: {choice: 1.0} for stage, choice in seen.items()}, lapse=0.0)
        found = analyse(answers, simulated=True, num_resamples=40)
        text = write_analysis(found, answers, tmp_path / "analysis.html")[0].read_text("utf-8")
    assert ("for no other raters" in text) == (num == 1)
    # Where no level is in front, how often that is so in resamples is nothing to be sure of.
    for stage, named in zip(STAGES, found.comparison.people, strict=True):
        row = re.search(rf"<tr><th scope=\"row\">{stage}</th><td class=\"left.*?</tr>", text)[0]
        assert ("<td>–</td>" in row) == (named is None)
    # Whoever has no mouse scrolls a table that is wider than the page by keys.
    assert text.count('<div class="scroll"') == text.count('<div class="scroll" tabindex="0" role="group" aria-label=')


def test_the_finding_gathers_stages(tmp_path):
    found, _ = written(tmp_path, simulated=True)
    assert headline(found) == (
        "Simulated raters most often name layout at bottom, objects at lower, attributes at upper and colour scheme at "
        "top; the re-scoring says the same at 4 of 4 stages."
    )


def test_pages_side_by_side_keep_their_own_tables(tmp_path):
    found, _ = written(tmp_path, simulated=True)
    with Answers(open_study(tmp_path / "study")) as answers:
        first = write_analysis(found, answers, tmp_path / "first.html")
        kept = [path.read_bytes() for path in first]
        simulate(answers, 1, seed=2)
        second = write_analysis(analyse(answers, simulated=True, num_resamples=40), answers, tmp_path / "second.html")
    assert [path.name for path in second[1:]] == ["second-answers-simulated.csv", "second-estimates-simulated.csv"]
    assert [path.read_bytes() for path in first] == kept


def test_studies_without_catch_trials_or_of_random_directions_have_pages_too(tmp_path):
    _, (path, *_) = written(tmp_path, simulated=True, sources=("random",), repeats=4, num_catches=0)
    text = path.read_text("utf-8")
    assert "The study has no catch trials" in text
    assert "Is the level seen that the edit was meant to change" not in text
    assert Page(text).errors == []


def test_raters_simulated_later_are_others(tmp_path):
    with Answers(make_study(tmp_path / "study")) as answers:
        first = [answers.of(rater) for rater in simulate(answers, 2)]
        later = simulate(answers, 2)
        assert [rater.nickname for rater in later] == ["simulated 3", "simulated 4"]
        assert [rater.block for rater in later] == [2, 3]
        assert [answers.of(rater) for rater in later] != first
        rater, _ = answers.join()
        assert (rater.number, rater.block) == (4, 0)
