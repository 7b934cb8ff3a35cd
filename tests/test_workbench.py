"""From text to pictures, on the toy pair, where one step along a planted direction raises its score by ψ."""

import dataclasses

import pytest
import torch
from adapters import FAMILIES

from higan import load_generator, population, workbench
from higan.editing import apply
from higan.errors import RunMismatchError
from higan.generators.biggan import BigGANConfig, BigGANNetwork
from higan.generators.module import ModuleGenerator
from higan.generators.pretrained import wrap
from higan.generators.toy import ToyGenerator
from higan.layers import placements
from higan.recipes import Loan, Recipe
from higan.rescoring import rescore
from higan.scorers.toy import ToyScorer
from higan.statistics import standard_errors
from higan.types import Boundary, Concept, Placement, Rescoring
from higan.workbench import OutOfReachError, Workbench, amounts, edit, in_series, plan, plans, reach, recommend, repeat

G, S = ToyGenerator(4, 8, psi=0.7, psi_layers=2), ToyScorer(4)
BOUNDARIES = {
    concept.name: Boundary(concept, G.directions[k], torch.tensor(0.0), 1.0) for k, concept in enumerate(S.concepts[:4])
}


@pytest.fixture(scope="module")
def bench():
    found = rescore(G, S, list(BOUNDARIES.values()), num=40, num_random=3)
    return Workbench(G, BOUNDARIES, S, found, "weights")


def scores(images):
    return population.score(S, images)


def test_steps_raise_the_score_by_truncation_times_steps(bench):
    made = edit(bench, ["planted 0=+2@0", "planted 3=-1@3"], seed=7)
    before = scores(population.render(G, population.sample(G, [7])))
    change = scores(made.image[None]) - before
    torch.testing.assert_close(change[0, :4], torch.tensor([1.4, 0.0, 0.0, -1.0]), atol=0.03, rtol=0)


def test_order_does_not_matter(bench):
    edits = ["planted 0=+2", "planted 1=-1s", "planted 2=>1.5", "planted 3=+.5@1-2"]
    first, second = edit(bench, edits, seed=1), edit(bench, edits[::-1], seed=1)
    assert torch.equal(first.image, second.image)
    assert first.recipe == second.recipe


def test_planted_layers_are_recommended(bench):
    # Only layer k controls score k, so that any larger set does the same with more room for side effects.
    for k in range(4):
        assert k in recommend(bench.rescoring, f"planted {k}").layers


def made_up(wanted, unwanted, step=2.0):
    """Two concepts; mean changes of the first and the second one's, per placement."""
    K = 400
    changes = torch.tensor(wanted)[None, :, None].expand(2, -1, K).clone()
    effects = torch.stack([torch.tensor(wanted), torch.tensor(unwanted)], -1)[None].expand(2, -1, -1).clone()
    return Rescoring(
        (Concept("a", "object"), Concept("b", "object")),
        tuple(Placement(f"p{k}", (k,)) for k in range(len(wanted))), step, torch.arange(K), torch.zeros(K, 2),
        changes, effects, torch.zeros(3, len(wanted), 2), torch.tensor([2.0, 0.5]),
    )  # fmt: skip


def test_the_best_ratio_wins_among_effective_placements():
    # In σ: wanted 1, .9, .3, .6; unwanted 1, .2, 0, .02 - the third has the best ratio but too little effect.
    found = made_up([2.0, 1.8, 0.6, 1.2], [0.5, 0.1, 0.0, 0.01])
    assert recommend(found, "a").name == "p3"
    assert recommend(found, "a", least=0.8).name == "p1"
    assert recommend(found, "a", least=0.1).name == "p2"


def test_an_effect_that_may_be_chance_is_not_recommended():
    found = made_up([2.0, 1.8, 0.6, 1.2], [0.5, 0.1, 0.0, 0.01])
    found.changes[0, 3] += torch.tensor([20.0, -20.0]).repeat(200)
    assert float(standard_errors(found)[0, 3]) == pytest.approx(1.0, rel=0.01)  # 20 / √400
    assert recommend(found, "a").name == "p1"


