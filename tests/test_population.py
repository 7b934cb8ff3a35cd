import inspect
import os
import re
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from higan import population
from higan.errors import GeneratorError, ScorerError
from higan.generators.module import ModuleGenerator
from higan.generators.toy import ToyGenerator
from higan.scorers.toy import ToyScorer
from higan.types import Concept


def test_bytes_are_rounded_and_cut_off():
    step = 2 / 255
    values = torch.tensor([-1.5, -1.0, -1 + 0.4 * step, -1 + 0.6 * step, 0.0 + step / 2, 1.0, 7.0])
    found = population.to_uint8(values.expand(3, 1, 7))[0, 0]
    assert found.tolist() == [0, 0, 0, 1, 128, 255, 255]


def test_bytes_are_not_converted_again():
    with pytest.raises(
        ValueError, match=r"floating-point images in \[-1, 1\]; got torch.uint8: leave bytes as they are"
    ):
        inspect.unwrap(population.to_uint8)(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


def test_layers_that_are_said_to_share_a_code_must():
    apart = ModuleGenerator(
        lambda codes: codes[:, 0, :3, None, None].expand(-1, -1, 8, 8), latent_dim=4, layer_widths=(4, 4), resolution=8,
        map=lambda z: torch.stack([z, -z], 1), shared_code=True,
    )  # fmt: skip
    with pytest.raises(GeneratorError, match="says shared_code=True, but its map gives layers different codes"):
        population.measure(apart, ToyScorer(), range(4))


@settings(max_examples=20, deadline=None)
@given(batch_size=st.integers(1, 40), shared=st.booleans())
def test_batch_size_never_matters(batch_size, shared):
    generator, scorer = ToyGenerator(shared_code=shared), ToyScorer()
    whole = population.measure(generator, scorer, range(30), batch_size=30)
    parts = population.measure(generator, scorer, range(30), batch_size=batch_size)
    assert torch.equal(whole.codes, parts.codes)
    assert torch.equal(whole.scores, parts.scores)
    assert torch.equal(whole.seeds, parts.seeds)


@pytest.mark.parametrize(("shared", "rows"), [(True, 1), (False, 6)])
def test_codes_are_kept_once_where_layers_share_them(shared, rows):
    generator = ToyGenerator(shared_code=shared)
    measured = population.measure(generator, ToyScorer(), range(10), batch_size=4)
    assert measured.codes.shape == (10, rows, 16)
    assert measured.num_layers == 6
    torch.testing.assert_close(measured.codes.expand(10, 6, 16), population.sample(generator, range(10)))


def test_progress_counts_images():
    calls = []
    population.measure(ToyGenerator(), ToyScorer(), range(10), batch_size=4, progress=lambda *done: calls.append(done))
    assert calls == [(4, 10), (8, 10), (10, 10)]


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 2**24), st.integers(1, 50))
def test_seeds_for_probing_and_verification_never_meet(seed, first, num):
    probe = population.sample_seeds(num, seed=seed, first=first)
    verify = population.sample_seeds(num, seed=seed, first=first, purpose="verify")
    assert int(probe.max()) < 2**31 <= int(verify.min())
    # torch's CPU generator would take seeds that differ by 2^32 for the same.
    assert int(verify.max()) < 2**32
    assert len(set(probe.tolist())) == num


def test_default_seeds_are_the_sample_numbers():
    assert population.sample_seeds(3).tolist() == [0, 1, 2]
    assert population.sample_seeds(2, first=5).tolist() == [5, 6]


def test_no_two_runs_share_samples():
    """Whatever their seeds, their first 2^17; all of them below 128 even the first 2^24."""
    starts = {seed: int(population.sample_seeds(1, seed=seed)) for seed in range(2**14)}
    near = sorted(starts.values())
    assert min(b - a for a, b in pairwise(near)) >= 2**17
    early = sorted(starts[seed] for seed in range(128))
    assert [b - a for a, b in pairwise(early)] == [2**24] * 127
    for seed in (-1, 2**14, 10**20):
        with pytest.raises(ValueError, match=r"seed must lie in 0 … 16,383; got"):
            population.sample_seeds(1, seed=seed)


