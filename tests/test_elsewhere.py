"""Everything on a device other than the CPU, without one: see ``elsewhere``. Results are those of the CPU."""

from functools import partial

import pytest
import torch
from adapters import FAMILIES
from PIL import Image

import higan
import hub_folders
from elsewhere import there_is_a_device
from higan import conformance, population, report, store
from higan.boundaries import fit
from higan.directions import discover
from higan.generators.pretrained import wrap
from higan.inversion import code_space, invert
from higan.photographs import open_photograph
from higan.report import figures
from higan.report.pictures import Easel
from higan.rescoring import rescore
from higan.rooms.dataset import sample_rooms
from higan.scorers.clip import ClipScorer
from higan.scorers.colour import ColourScorer
from higan.scorers.places import PlacesNetwork, PlacesScorer


@pytest.fixture(scope="module")
def device():
    yield from there_is_a_device()


def test_what_plays_the_device_refuses_what_a_gpu_does(device):
    there, here = torch.randn(3, 4).to(device), torch.randn(3, 4)
    assert there.device.type == device
    with pytest.raises(RuntimeError, match="on the same device"):
        there + here
    with pytest.raises(RuntimeError, match="on the same device"):
        here[torch.tensor([0, 1], device=device)]
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(2, device=device, generator=torch.Generator())
    with pytest.raises(TypeError, match="float64"):
        there.double()
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()
    assert torch.equal((there * 2 + torch.tensor(1.0)).cpu(), there.cpu() * 2 + 1)
    assert there[torch.tensor([0, 2])].device.type == torch.arange(3, device=device).device.type == device
    weights = torch.randn(4, 2, device=device, requires_grad=True)
    (there @ weights).sum().backward()
    torch.testing.assert_close(weights.grad.cpu(), there.cpu().sum(0)[:, None].expand(4, 2))


# ---- generators -----------------------------------------------------------------------------------------------------


def family(name, place, precision="float32"):
    generator = wrap(FAMILIES[name](), name, place, precision=precision)
    return generator.with_label(1) if generator.num_classes else generator


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_pictures_are_the_same(device, name, precision):
    drawn = []
    for place in ("cpu", device):
        generator = family(name, place, precision)
        images = population.render(generator, population.sample(generator, range(3)))
        assert images.device.type == place
        drawn.append(images.cpu())
    apart = (drawn[0].float() - drawn[1].float()).abs()
    # Maps lie otherwise in memory elsewhere, and where a processor has no bfloat16 the two are rounded otherwise.
    assert float(apart.mean()) <= (0 if precision == "float32" else 0.5)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("stylegan", "stylegan3 r", "biggan deep")]


@pytest.mark.parametrize("name", ["pggan", "stylegan2 skip", *SLOW])
def test_a_study_is_the_same(device, name):
    found = []
    for place in ("cpu", device):
        generator, scorer = family(name, place), ColourScorer()
        boundaries = fit(population.measure(generator, scorer, range(60)))
        how = {"num": 4, "num_random": 2, "batch_size": 3}
        found.append([rescore(generator, scorer, boundaries, step_mode=m, **how) for m in ("official", "equal_change")])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.changes, other.changes, atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["pggan", "stylegan", "biggan deep"])
def test_pictures_are_inverted_and_directions_discovered(device, name):
    generator = family(name, device)
    codes = population.sample(generator, [5, 6])
    found = invert(
        generator, population.render(generator, codes), space=code_space(generator, num=300), shared_steps=2,
        layer_steps=2, candidates=3, features=lambda images: images.mean((2, 3)),
    )  # fmt: skip
    assert all(one.error <= one.start_error for one in found)
    for method in ("pca",) if name == "biggan deep" else ("sefa", "pca"):  # without style weights
        assert discover(generator, ColourScorer(), method=method, num=2, num_samples=4, num_resamples=10)


@pytest.mark.parametrize("name", ["rooms", "toy", "transparent"])
def test_generators_of_the_package_keep_the_contract(device, name):
    assert not [f for f in conformance.check_generator(higan.load_generator(name, device)) if f.problem]


# ---- scorers --------------------------------------------------------------------------------------------------------


def places(place, precision):
    torch.manual_seed(0)
    return PlacesScorer(PlacesNetwork("resnet18"), torch.randn(102, 512), precision=precision, device=place)


def shares(place, model):
    return higan.load_scorer("segments", place, segmenter=higan.load_segmenter(model, place))


SCORERS = {
    **{name: partial(higan.load_scorer, name) for name in ("rooms", "rooms-128", "scheme", "layout", "lines", "nulls")},
    "scheme of segments": lambda d: higan.load_scorer("scheme", d, segmenter=higan.load_segmenter("rooms", d)),
    "segments": lambda d: shares(d, "rooms"),
    "places": lambda d: places(d, "float32"),
    "places in half precision": lambda d: places(d, "bfloat16"),
}