def test_where_no_effect_is_sure_the_likeliest_is_recommended():
    found = made_up([2.0, 1.8], [0.5, 0.1])
    found.changes[0] += torch.tensor([[80.0, -80.0], [40.0, -40.0]]).repeat(1, 200)  # standard errors of 4 and 2
    # In σ: 1 - 1.64 · 2 and .9 - 1.64 · 1 are below zero, so that the means alone decide: 1 to 1 and .9 to .2.
    assert recommend(found, "a").name == "p1"


def test_nothing_is_recommended_for_what_cannot_be_raised():
    with pytest.raises(ValueError, match="no layers raise 'a'"):
        recommend(made_up([-1.0, 0.0], [0.0, 0.0]), "a")
    with pytest.raises(ValueError, match="unknown concept 'c'"):
        recommend(made_up([1.0], [0.0]), "c")


def test_sigmas_become_steps(bench):
    # Planted scores have standard deviation ψ and rise by ψ per step: one σ is one step, up to the sample's own spread.
    for k, rate in enumerate(bench.rescoring.score_std[:4].tolist()):
        (done,) = plan(bench, [f"planted {k}=+1.5s@{k}"], population.sample(G, [0]))
        psi = float(G.truncation[k])
        assert done[0].strength == pytest.approx(1.5 * rate / psi, rel=0.02)


@pytest.mark.parametrize("mode", ["equal_change", "equal_step"])
def test_sigmas_become_steps_whatever_steps_the_rescoring_took(mode):
    found = rescore(G, S, list(BOUNDARIES.values()), num=40, num_random=3, step_mode=mode)
    bench = Workbench(G, BOUNDARIES, S, found, "weights")
    codes = population.sample(G, range(300))
    before = scores(population.render(G, codes))
    layers = "0-3"
    for k in range(4):
        (done,) = plan(bench, [f"planted {k}=+1s@{layers}"], codes[:1])
        after = scores(population.render(G, apply(codes, done)))
        rise = float((after - before)[:, k].mean() / found.score_std[k])
        assert rise == pytest.approx(1, abs=0.1)


class BentScorer(ToyScorer):
    """A function of every planted value v."""

    def __init__(self, bend):
        super().__init__(4)
        self.bend = bend

    def score(self, images):
        return self.bend(super().score(images))


def bent(bend, step):
    scorer = BentScorer(bend)
    found = rescore(G, scorer, list(BOUNDARIES.values()), num=64, step=step, num_random=3)
    return Workbench(G, BOUNDARIES, scorer, found)


@pytest.mark.parametrize("sigmas", [-0.5, -1.0, -2.0])
def test_sigmas_are_met_where_the_score_does_not_follow_the_step_evenly(sigmas):
    """From a planted value of 0 on the score rises a quarter as fast; the re-scoring saw a large step upwards."""
    bench = bent(lambda v: torch.where(v < 0, v, v / 4), 3.0)
    codes = population.sample(G, range(2000, 2400))
    (done,) = plan(bench, [f"planted 1={sigmas:+}s@1"], codes[:1])
    std = float(bench.rescoring.score_std[1])

    def mean_change(edits):
        images = (population.render(G, codes), population.render(G, apply(codes, edits)))
        before, after = (population.score(bench.scorer, shown)[:, 1].mean() for shown in images)
        return float(after - before) / std

    assert mean_change(done) == pytest.approx(sigmas, rel=0.15)
    per_step = workbench.response(bench.rescoring, "planted 1", [1])
    evenly = dataclasses.replace(done[0], strength=sigmas / per_step)
    assert abs(mean_change([evenly]) / sigmas - 1) > 0.3


def test_a_measured_response_that_holds_is_taken_as_it_is(bench, monkeypatch):
    drawn = []
    render = amounts.render
    monkeypatch.setattr(
        amounts, "render", lambda generator, codes: drawn.append(len(codes)) or render(generator, codes)
    )
    (done,) = plan(bench, ["planted 0=+1s@0"], population.sample(G, [0]))
    per_step = workbench.response(bench.rescoring, "planted 0", [0])
    assert done[0].strength == pytest.approx(1 / per_step)
    assert drawn == [24, 24]


