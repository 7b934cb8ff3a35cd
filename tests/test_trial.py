"""Models that break their contract, and models that are not those that a run was begun with."""

import json
import os
from pathlib import Path

import pytest
import torch

from higan import boundaries, population, rescoring, store, study
from higan.errors import GeneratorError, RunMismatchError, ScorerError
from higan.generators.module import ModuleGenerator
from higan.generators.rooms import RoomsConfig, RoomsGenerator, build_network
from higan.generators.toy import ToyGenerator
from higan.report import write_report
from higan.scorers.toy import ToyScorer
from higan.trial import check_contract, check_same
from higan.types import Concept
from higan.workbench import open_workbench


class Means:
    """Mean of each colour, as told by ``look``."""

    name, concepts = "means", tuple(Concept(colour, "colour") for colour in ("red", "green", "blue"))

    def __init__(self, look=lambda means: means):
        self.look = look

    def score(self, images):
        return self.look(images.float().mean((2, 3)))


def painter(seed=0, noise=0.0, batch=0.0):
    """Pictures of random weights; with noise at every call, or with something of the rest of the batch."""
    weights = torch.randn(8, 3 * 16, generator=torch.Generator().manual_seed(seed)) / 4

    def synthesize(codes):
        codes = codes + batch * codes.mean(0)
        images = (codes.sum(1) @ weights).unflatten(1, (3, 4, 4))
        return torch.tanh(images + noise * torch.randn_like(images))

    return ModuleGenerator(synthesize, latent_dim=8, layer_widths=(8, 8), resolution=4, name="painter")


def test_sound_models_pass():
    check_contract(painter(), Means())
    check_contract(ToyGenerator(), ToyScorer())


def test_scores_that_are_not_finite_are_told_with_the_seeds_of_their_pictures():
    seeds = population.sample_seeds(3)
    drawn = population.render(painter(), population.sample(painter(), seeds)).float().mean((2, 3))
    darkest = int(drawn[:, 0].argmin())
    scorer = Means(lambda means: torch.where(means > drawn[:, 0].min(), means, torch.nan))
    with pytest.raises(ScorerError, match=rf"\(seeds? .*{int(seeds[darkest])}"):
        check_contract(painter(), scorer)


@pytest.mark.parametrize("flaw", [{"noise": 1.0}, {"batch": 1.0}])
def test_pictures_that_do_not_repeat_are_told_before_a_folder_is_made(tmp_path, flaw):
    with pytest.raises(GeneratorError, match=r"'painter' draws other pictures of the same codes .* grey levels apart"):
        study.open_study(tmp_path / "run", painter(**flaw), Means(), num=100)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_there_already_changes_nothing(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(GeneratorError, match="draws other pictures of the same codes"):
        study.open_study(tmp_path / "run", painter(noise=1.0), Means(), num=100)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    "look",
    [lambda means: (means - means.mean(0)) / (means.std(0, correction=0) + 1e-3), torch.rand_like],
)
def test_scores_that_depend_on_the_batch_or_on_chance_are_told(tmp_path, look):
    with pytest.raises(ScorerError, match=r"scorer 'means' gives the same pictures other scores .*network\.eval\(\)"):
        study.open_study(tmp_path / "run", painter(), Means(look), num=100)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("convert", "found"),
    [
        (lambda x: (x + 1) / 2, r"values lie in 0\.\d+ … (1|0\.\d+); nothing is below 0"),
        (lambda x: (x + 1) * 127.5, r"\d+% of pixel values lie far outside \[-1, 1\]"),
        (lambda x: x * 128, r"\d+% of pixel values lie far outside \[-1, 1\]; found -\d"),
    ],
)
def test_pictures_in_another_range_are_told_before_a_folder_is_made(tmp_path, convert, found):
    generator = ModuleGenerator(
        lambda codes: convert(torch.tanh(codes[:, 0, :, None, None].expand(-1, -1, 3, 3))), latent_dim=3,
        layer_widths=(3,), resolution=3, name="painter",
    )  # fmt: skip
    with pytest.raises(GeneratorError, match=f"'painter' draws pictures in another range: {found}.*2x − 1"):
        study.open_study(tmp_path / "run", generator, Means(), num=100)
    assert not (tmp_path / "run").exists()


def raises(*_):
    return int("seven")


