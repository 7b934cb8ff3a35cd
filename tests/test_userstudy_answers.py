"""Answers are kept once, at once, and for good; what comes from outside is harmless."""

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from higan.errors import UserStudyError
from higan.userstudy.answers import Answers, nickname_of
from higan.userstudy.design import CHOICES
from higan.userstudy.files import FORMAT, import_file
from higan.userstudy.raters import planted, simulate
from higan.userstudy.table import to_csv
from userstudies import make_study

HOSTILE = ["=HYPERLINK(\"http://x\";\"y\")", "+1", "-1", "@SUM(A1)", "  =1", "<script>alert(1)</script>", "'; DROP TABLE raters; --"]  # fmt: skip


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study")


def test_an_answer_is_kept_once_and_the_first_one_stays(study):
    with Answers(study) as answers:
        rater, token = answers.join("Ada")
        trials = study.block(rater.block)
        assert answers.record(rater, trials[0].id, "layout", 2.5) == "layout"
        assert answers.record(rater, trials[0].id, "layout", 9.0) == "layout"
        assert answers.record(rater, trials[0].id, "colour") == "layout"
        assert [(g.rater, g.trial, g.choice, g.seconds) for g in answers.all()] == [(0, trials[0].id, "layout", 2.5)]
    with Answers(study) as answers:
        found = answers.find(token)
        assert (found.number, found.nickname, found.answered) == (0, "Ada", 1)
        assert answers.of(found) == {trials[0].id: "layout"}
        assert answers.find(token + "x") is None


def test_raters_get_blocks_in_turn_and_links_nobody_else_holds(study):
    with Answers(study) as answers:
        joined = [answers.join() for _ in range(5)]
        assert [rater.block for rater, _ in joined] == list(range(5))
        assert len({token for _, token in joined}) == 5
        assert [rater.nickname for rater in answers.raters()] == [f"rater {k}" for k in range(1, 6)]
    stored = (study.path / "answers.sqlite").read_bytes()
    assert not any(token.encode() in stored for _, token in joined)


def test_nothing_is_stored_about_a_person_but_nickname_answers_and_how_long_they_took(study):
    with Answers(study):
        pass
    db = sqlite3.connect(study.path / "answers.sqlite")
    columns = {
        table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        for table in ("raters", "answers", "forgotten")
    }
    db.close()
    assert columns == {
        "raters": ["number", "block", "token", "nickname", "origin"],
        "answers": ["rater", "trial", "choice", "seconds"],
        "forgotten": ["number"],
    }


def test_a_rater_can_be_forgotten(study):
    with Answers(study) as answers:
        for name in ("Ada", "Zebulon the forgotten", "Grace"):
            rater, token = answers.join(name)
            answers.record(rater, study.block(rater.block)[0].id, "layout")
        answers.forget(1)
        assert [(rater.number, rater.nickname) for rater in answers.raters()] == [(0, "Ada"), (2, "Grace")]
        assert {given.rater for given in answers.all()} == {0, 2}
        assert answers.find(token).nickname == "Grace"
        assert answers.join("Edith")[0].number == 3
        with pytest.raises(ValueError, match="there is no rater 2"):
            answers.forget(1)
    assert not [path for path in study.path.glob("answers*") if b"Zebulon" in path.read_bytes()]


def test_the_number_of_somebody_forgotten_is_never_given_again(study):
    with Answers(study) as answers:
        for name in ("Ada", "Grace", "Zoe"):
            answers.join(name)
        answers.forget(2)
    with Answers(study) as answers:
        assert answers.join("Edith")[0].number == 3
        with pytest.raises(ValueError, match="there is no rater 3"):
            answers.forget(2)
        for number in (0, 1, 3):
            answers.forget(number)
        assert answers.join("Mary")[0].number == 4


def test_files_from_before_numbers_were_kept_go_on(study):
    with Answers(study) as answers:
        answers.join("Ada")
    db = sqlite3.connect(study.path / "answers.sqlite")
    db.execute("DROP TABLE forgotten")
    db.close()
    with Answers(study) as answers:
        answers.forget(answers.join("Grace")[0].number)
        assert answers.join("Edith")[0].number == 2


def test_who_was_forgotten_is_replaced_in_their_block(study):
    with Answers(study) as answers:
        for _ in range(5):
            answers.join()
        answers.forget(1)
        answers.forget(3)
        assert [answers.join()[0].block for _ in range(3)] == [1, 3, 5]
        assert answers.join(origin="simulated")[0].block == 0