def test_nearly_there_is_not_paid_for_with_pictures():
    """Beyond v = 0.6 the score rises by a hundredth of what it did."""
    bench = bent(lambda v: torch.where(v < 0.6, v, 0.6 + (v - 0.6) / 100), 1.0)
    samples = 0.7 * (population.sample(G, range(1000, 1400))[:, 1] @ G.directions[1])
    std = float(bench.rescoring.score_std[1])
    most = float((0.6 - samples.clamp(max=0.6)).mean()) / std
    told = []
    bench = dataclasses.replace(bench, progress=lambda *at: told.append(at))
    (done,) = plan(bench, [f"planted 1={1.1 * most}s@1"], population.sample(G, [0]))
    assert done[0].strength < 10
    looks = [look for _, look, _ in told]
    assert looks[:-1] == [*range(1, len(looks))]
    assert told[-1][1] == told[0][2] > looks[-2]
    with pytest.raises(ValueError, match=r"moves by \+.* of \+.* standard deviations at layers 1 after \+.* steps"):
        plan(bench, [f"planted 1={1.6 * most}s@1"], population.sample(G, [0]))


def test_an_amount_is_had_at_the_next_layers_where_the_recommended_ones_do_not_have_it(bench):
    """The re-scoring says that layer 3 raises planted 0 most, and it does nothing to it."""
    rescoring = bench.rescoring
    names = [place.name for place in rescoring.placements]
    changes, effects = rescoring.changes.clone(), rescoring.effects.clone()
    changes[0, names.index("layer 3")] = 1.5 * changes[0, names.index("layer 0")]
    effects[0, names.index("layer 3")] = 0
    misled = dataclasses.replace(bench, rescoring=dataclasses.replace(rescoring, changes=changes, effects=effects))
    codes = population.sample(G, range(200))
    assert recommend(misled.rescoring, "planted 0").name == "layer 3"
    (done,) = plan(misled, ["planted 0=-1s"], codes[:1])
    assert 0 in done[0].layers
    before, after = (scores(population.render(G, c))[:, 0] for c in (codes, apply(codes, done)))
    assert float((after - before).mean() / rescoring.score_std[0]) == pytest.approx(-1, abs=0.1)
    # So is a score to be reached, by each sample that does not have it already.
    found = plan(misled, ["planted 0=>0.4"], codes[:20])
    had = scores(population.render(G, codes[:20]))[:, 0] >= 0.4
    assert 0 < int(had.sum()) < 20
    for (done,), there in zip(found, had.tolist(), strict=True):
        assert (done.strength == 0 and done.layers == (3,)) if there else (done.strength > 0 and 0 in done.layers)
    # Steps are taken as they are; layers that are asked for are kept; where nothing has it, the nearest is told.
    (done,) = plan(misled, ["planted 0=-1"], codes[:1])
    assert done[0].layers == (3,)
    with pytest.raises(ValueError, match="at layers 3 after"):
        plan(misled, ["planted 0=-1s@3"], codes[:1])
    flat = bent(lambda v: v.clamp(-0.3, 0.3), 1.0)
    with pytest.raises(ValueError, match=r"'planted 0' moves by \+[1-9.]* of \+9 standard deviations at layers 0"):
        plan(flat, ["planted 0=+9s"], codes[:1])


@pytest.mark.parametrize(
    ("rise", "words"),
    [(1e-6, r"steps at layers 3; codes are found within .* was chance"),
     (0.05, r"moves by .* of \+1 standard deviations at layers 3 after \+.* steps")],
)  # fmt: skip
def test_amounts_that_would_lead_out_of_the_codes_are_measured_and_refused(bench, rise, words):
    """Layer 3 does nothing to planted 0; a chance rise of a millionth must not become a million steps."""
    rescoring = bench.rescoring
    at = [place.name for place in rescoring.placements].index("layer 3")
    changes = rescoring.changes.clone()
    changes[0, at] = rise
    noisy = dataclasses.replace(bench, rescoring=dataclasses.replace(rescoring, changes=changes))
    codes = population.sample(G, [0])
    with pytest.raises(ValueError, match=words):
        plan(noisy, ["planted 0=+1s@3"], codes)
    with pytest.raises(
        ValueError, match=r"would take \+.* steps at layers 3; codes are found within .* there is no scorer"
    ):
        plan(dataclasses.replace(noisy, scorer=None), ["planted 0=+1s@3"], codes)
    # A true rise, and a step further out than codes are found, is taken: single layers often need one.
    far = 20 * float(rescoring.score_std[0])
    (done,) = plan(bench, [f"planted 0=+{far}s@0"], codes)
    assert done[0].strength > 6 * float(codes.std())


