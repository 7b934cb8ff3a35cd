"""Edits as text, their contradictions, and recipes that survive the way into a file and back."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from higan.errors import CorruptFileError
from higan.layers import parse_layers
from higan.recipes import Instruction, Loan, Move, Recipe, check_consistent, digest_of_normal, format_layers, parse
from higan.types import Boundary, Concept

L = 10
LEVELS = {"wood": "attribute", "clutter": "attribute", "living_room": "object", "planted 0": "layout"}
BOUNDARIES = {
    name: Boundary(
        Concept(name, level), torch.nn.functional.one_hot(torch.tensor(k), 4).float(), torch.tensor(0.0), 0.9
    )
    for k, (name, level) in enumerate(LEVELS.items())
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("indoor_lighting=+2", Instruction("indoor_lighting", 2.0)),
        ("view_yaw=-1.5@0-1", Instruction("view_yaw", -1.5, layers=(0, 1))),
        ("category:living_room=+3@2-5", Instruction("living_room", 3.0, layers=(2, 3, 4, 5), level="object")),
        ("colour:warm = .5", Instruction("warm", 0.5, level="colour")),
        ("wood=+1.5s", Instruction("wood", 1.5, "sigmas")),
        ("wood=−1.5σ@top", Instruction("wood", -1.5, "sigmas", layers=(8, 9))),
        ("wood=>2.3", Instruction("wood", 2.3, "at least")),
        ("wood=<-1e-1@3,5", Instruction("wood", -0.1, "at most", layers=(3, 5))),
        ("planted 0=1", Instruction("planted 0", 1.0)),
        ("my:name=1", Instruction("my:name", 1.0)),
        ("a=b=+1s", Instruction("a=b", 1.0, "sigmas")),
    ],
)
def test_reading_an_edit(text, expected):
    assert parse(text, L) == expected


@pytest.mark.parametrize("text", ["", "wood", "wood=", "=2", "wood=two", "wood=2@", "wood==2", "wood=2 3", "wood=inf"])
def test_what_is_no_edit(text):
    with pytest.raises(ValueError, match=r"written as|layers are written"):
        parse(text, L)


def test_what_a_shell_has_taken_is_guessed():
    with pytest.raises(ValueError, match="put it in quotes, for shells take > and < to themselves"):
        parse("wood=", L)
    with pytest.raises(ValueError, match=r"cannot read 'wood=two'$"):
        parse("wood=two", L)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wood=1@10", "layers go from 0 to 9"),
        ("wood=1@5-2", "did you mean 2-5"),
        ("wood=>2s", "without s"),
        ("wood=1e999", "finite"),
    ],
)
def test_bad_amounts_and_layers(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text, L)


names = st.text("abc_ 0:", min_size=1).map(str.strip).filter(lambda n: n and ":" not in n)
# Tuples, made into instructions by the test: runtime type checks draw random numbers, which strategies must not.
instructions = st.tuples(
    names,
    st.integers(-400, 400).map(lambda n: n / 8),
    st.sampled_from(["steps", "sigmas", "at least", "at most"]),
    st.none() | st.sets(st.integers(0, L - 1), min_size=1).map(lambda s: tuple(sorted(s))),
    st.none() | st.sampled_from(["layout", "object", "attribute", "colour"]),
)


@settings(deadline=None, max_examples=50)
@given(instructions)
def test_an_instruction_reads_as_it_is_written(drawn):
    instruction = Instruction(*drawn)
    assert parse(str(instruction), L) == instruction


@settings(deadline=None, max_examples=50)
@given(st.sets(st.integers(0, 30), min_size=1))
def test_layers_read_as_they_are_written(layers):
    assert parse_layers(format_layers(sorted(layers))) == tuple(sorted(layers))


@pytest.mark.parametrize(
    ("edits", "conditions", "words"),
    [
        (["nope=1"], [], "unknown concept 'nope'; there are boundaries for: wood"),
        (["wood=1"], ["nope"], "unknown concept 'nope'"),
        (["object:wood=1"], [], "'wood' is of level attribute, not object"),
        (["wood=1"], ["wood"], "cannot be edited and left alone"),
        (["wood=1", "wood=-1"], [], "edited 2 times; say which layers"),
        (["wood=1@0-3", "wood=-1@3,4"], [], "edited twice at layer 3"),
        (["wood=>1", "clutter=<1"], [], "one score at a time .* clutter, wood"),
    ],
)
def test_contradictions_are_refused_in_any_order(edits, conditions, words):
    for order in (edits, edits[::-1]):
        with pytest.raises(ValueError, match=words):
            check_consistent([parse(e, L) for e in order], BOUNDARIES, conditions)


def test_one_concept_on_different_layers_is_no_contradiction():
    check_consistent([parse(e, L) for e in ("wood=1@0-3", "wood=-1@4", "clutter=>1")], BOUNDARIES, ["living_room"])


moves = st.tuples(
    st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers(0, 20)).map(tuple),
    st.text("0123456789abcdef", max_size=64),
)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.lists(moves, max_size=3), st.lists(st.integers(0, 9), max_size=2), st.text())
def test_recipes_survive_json(seed, drawn, layers, word):
    recipe = Recipe(
        word,
        "ab",
        (0.7, 1.0),
        seed,
        None,
        (Loan(3, tuple(layers)),),
        tuple(Move(*d) for d in drawn),
        (word,),
        (word, "x"),
        {"label": "3", word: word},
    )
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_recipes_start_somewhere():
    for seed, codes in ((None, None), (1, "abc")):
        with pytest.raises(ValueError, match="either a seed or a file of codes"):
            Recipe("g", "", (1.0,), seed, codes)


def test_recipes_of_before_do_not_say_how_the_generator_was_opened():
    values = json.loads(Recipe("g", "", (1.0,), 1, opened={"label": "3"}).to_json())
    del values["opened"]
    assert Recipe.from_json(json.dumps(values)) == Recipe("g", "", (1.0,), 1)


def forged(**changes):
    return json.dumps({**json.loads(Recipe("g", "", (1.0,), 1).to_json()), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '{"format": "other"}', "[" * 100_000, forged(seed="x"), forged(truncation=[None]),
        forged(moves=[{"concept": "a", "strength": "inf", "layers": [0], "normal": ""}]), forged(loans=3),
        forged(opened=["label"]),
    ],
)  # fmt: skip
def test_what_is_no_recipe(text):
    with pytest.raises(CorruptFileError):
        Recipe.from_json(text)


def test_digests_tell_normals_apart():
    assert len({digest_of_normal(b) for b in BOUNDARIES.values()}) == len(BOUNDARIES)