def test_what_is_no_answer_is_refused(study):
    with Answers(study) as answers:
        rater, _ = answers.join()
        mine = {trial.id for trial in study.block(0)}
        foreign = next(trial.id for trial in study.design.edits if trial.id not in mine)
        with pytest.raises(ValueError, match="not among those of this rater"):
            answers.record(rater, foreign, "layout")
        with pytest.raises(ValueError, match="one of layout, object, attribute, colour, nothing; got 'all'"):
            answers.record(rater, min(mine), "all")
        with pytest.raises(ValueError, match="not among"):
            answers.record_all(rater, {min(mine): ("layout", None), foreign: ("layout", None)})
        for seconds in (-1.0, float("nan"), 1e9):
            answers.record(rater, min(mine), "layout", seconds)
        assert [given.seconds for given in answers.all()] == [None]


def test_files_that_are_not_this_study_s_answers_are_refused(study, tmp_path):
    other = make_study(tmp_path / "other", seed=8)
    with Answers(other):
        pass
    (other.path / "answers.sqlite").rename(study.path / "answers.sqlite")
    with pytest.raises(UserStudyError, match="answers of another study"):
        Answers(study)
    (study.path / "answers.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(UserStudyError, match="cannot be used"):
        Answers(study)


def test_raters_at_the_same_time_lose_nothing(study):
    with Answers(study) as answers, Answers(study) as second:
        failures = []

        def rate(store):
            try:
                rater, _ = store.join()
                for trial in study.block(rater.block):
                    store.record(rater, trial.id, CHOICES[rater.number % 5])
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=rate, args=(store,)) for store in (answers, second) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert [rater.answered for rater in answers.raters()] == [study.design.num_trials] * 8
        assert sorted(rater.block for rater in answers.raters()) == list(range(8))


WRITER = """
import sys
from higan.userstudy.answers import Answers
from higan.userstudy.folder import open_study
study = open_study(sys.argv[1])
with Answers(study) as answers:
    while True:
        rater, token = answers.join()
        print("rater", rater.number, token, flush=True)
        for trial in study.block(rater.block):
            print("answer", rater.number, trial.id, answers.record(rater, trial.id, "colour"), flush=True)
"""


@pytest.mark.parametrize("after", [1, 50])
def test_killed_in_the_middle_of_writing_nothing_acknowledged_is_lost(study, after):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(study.path)], stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline() for _ in range(after)]
    os.kill(process.pid, signal.SIGKILL)
    lines += process.stdout.read().splitlines()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    told = [line.split() for line in lines if line.count(" ") in (2, 3)]
    assert len(told) >= after
    with Answers(study) as answers:
        kept = {(str(given.rater), given.trial): given.choice for given in answers.all()}
        for kind, number, *rest in told:
            if kind == "rater":
                assert answers.find(rest[0]).number == int(number)
            elif len(rest) == 2:
                assert kept[number, rest[0]] == rest[1]
        assert answers.record(answers.raters()[0], study.block(0)[-1].id, "colour") == "colour"


# --- nicknames and tables ---------------------------------------------------------------------------------------------


@given(st.text())
@settings(max_examples=60, deadline=None)
def test_nicknames_are_one_short_line(typed):
    kept = nickname_of(typed)
    assert len(kept) <= 40
    assert kept == kept.strip()
    assert kept.isprintable()
    assert nickname_of(kept) == kept


def test_nicknames_lose_what_could_disturb_a_page():
    assert nickname_of("  A\tda \u202e\x00\u200b Lovelace\n") == "A da Lovelace"
    assert nickname_of("Zoë 李 🎨") == "Zoë 李 🎨"


def test_a_spreadsheet_has_nothing_to_execute(study):
    with Answers(study) as answers:
        for name in HOSTILE:
            rater, _ = answers.join(name)
            for trial in study.block(rater.block)[:8]:
                answers.record(rater, trial.id, "nothing", 1.25)
        text = to_csv(answers)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 8 * len(HOSTILE)
    words = {row["nickname"] for row in rows}
    assert not any(word.lstrip().startswith(("=", "+", "-", "@")) for word in words)
    assert "<script>alert(1)</script>" in words
    assert {row["origin"] for row in rows} == {"server"}
    trials = study.design.trials
    for row in rows:
        trial = trials[row["trial"]]
        assert row["stage"] == (trial.stage or "")
        assert row["passed"] == ("" if trial.catch is None else str(int("nothing" in trial.accepted)))
        assert row["seconds"] == "1.25"


# --- answer files -----------------------------------------------------------------------------------------------------