def test_unmeasured_layers_and_directions_are_calibrated(bench):
    # Layers 0 and 2 together are no placement of the re-scoring, so 24 samples are moved until the mean is right.
    (done,) = plan(bench, ["planted 2=-1s@0,2"], population.sample(G, [0]))
    assert done[0].strength == pytest.approx(-float(bench.rescoring.score_std[2]), rel=0.03)
    # Half of planted 1's direction is planted 2's; what is left of it is planted 1's alone, with half the rate.
    mixed = dataclasses.replace(BOUNDARIES["planted 1"], normal=(G.directions[1] + G.directions[2]) / 2**0.5)
    other = dataclasses.replace(bench, boundaries={**BOUNDARIES, "planted 1": mixed})
    (done,) = plan(other, ["planted 1=+1s@1"], population.sample(G, [0]), conditions=["planted 2"])
    torch.testing.assert_close(done[0].boundary.normal, G.directions[1], atol=1e-5, rtol=0)
    assert done[0].strength == pytest.approx(float(bench.rescoring.score_std[1]) / 0.7, rel=0.03)


def test_every_sample_reaches_the_target_by_its_own_step(bench):
    codes = population.sample(G, range(12))
    found = reach(bench, codes, BOUNDARIES["planted 1"], [1], 1.0)
    assert bool(found.reached.all())
    start = (codes[:, 1] * G.directions[1]).sum(-1) * 0.7
    expected = ((1.0 - start) / 0.7).clamp(min=0)
    torch.testing.assert_close(found.strengths, expected, atol=0.06, rtol=0)
    assert bool((found.scores >= 1.0).all())
    below = reach(bench, codes, BOUNDARIES["planted 1"], [1], -1.0, below=True)
    torch.testing.assert_close(below.strengths, ((-1.0 - start) / 0.7).clamp(max=0), atol=0.06, rtol=0)


def test_targets_are_sought_as_far_as_the_codes_of_the_edited_layers_vary():
    """Of codes that vary by 3 at the last layer and by 0.1 at the others; the mean over layers would end at 5 steps."""

    class Uneven(ToyGenerator):
        def map(self, z):
            return super().map(z) * torch.tensor([0.1, 0.1, 0.1, 3.0])[:, None]

    generator = Uneven(4, 8)
    rows = {name: b.normal.repeat(4, 1) for name, b in BOUNDARIES.items()}
    layered = {name: dataclasses.replace(b, normal=rows[name], bias=torch.zeros(4)) for name, b in BOUNDARIES.items()}
    codes = population.sample(generator, range(20))
    planted = (codes[:, 3] * generator.directions[3]).sum(-1)
    low = int(planted.argmin())
    assert float(planted[low]) < -3
    found = reach(Workbench(generator, layered, S), codes[low : low + 1], layered["planted 3"], [3], 4.0)
    assert bool(found.reached.all())
    assert float(found.strengths) == pytest.approx(4 - float(planted[low]), abs=0.2)


def test_a_direction_beyond_a_layer_s_width_is_refused():
    """Such as one for all layers, of somebody's else, where layers differ in width."""
    generator = ModuleGenerator(
        lambda codes: codes[:, :1, 0, None, None].expand(-1, 3, 4, 4), latent_dim=6, layer_widths=(4, 2), resolution=4,
        map=lambda z: torch.stack([z[:, :4], torch.nn.functional.pad(z[:, 4:], (0, 2))], 1), shared_code=False,
    )  # fmt: skip
    normal = torch.full((4,), 0.5)
    mine = Boundary(Concept("mine", "layout"), normal, torch.tensor(0.0), 0.9)
    with pytest.raises(ValueError, match=r"'mine' goes beyond the width of layer 1, 2 of 4: .* for each, \(2, 4\)"):
        workbench.with_directions(Workbench(generator, {}), [mine], {})
    rows = torch.stack([normal, torch.tensor([0.6, 0.8, 0, 0])])
    layered = dataclasses.replace(mine, normal=rows, bias=torch.zeros(2))
    found = workbench.with_directions(Workbench(generator, {}), [layered], {})
    assert edit(found, ["mine=+1@1"], seed=1).code[1, 2:].tolist() == [0, 0]