def test_what_a_model_raises_is_told_with_its_line():
    line = raises.__code__.co_firstlineno + 1
    told = rf"raised ValueError: invalid literal for int\(\) with base 10: 'seven' \(test_trial\.py:{line}\)"
    for broken in ({"latents": raises}, {"map": raises}):
        generator = ModuleGenerator(torch.tanh, latent_dim=3, layer_widths=(3,), resolution=3, **broken)
        with pytest.raises(GeneratorError, match=f"generator 'module' {told}") as caught:
            population.sample(generator, [0])
        assert isinstance(caught.value.__cause__, ValueError)
    generator = ModuleGenerator(raises, latent_dim=3, layer_widths=(3,), resolution=3, name="mine")
    with pytest.raises(GeneratorError, match=f"generator 'mine' {told}"):
        population.render(generator, population.sample(generator, [0]))
    with pytest.raises(ScorerError, match=f"scorer 'means' {told}"):
        population.score(Means(raises), torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


def test_of_a_long_way_through_other_files_the_model_s_own_is_told():
    """What `json` raises was handed to it in a line of this file."""

    def parses(images):
        return json.loads("seven")

    line = parses.__code__.co_firstlineno + 1
    with pytest.raises(ScorerError, match=rf"raised JSONDecodeError: .*\(test_trial\.py:{line}\)"):
        population.score(Means(parses), torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


def test_a_package_whose_name_begins_like_torch_is_foreign():
    """As torchvision is, which lies beside it."""
    file, found = f"{Path(torch.__file__).parent}vision{os.sep}models.py", {}
    exec(compile("def score(images):\n    raise ValueError('odd')", file, "exec"), found)
    scorer = Means()
    scorer.score = found["score"]
    with pytest.raises(ScorerError, match=r"scorer 'means' raised ValueError: odd \(models\.py:2\)"):
        population.score(scorer, torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


def test_what_this_package_told_already_is_not_told_twice():
    """A scorer that asks another, whose error names it."""
    inner = Means(lambda means: means[:, :2])
    outer = Means(lambda means: population.score(inner, torch.zeros(1, 3, 4, 4, dtype=torch.uint8)))
    inner.name = "inner"
    with pytest.raises(ScorerError, match=r"^scorer 'inner' (?!raised)") as told:
        population.score(outer, torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    assert "means" not in str(told.value)


@pytest.mark.parametrize("stage", ["prepare", "resume", "repeat"])
def test_so_it_is_where_drawing_goes_on_from_a_layer(stage):
    network = build_network(RoomsConfig(resolution=8, latent_dim=4, code_dim=4, channels=(4, 4)))
    generator, scorer = RoomsGenerator(network, torch.zeros(4)), Means()
    found = boundaries.fit(population.measure(generator, scorer, range(200)))
    setattr(generator, stage, raises)
    with pytest.raises(GeneratorError, match=r"generator 'rooms' raised ValueError: .*\(test_trial\.py:\d+\)"):
        rescoring.rescore(generator, scorer, found, num=8, num_random=3, batch_size=4)


def test_what_torch_alone_raises_passes_as_it_is():
    generator = ModuleGenerator(torch.nn.Linear(5, 3), latent_dim=3, layer_widths=(3,), resolution=3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        population.render(generator, population.sample(generator, [0]))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
        MemoryError("Unable to allocate 2.00 GiB for an array"),
    ],
)
def test_a_lack_of_memory_is_no_slip_of_the_model(error):
    def large(images):
        raise error

    with pytest.raises(type(error), match="allocate"):
        population.score(Means(large), torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


@pytest.fixture
def run(tmp_path):
    generator, scorer = painter(), Means()
    run = study.open_study(tmp_path / "run", generator, scorer, num=200, shard_size=100)
    study.sample_step(run, generator, scorer)
    found = boundaries.fit(store.read_population(run))
    store.save_boundaries(run, found)
    store.save_rescoring(run, rescoring.rescore(generator, scorer, found, num=8, num_random=3))
    return run


def test_a_run_knows_its_models_again(run):
    check_same(run, painter(), Means())
    check_same(run, painter(), Means(lambda means: means + 0.01))  # another device's rounding
    assert open_workbench(run, painter(), Means()).generator.name == "painter"


@pytest.mark.parametrize(
    ("generator", "scorer"), [(painter(seed=1), Means()), (painter(), Means(lambda means: -1000 * means))]
)
def test_another_model_of_the_same_name_is_not_the_run_s(run, generator, scorer):
    words = "was begun with another generator or scorer than 'painter' and 'means' are here: its first sample's score"
    (run.path / "population" / "shard-00001.parquet").unlink()
    with pytest.raises(RunMismatchError, match=words):
        study.sample_step(run, generator, scorer)
    assert store.missing_shards(run) == [1]
    with pytest.raises(RunMismatchError, match=words):
        open_workbench(run, generator, scorer)
    with pytest.raises(RunMismatchError, match=words):
        write_report(run, generator, scorer)
    assert not (run.path / "report.html").exists()


def test_another_mapping_is_told_without_a_scorer(run):
    other = ModuleGenerator(
        painter().synthesize, latent_dim=8, layer_widths=(8, 8), resolution=4, name="painter",
        map=lambda z: 2 * z[:, None].expand(-1, 2, -1),
    )  # fmt: skip
    with pytest.raises(
        RunMismatchError, match="another generator than 'painter' is here: the code of its first sample"
    ):
        check_same(run, other)


def test_a_run_without_samples_says_nothing(tmp_path):
    run = study.open_study(tmp_path / "run", painter(), Means(), num=100)
    check_same(run, painter(seed=1), Means())
    assert len(population.sample(painter(), [0])) == 1
