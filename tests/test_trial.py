"""Models that break their contract, and models that are not those that a run was begun with."""

import pytest
import torch

from higan import boundaries, population, rescoring, store, study
from higan.errors import GeneratorError, RunMismatchError, ScorerError
from higan.generators.module import ModuleGenerator
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


@pytest.mark.parametrize("flaw", [{"noise": 1.0}, {"batch": 1.0}])
def test_pictures_that_do_not_repeat_are_told_before_a_folder_is_made(tmp_path, flaw):
    with pytest.raises(GeneratorError, match=r"'painter' draws other pictures of the same codes .* grey levels apart"):
        study.open_study(tmp_path / "run", painter(**flaw), Means(), num=100)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "look",
    [lambda means: (means - means.mean(0)) / (means.std(0, correction=0) + 1e-3), torch.rand_like],
)
def test_scores_that_depend_on_the_batch_or_on_chance_are_told(tmp_path, look):
    with pytest.raises(ScorerError, match=r"scorer 'means' gives the same pictures other scores .*network\.eval\(\)"):
        study.open_study(tmp_path / "run", painter(), Means(look), num=100)
    assert not (tmp_path / "run").exists()


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