def test_images_and_codes_are_ordinary_tensors():
    generator = ToyGenerator()
    codes = population.sample(generator, range(2))
    images = population.render(generator, codes)
    images += 1
    (codes * codes.clone().requires_grad_()).sum().backward()
    assert not images.is_inference()
    assert images.dtype == torch.uint8


@pytest.mark.parametrize("num", [0, -1])
def test_no_samples_are_refused(num):
    with pytest.raises(ValueError, match="at least 1"):
        population.sample_seeds(num)
    with pytest.raises(ValueError, match="no seeds"):
        population.measure(ToyGenerator(), ToyScorer(), range(num))


@pytest.mark.parametrize("seed", [-1, 2**32, 2**32 + 5, 2**63, 2**64])
def test_seeds_that_would_give_the_sample_of_another_are_refused(seed):
    generator = ToyGenerator()
    assert not torch.equal(*population.sample(generator, [0, 2**32 - 1]))
    for call in (
        lambda: population.sample(generator, [0, seed]),
        lambda: population.measure(generator, ToyScorer(), [seed, 0]),
    ):
        with pytest.raises(ValueError, match=f"a sample's seed is a whole number of 0 to 4294967295; got {seed}$"):
            call()


def test_bad_batches_and_codes_are_refused():
    generator = ToyGenerator()
    with pytest.raises(ValueError, match="batch_size"):
        population.measure(generator, ToyScorer(), range(4), batch_size=0)
    with pytest.raises(ValueError, match=r"codes of shape \(n, 6, 16\); got \(2, 5, 16\)"):
        population.render(generator, torch.zeros(2, 5, 16))
    with pytest.raises(ValueError, match="finite"):
        population.render(generator, torch.full((2, 6, 16), torch.nan))


class Broken(ToyGenerator):
    """A toy that breaks its contract in one place."""

    def __init__(self, where, result):
        super().__init__()
        setattr(self, where, lambda *_: result)


@pytest.mark.parametrize(
    ("where", "result", "words"),
    [
        ("map", torch.zeros(2, 6, 15), r"codes of shape \(2, 6, 16\); got float32 of shape \(2, 6, 15\)"),
        ("map", torch.zeros(2, 6, 16, dtype=torch.int64), "got int64"),
        ("map", torch.full((2, 6, 16), torch.inf), "codes with NaN or infinity"),
        ("map", None, "got NoneType"),
        ("synthesize", torch.zeros(2, 1, 8, 8), r"images of shape \(2, 3, 8, 8\); got float32 of shape \(2, 1, 8, 8\)"),
        ("synthesize", torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "got uint8"),
        ("synthesize", torch.full((2, 3, 8, 8), torch.nan), "images with NaN"),
    ],
)
def test_generators_that_break_their_contract(where, result, words):
    with pytest.raises(GeneratorError, match=words):
        population.measure(Broken(where, result), ToyScorer(), range(2))


def test_pictures_that_cannot_be_scored_are_named():
    images = torch.zeros(4, 3, 8, 8)
    images[1, 0, 0, 0], images[3] = torch.nan, -torch.inf
    with pytest.raises(GeneratorError, match=r"NaN or infinity: 2 of 4 pictures \(seeds 501, 503\)$"):
        population.measure(Broken("synthesize", images), ToyScorer(), range(500, 504))
    with pytest.raises(GeneratorError, match=r"NaN or infinity: 2 of 4 pictures$"):
        population.render(Broken("synthesize", images), torch.zeros(4, 6, 16))


TWO = (Concept("one", "object"), Concept("two", "object"))


class Fixed:
    """A scorer that returns what it is given."""

    name = "fixed"

    def __init__(self, result, concepts=TWO):
        self.result = result
        self.concepts = concepts

    def score(self, images):
        return self.result


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (torch.zeros(2, 3), r"shape \(2, 2\), one column per concept; got float32 of shape \(2, 3\)"),
        (torch.zeros(2), r"of shape \(2\)"),
        (torch.zeros(2, 2, dtype=torch.int64), "got int64"),
        ([[0.0, 0.0]] * 2, "got list"),
        (torch.tensor([[0.0, 0.0], [0.0, torch.nan]]), "NaN or infinity for 'two'"),
    ],
)
def test_scorers_that_break_their_contract(result, words):
    with pytest.raises(ScorerError, match=words):
        population.measure(ToyGenerator(), Fixed(result), range(2))