def same_scores(make, place):
    found = []
    for where in ("cpu", place):
        images = conformance.trial_images(4, 64, where)
        scorer = make(where)
        problems = {f.check for f in conformance.check_scorer(scorer, images) if f.problem}
        assert problems <= {"sensitive"}  # some classes are in none of these pictures
        found.append(population.score(scorer, images).cpu())
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SCORERS)
def test_scores_are_the_same(device, name):
    same_scores(SCORERS[name], device)


@pytest.mark.parametrize("kind", ["segformer", "upernet", "mask2former"])
def test_shares_of_segments_are_the_same(device, kind, tmp_path):
    folder = getattr(hub_folders, kind)(tmp_path / kind)
    same_scores(lambda where: shares(where, folder), device)


def test_scores_of_classifiers_and_phrases_are_the_same(device, tmp_path):
    folder = hub_folders.classifier(tmp_path / "classifier")
    same_scores(lambda where: higan.load_scorer(folder, where), device)
    clip = hub_folders.clip(tmp_path / "clip")
    same_scores(lambda where: ClipScorer(clip, ["a bed", "a sofa"], "a room", device=where), device)


# ---- the command line -----------------------------------------------------------------------------------------------

WORLD = ("--generator", "rooms-32-s0", "--scorer", "rooms")


@pytest.fixture
def run(monkeypatch, tmp_path, higan):
    def call(*words):
        status, printed = higan(*words)
        assert not status, printed

    monkeypatch.chdir(tmp_path)
    return call


def test_a_whole_study_and_all_that_is_made_of_it(device, run):
    Image.fromarray(sample_rooms([20_000_000], 64).images[0].permute(1, 2, 0).numpy()).save("photo.png")
    for place in ("cpu", device):
        run("sample", *WORLD, "--num", 160, "--out", place, "--device", place)
    mine, other = (store.read_population(store.load_run(place)).scores for place in ("cpu", device))
    torch.testing.assert_close(mine, other, atol=0.02, rtol=0)
    there, of = ("--device", device), ("--run", device)
    concepts = ("view_yaw", "bedroom", "living_room", "indoor_lighting", "wood", "warm_colours")
    run("fit", device, "--permuted", 20, *(word for name in concepts for word in ("--concept", name)))
    run("rescore", device, "--verify", 6, *there)
    run("steps", device, "--verify", 2, "--random", 2, *there)
    run("report", device, *there)
    found = report.study.study(store.load_run(device))
    generator, scorer = higan.load_generator("rooms-32-s0", device), higan.load_scorer("rooms", device)
    easel = Easel(generator, scorer, found.rescoring.concepts, found.rescoring.score_std, [3])
    assert figures.photographs(found, easel, open_photograph("photo.png", 32)[None], steps=8, num=2)
    run("edit", *of, "--seed", 7, "--set", "indoor_lighting=+1s", "--condition", "bedroom", "--out", "one.png", *there)
    run("edit", *of, "--seeds", "7,9", "--set", "wood=+1", "--out", "many", *there)
    run("edit", *of, "--seed", 7, "--set", "view_yaw=+2@0-1", "--set", "wood=+1", "--joint", "--out", "two.png", *there)
    run("side-effects", *of, "--concept", "warm_colours", "--num", 4, "--out", "effects.html", *there)
    run("mix", "--generator", "rooms-32-s0", "--seed", 1, "--donor", 5, "--layers", "top", "--out", "mix.png", *there)
    run(
        "transition",
        "bedroom",
        "living_room",
        *of,
        "--segmenter",
        "rooms",
        "--num",
        2,
        "--steps",
        2,
        "--out",
        "t",
        *there,
    )
    run("invert", "photo.png", *WORLD[:2], "--steps", 4, "--scorer", "rooms", "--out", "photo.safetensors", *there)
    run("edit", *of, "--codes", "photo.safetensors", "--set", "wood=+1", "--out", "edited.png", *there)
    run("discover", *of, "--per-stage", 2, *there)
    run("draw", "--generator", "rooms-32-s0", "--seeds", "0-2", "--frames", 2, "--out", "walk.gif", *there)
    run("user-study", "build", device, "--out", "people", *there)
    run(
        "rescore",
        device,
        "--verify",
        4,
        "--random",
        2,
        "--adaptive",
        "--step-mode",
        "equal_change",
        "--discard",
        *there,
    )


def test_models_are_checked(device, run):
    run("check-generator", "rooms-32-s0", "--device", device)
    run("check-scorer", "rooms", "--device", device)


def test_the_benchmark(device, run):
    run("benchmark", "--quick", "--out", "benchmark", "--device", device)


def test_the_quality_of_the_embedded_world(device, run):
    run("rooms", "quality", *WORLD, "--num", 220, "--device", device)


@pytest.mark.parametrize("how", [(), ("--loss", "relativistic", "--architecture", "skip")])
def test_a_generator_is_trained(device, run, how):
    run("rooms", "write", "--out", "data", "--num", 40, "--resolution", 32)
    images = ("--data", "data", "--resolution", 32, "--stage-images", 32, "--minutes", 0.03, "--device", device)
    run("rooms", "train-generator", "--out", "first", *images, *how)
    run("rooms", "train-generator", "--out", "second", *images, *how, "--start-from", "first/checkpoint.safetensors")
