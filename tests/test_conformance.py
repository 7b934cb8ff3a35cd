"""Sound adapters pass; every way to break the contract is found, named, and comes with a remedy."""

import dataclasses

import pytest
import torch
from torch import nn

from higan.conformance import check_generator, check_scorer, trial_images
from higan.generators.module import ModuleGenerator
from higan.generators.toy import ToyGenerator
from higan.scorers.callable import CallableScorer
from higan.scorers.colour import ColourScorer
from higan.scorers.scheme import ColourSchemeScorer
from higan.types import Concept


def problems(findings):
    for finding in findings:
        assert finding.ok == (not finding.problem)
        assert bool(finding.remedy) == bool(finding.problem)
    return {f.check: f.problem for f in findings if not f.ok}


@pytest.mark.parametrize("scorer", [ColourScorer(), ColourSchemeScorer()], ids=lambda s: s.name)
def test_sound_scorers_pass(scorer):
    findings = check_scorer(scorer)
    assert problems(findings) == {}
    assert len(findings) == 8


@pytest.mark.parametrize("shared", [True, False])
def test_sound_generators_pass(shared):
    findings = check_generator(ToyGenerator(shared_code=shared))
    assert problems(findings) == {}
    assert len(findings) == 12


TWO = (Concept("a", "object"), Concept("b", "colour"))


class Mine:
    """A scorer around any function, unchecked."""

    name = "mine"

    def __init__(self, function, concepts=TWO):
        self.concepts, self.function = concepts, function

    def score(self, images):
        return self.function(images)


def brightness(images):
    mean = images.float().mean((1, 2, 3))
    return torch.stack([mean, images[:, 0].float().mean((1, 2))], 1)


DROPOUT = nn.Dropout(0.5)
BATCH_NORM = nn.BatchNorm1d(2, affine=False)
TWICE = (Concept("a", "object"), Concept("a", "colour"))
BROKEN_SCORERS = {
    "no concepts": (Mine(brightness, ()), "concepts"),
    "a name twice": (Mine(brightness, TWICE), "concepts"),
    "columns missing": (Mine(lambda x: brightness(x)[:, :1]), "shape"),
    "whole numbers": (Mine(lambda x: brightness(x).long()), "shape"),
    "not a tensor": (Mine(lambda x: brightness(x).tolist()), "shape"),
    "raises": (Mine(lambda x: x.cosh(1, 2)), "shape"),
    "NaN on black": (Mine(lambda x: brightness(x).log() * 0), "finite"),
    "dropout left on": (Mine(lambda x: DROPOUT(brightness(x))), "repeatable"),
    "batch norm left on": (Mine(lambda x: BATCH_NORM(brightness(x)) if len(x) > 1 else brightness(x)), "batches"),
    "changes images": (Mine(lambda x: brightness(x.fill_(7)) * x.float().std() + brightness(x)), "untouched"),
    "blind": (Mine(lambda x: brightness(x) * torch.tensor([1.0, 0.0])), "sensitive"),
}


@pytest.mark.parametrize("case", BROKEN_SCORERS)
def test_broken_scorers_are_told_why(case):
    scorer, check = BROKEN_SCORERS[case]
    assert check in problems(check_scorer(scorer))


def test_fundamental_problems_stop_the_checks():
    findings = check_scorer(Mine(lambda x: x.cosh(1, 2)))
    assert [f.check for f in findings] == ["concepts", "shape"]
    assert "raises TypeError" in findings[-1].problem


def test_a_line_that_raises_behind_the_adapter_is_what_to_mend():
    broken = CallableScorer(lambda x: x.cosh(1, 2), ["a"])
    short = CallableScorer(lambda x: x.float().mean((1, 2)), ["a"])
    raised, wrong = (check_scorer(scorer)[-1] for scorer in (broken, short))
    assert "raised TypeError" in raised.problem
    assert "test_conformance.py" in raised.problem
    assert "mend the line that is named" in raised.remedy
    assert "got (8, 128)" in wrong.problem
    assert "return a float tensor (n, C)" in wrong.remedy


def test_scores_that_are_not_finite_alone_are_told():
    scorer = Mine(lambda x: brightness(x) / (len(x) - 1) * torch.tensor([1.0, 0.0]) + brightness(x))
    told = {finding.check: finding.problem for finding in check_scorer(scorer)}
    assert told["batches"].endswith("is NaN or infinite when images come one by one")