def test_a_sample_alone_moves_as_it_does_in_company(bench):
    codes = population.sample(G, range(4))
    together = reach(bench, codes, BOUNDARIES["planted 2"], [2], 1.2)
    for k in range(4):
        alone = reach(bench, codes[k : k + 1], BOUNDARIES["planted 2"], [2], 1.2)
        assert float(alone.strengths) == float(together.strengths[k])


def test_what_cannot_be_reached_is_said(bench):
    codes = population.sample(G, [0, 1])
    # Layer 3 does not control score 1 at all.
    found = reach(bench, codes, BOUNDARIES["planted 1"], [3], 5.0)
    assert not bool(found.reached.any())
    with pytest.raises(ValueError, match="'planted 1' cannot reach 5: sample 0 of 1 ends at"):
        edit(bench, ["planted 1=>5@3"], seed=0)
    with pytest.raises(ValueError, match=r"of \+3 standard deviations at layers 0,3 after \+.* steps"):
        edit(bench, ["planted 1=+3s@0,3"], seed=0)
    with pytest.raises(ValueError, match="target and limit must be finite"):
        reach(bench, codes, BOUNDARIES["planted 1"], [1], float("nan"))


def test_samples_in_series_are_those_of_single_edits_and_amounts_are_looked_for_once(bench, monkeypatch):
    edits, looks = ["planted 0=+2@0", "planted 1=+1s", "planted 2=>1.5"], []
    code = population.sample(G, [3])[0]
    starts = ({"seed": 1}, {"seed": 2}, {"code": code})
    alone = [edit(bench, edits, **start, conditions=["planted 3"]) for start in starts]
    calibrate = plans.calibrate
    monkeypatch.setattr(plans, "calibrate", lambda *a, **k: looks.append(a) or calibrate(*a, **k))
    many = in_series(bench, edits, conditions=["planted 3"])
    for start, single in zip(starts, alone, strict=True):
        made = many.edit(**start)
        assert torch.equal(made.image, single.image)
        assert made.recipe == single.recipe
        assert many.made(made.recipe, **start)
    assert len(looks) == 1
    # Of nothing else: not of another sample, other edits, conditions, boundaries or weights.
    recipe = alone[0].recipe
    assert not many.made(recipe, seed=2)
    assert not many.made(alone[2].recipe, code=code + 1)
    flipped = {**BOUNDARIES, "planted 2": dataclasses.replace(BOUNDARIES["planted 2"], normal=-G.directions[2])}
    for other in (
        in_series(bench, edits[:2], conditions=["planted 3"]),
        in_series(bench, edits),
        in_series(bench, ["planted 0=+1@0", *edits[1:]], conditions=["planted 3"]),
        in_series(dataclasses.replace(bench, boundaries=flipped), edits, conditions=["planted 3"]),
        in_series(dataclasses.replace(bench, weights="others"), edits, conditions=["planted 3"]),
    ):
        assert not other.made(recipe, seed=1)
    with pytest.raises(OutOfReachError, match="cannot reach 900"):
        in_series(bench, ["planted 2=>900"]).edit(seed=1)
    with pytest.raises(ValueError, match="got both or neither"):
        many.edit()


def test_a_recipe_is_repeated_bit_for_bit(bench):
    made = edit(
        bench, ["planted 0=+1.23456789", "planted 2=>1"], seed=5, loans=[Loan(9, (3,))], conditions=["planted 1"]
    )
    again = repeat(bench, Recipe.from_json(made.recipe.to_json()))
    assert torch.equal(again.image, made.image)
    assert torch.equal(again.code, made.code)
    lent = population.sample(G, [9])[0, 3]
    assert torch.equal(made.code[3], lent)