def test_seeds_of_pictures_without_a_score_are_named():
    class Rare(ToyScorer):
        def score(self, images):
            scores = super().score(images)
            scores[images.long().sum((1, 2, 3)) % 3 == 0, 1] = torch.nan
            return scores

    images = population.render(ToyGenerator(), population.sample(ToyGenerator(), range(100)))
    bad = [seed for seed, image in enumerate(images) if int(image.long().sum()) % 3 == 0 and seed >= 50]
    assert len(bad) > 5
    with pytest.raises(ScorerError) as told:
        population.measure(ToyGenerator(), Rare(), range(50, 100))
    assert f"in {len(bad)} of 50 pictures (seeds {', '.join(map(str, bad[:5]))} …); guard" in str(told.value)
    assert f"for {ToyScorer().concepts[1].name!r}" in str(told.value)


MISTAKES = """
import torch, higan
from higan.boundaries import fit
from higan.population import measure, sample
from higan.rescoring import rescore

generator, scorer, net = higan.load_generator("toy"), higan.load_scorer("toy"), torch.nn.Identity()
measured = measure(generator, scorer, range(60))
boundary = fit(measured)[0]
for call in (
    lambda: measure(generator, lambda images: images, [0]),
    lambda: measure(net, scorer, [0]),
    lambda: measure(type(generator), scorer, [0]),
    lambda: measure(generator, scorer, 100),
    lambda: sample(generator, 7),
    lambda: sample(generator, [0.5]),
    lambda: measure(generator, scorer, "12"),
    lambda: measure(generator, scorer, torch.zeros(1)),
    lambda: rescore(generator, scorer, boundary, num=4),
    lambda: rescore(generator, net, [boundary], num=4),
    lambda: fit(measured, "red"),
    lambda: higan.load_generator(generator),
    lambda: higan.load_scorer(print),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""
TOLD = [
    r"expected a scorer, .* got function\. .* higan\.scorers\.callable\.CallableScorer",
    r"expected a generator, .* got Identity\. .* higan\.generators\.module\.from_module",
    r"expected a generator, .* got the class ToyGenerator",
    r"seeds must be a sequence of whole numbers, such as range\(100\); got 100",
    r"seeds must be a sequence of whole numbers, such as range\(100\); got 7",
    r"seeds must be a sequence of whole numbers, such as range\(100\); got \[0.5\]",
    r"seeds must be a sequence of whole numbers, such as range\(100\); got '12'",
    r"seeds must be a sequence of whole numbers, such as range\(100\); got tensor",
    r"boundaries must be a sequence; got the one of '.+' alone: write \[boundary\]",
    r"expected a scorer, .* got Identity",
    r"concepts must be a sequence of names; got one text: write \['red'\]",
    r"expected the name or file of a generator; got ToyGenerator",
    r"expected the name or file of a scorer; got builtin_function_or_method\. .*CallableScorer",
]


def test_plausible_mistakes_are_one_clear_error_each():
    # In a process of its own, since under pytest annotations refuse wrong types before.
    line = [sys.executable, "-c", MISTAKES]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert len(printed) == len(TOLD)
    for found, told in zip(printed, TOLD, strict=True):
        assert re.match(told, found), found


def test_scorers_must_name_things_once():
    same = Concept("one", "object")
    with pytest.raises(ScorerError, match="twice: one"):
        population.measure(ToyGenerator(), Fixed(torch.zeros(2, 2), (same, same)), range(2))
    with pytest.raises(ScorerError, match="no concepts"):
        population.measure(ToyGenerator(), Fixed(torch.zeros(2, 0), ()), range(2))


def test_half_precision_is_accepted():
    class Half(ToyGenerator):
        def synthesize(self, codes):
            return super().synthesize(codes).half()

    measured = population.measure(Half(), Fixed(torch.zeros(2, 2).half()), range(2))
    assert measured.scores.dtype == torch.float32