def test_a_sound_function_passes_behind_the_adapter():
    assert problems(check_scorer(CallableScorer(brightness, ["a", "b"]))) == {}


def test_trial_images_differ_and_come_in_any_number():
    images = trial_images(5, 32)
    assert images.shape == (5, 3, 32, 32)
    assert len({image.numpy().tobytes() for image in images}) == 5
    assert images[-2].max() == 0
    assert images[-1].min() == 255
    with pytest.raises(ValueError, match="at least 3"):
        check_scorer(ColourScorer(), images[:2])


class Broken(ToyGenerator):
    """A toy generator with one method or attribute replaced."""

    def __init__(self, **replaced):
        super().__init__()
        for name, value in replaced.items():
            object.__setattr__(self, name, value)


def broken(name, wrap):
    toy = ToyGenerator()
    return Broken(**{name: wrap(getattr(toy, name))})


def in_place(synthesize):
    def changed(codes):
        with torch.no_grad():
            codes.mul_(0.5)
        return synthesize(codes)

    return changed


BROKEN_GENERATORS = {
    "no layers": (lambda: Broken(num_layers=0), "sizes"),
    "truncation of another length": (lambda: Broken(truncation=torch.ones(3)), "sizes"),
    "global random numbers": (lambda: broken("latents", lambda f: lambda s: torch.randn(f(s).shape)), "latents"),
    "latents depend on neighbours": (
        lambda: broken("latents", lambda f: lambda s: f(s) + f(s).sum(0)),
        "latents",
    ),
    "one latent for all": (lambda: broken("latents", lambda f: lambda s: f([0]).expand(len(s), -1)), "latents"),
    "codes without layers": (lambda: broken("map", lambda f: lambda z: f(z)[:, 0]), "codes"),
    "NaN codes": (lambda: broken("map", lambda f: lambda z: f(z) / 0 * 0), "codes"),
    "images without colour": (lambda: broken("synthesize", lambda f: lambda c: f(c)[:, :1]), "images"),
    "bytes": (lambda: broken("synthesize", lambda f: lambda c: (f(c) + 1) * 127.5), "range"),
    "unit range": (lambda: broken("synthesize", lambda f: lambda c: (f(c) + 1) / 2), "range"),
    "fresh noise": (lambda: broken("synthesize", lambda f: lambda c: f(c) + torch.randn(()) / 99), "repeatable"),
    "looks across the batch": (lambda: broken("synthesize", lambda f: lambda c: f(c) - f(c).mean(0)), "batches"),
    "shared codes not declared": (
        lambda: broken("map", lambda f: lambda z: f(z)[:, :1].expand(-1, 6, -1)),
        "shared_code",
    ),
    "changes codes": (lambda: broken("synthesize", in_place), "untouched"),
    "a dead layer": (
        lambda: broken("synthesize", lambda f: lambda c: f(torch.cat([c[:, :2], c[:, 1:2], c[:, 3:]], 1))),
        "reach",
    ),
    "no gradients": (lambda: broken("synthesize", lambda f: lambda c: f(c.detach())), "gradients"),
    "stages that do not add up": (
        lambda: Broken(
            prepare=lambda codes, layer: codes,
            resume=lambda state, codes, layer: ToyGenerator().synthesize(state),
        ),
        "stages",
    ),
}


@pytest.mark.parametrize("case", BROKEN_GENERATORS)
def test_broken_generators_are_told_why(case):
    make, check = BROKEN_GENERATORS[case]
    assert check in problems(check_generator(make()))


def test_checking_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    check_generator(ToyGenerator())
    check_scorer(ColourScorer())
    assert torch.equal(torch.get_rng_state(), before)


def test_checking_leaves_no_gradients_in_a_network():
    network = torch.nn.Linear(4, 3 * 64)
    generator = ModuleGenerator(
        lambda codes: torch.tanh(network(codes[:, 0])).view(-1, 3, 8, 8), latent_dim=4, layer_widths=[4], resolution=8
    )
    assert not problems(check_generator(generator))
    assert network.weight.grad is None


def test_findings_are_plain_values():
    finding = check_scorer(ColourScorer())[0]
    assert dataclasses.asdict(finding) == {"check": "concepts", "problem": "", "remedy": ""}