def answer_file(path, of, num=5, seen=3, **changes):
    data = {
        "format": FORMAT, "study": of.id, "rater": "0123456789abcdef" * 2, "nickname": "Grace", "block": seen,
        "answers": [{"trial": trial.id, "choice": "object", "seconds": 3} for trial in of.block(seen)[:num]],
    }  # fmt: skip
    path.write_text(json.dumps(data | changes))
    return path


def test_a_file_is_taken_over_once_and_a_fuller_one_adds_what_is_new(study, tmp_path):
    with Answers(study) as answers:
        done = import_file(answers, answer_file(tmp_path / "a.json", study))
        assert (done.rater.nickname, done.rater.origin, done.rater.block, done.new, done.known) == (
            "Grace", "file", 3, 5, 0,
        )  # fmt: skip
        assert import_file(answers, tmp_path / "a.json").new == 0
        again = import_file(answers, answer_file(tmp_path / "b.json", study, 9))
        assert (again.new, again.known) == (4, 5)
        assert [rater.answered for rater in answers.raters()] == [9]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "no answer file of format"),
        ({"study": "f" * 16}, "belongs to another study"),
        ({"rater": "x"}, "which rater"),
        ({"rater": None}, "which rater"),
        ({"nickname": ["x"]}, "which rater"),
        ({"block": -1}, "which block"),
        ({"block": True}, "which block"),
        ({"block": 10**30}, "which block"),
        ({"answers": {}}, "no list of answers"),
        ({"answers": [1]}, "lacks its trial or choice"),
        ({"answers": [{"trial": "x", "choice": "object"}]}, "not among those of this rater; nothing was taken over"),
    ],
)
def test_bad_files_are_refused_whole(study, tmp_path, changes, message):
    with Answers(study) as answers:
        with pytest.raises(UserStudyError, match=message):
            import_file(answers, answer_file(tmp_path / "a.json", study, **changes))
        assert answers.raters() == ()


def test_files_that_hold_something_else_are_refused(study, tmp_path):
    with Answers(study) as answers:
        for content, message in [
            (b"\x89PNG", "not JSON"),
            (b"[" * 100_000, "not JSON"),
            (b"[]", "no answer file of format"),
            (b" " * ((4 << 20) + 1), "larger than 4 MiB"),
        ]:
            (tmp_path / "x.json").write_bytes(content)
            with pytest.raises(UserStudyError, match=message):
                import_file(answers, tmp_path / "x.json")
        good = json.loads(answer_file(tmp_path / "x.json", study).read_text())
        good["answers"] += good["answers"][:1]
        (tmp_path / "x.json").write_text(json.dumps(good))
        with pytest.raises(UserStudyError, match="answers a trial twice"):
            import_file(answers, tmp_path / "x.json")
        good["answers"] = [good["answers"][0] | {"seconds": 10**400}]
        (tmp_path / "x.json").write_text(json.dumps(good))
        assert import_file(answers, tmp_path / "x.json").new == 1
        with pytest.raises(UserStudyError, match="another block"):
            import_file(answers, answer_file(tmp_path / "y.json", study, seen=0))
        assert answers.all()[0].seconds is None


# --- simulated raters -------------------------------------------------------------------------------------------------


def test_simulated_raters_are_marked_and_repeatable(study, tmp_path):
    with Answers(study) as answers:
        simulate(answers, 3, seed=4)
        rows = list(csv.DictReader(io.StringIO(to_csv(answers))))
        assert {row["origin"] for row in rows} == {"simulated"}
        assert len(rows) == 3 * study.design.num_trials
        first = [(g.trial, g.choice) for g in answers.all()]
    again = make_study(tmp_path / "again")
    with Answers(again) as answers:
        simulate(answers, 3, seed=4)
        assert [(g.trial, g.choice) for g in answers.all()] == first
        for options, message in [
            ({"num": 0}, "num must be at least 1"),
            ({"num": 1, "lapse": 2.0}, "shares between 0 and 1"),
            ({"num": 1, "mapping": {"bottom": {"layout": 1.0}}}, "at stage 'lower'"),
            ({"num": 1, "mapping": {"bottom": {"layout": -1.0}}}, "at stage 'bottom'"),
        ]:
            with pytest.raises(ValueError, match=message):
                simulate(answers, **options)
    mapping = planted(again.expected)
    assert mapping["lower"] == pytest.approx(
        {"nothing": 0.15, "layout": 0.085, "object": 0.595, "attribute": 0.085, "colour": 0.085}
    )