def test_a_code_of_ones_own(bench):
    code = population.sample(G, [3])[0] * 0.5
    made = edit(bench, ["planted 0=+1"], code=code)
    assert torch.equal(repeat(bench, made.recipe, code=code).image, made.image)
    with pytest.raises(ValueError, match="give the file of codes"):
        repeat(bench, made.recipe)
    with pytest.raises(RunMismatchError, match="not the one that this picture"):
        repeat(bench, made.recipe, code=code + 1)
    with pytest.raises(ValueError, match="leave the code out"):
        repeat(bench, edit(bench, [], seed=1).recipe, code=code)
    with pytest.raises(ValueError, match=r"has shape \(4, 8\); got \(2, 8\)"):
        edit(bench, [], code=code[:2])


def test_another_generator_or_boundary_is_refused(bench):
    recipe = edit(bench, ["planted 0=+1"], seed=0).recipe
    with pytest.raises(RunMismatchError, match=r"made by 'toy' \(weights weights"):
        repeat(dataclasses.replace(bench, weights="other"), recipe)
    turned = {**BOUNDARIES, "planted 0": dataclasses.replace(BOUNDARIES["planted 0"], normal=-G.directions[0])}
    with pytest.raises(RunMismatchError, match="boundary of 'planted 0' is not the one"):
        repeat(dataclasses.replace(bench, boundaries=turned), recipe)


def conditional(**options):
    """A small StyleGAN with three classes and noise, its weights at random."""
    return wrap(FAMILIES["stylegan conditional"](), "conditional", **options)


@pytest.mark.parametrize(
    ("options", "label", "words"),
    [
        ({}, 2, "label 1; here is 2: repeat it with the run"),
        ({"noise": "none"}, 1, "noise stored; here is none"),
        ({"precision": "bfloat16"}, 1, "precision float32; here is bfloat16"),
    ],
)
def test_a_generator_opened_otherwise_is_refused(options, label, words):
    same = Workbench(conditional().with_label(1), {}, weights="w")
    other = Workbench(conditional(**options).with_label(label), {}, weights="w")
    made = edit(same, [], seed=7)
    recipe = Recipe.from_json(made.recipe.to_json())
    assert torch.equal(repeat(same, recipe).image, made.image)
    with pytest.raises(RunMismatchError, match=words):
        repeat(other, recipe)
    # What nobody wrote down is not compared; and the pictures do differ.
    assert not torch.equal(repeat(other, dataclasses.replace(recipe, opened={})).image, made.image)


def test_the_precision_of_rooms_is_told():
    generator = load_generator("rooms", precision="bfloat16")
    assert edit(Workbench(generator, {}), [], seed=0).recipe.opened == {"precision": "bfloat16"}


def test_the_truncation_of_a_prior_is_told():
    def biggan(psi):
        network = BigGANNetwork(BigGANConfig(16, (16, 8, 8), (True, True), 6, 3, 4, truncation=psi))
        return Workbench(wrap(network, "b").with_label(0), {})

    recipe = edit(biggan(None), [], seed=0).recipe
    assert repeat(biggan(None), recipe).recipe == recipe
    with pytest.raises(RunMismatchError, match=r"prior truncation None; here is truncation 0\.5"):
        repeat(biggan(0.5), recipe)


def test_what_is_missing_is_named(bench):
    bare = Workbench(G, BOUNDARIES)
    with pytest.raises(ValueError, match="no re-scoring to recommend layers for 'planted 0'"):
        edit(bare, ["planted 0=+1"], seed=0)
    with pytest.raises(ValueError, match="a scorer is needed"):
        edit(bare, ["planted 0=>1@0"], seed=0)
    with pytest.raises(ValueError, match="has no concept 'planted 3'"):
        Workbench(G, BOUNDARIES, ToyScorer(3)).column("planted 3")
    with pytest.raises(ValueError, match="layer 2 is lent by two samples"):
        edit(bench, [], seed=0, loans=[Loan(1, (2,)), Loan(2, (2, 3))])
    assert placements(4) == bench.rescoring.placements
    assert workbench.response(bench.rescoring, "planted 0", [0, 2]) is None
