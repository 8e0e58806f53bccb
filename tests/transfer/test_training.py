"""The loop: source-only without a weight, repeatable, nothing touched, better than source-only on a shifted target."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fedser.compute import generator
from fedser.errors import ConfigError, TooLittleDataError, UsageError
from fedser.models import ModelSettings
from fedser.train import TrainSettings, train_model
from fedser.transfer import REFERENCES, make, options_of, transfer
from fedser.transfer.emodna import class_alignment, mean_discrepancy
from fedser.transfer.loop import _rows

from .conftest import CLASSES, MODEL, RECIPE, Problem

SILENT = {
    "dann": {"weight": 0},
    "coral": {"weight": 0},
    "didan": {"weight": 0},
    "emodna": {"decoupling": 0, "class_level": 0, "corpus_level": 0},
}


def run(name: str, problem: Problem, **keywords):
    given = {"model": MODEL, "train": RECIPE, "seed": 3, "trained": problem.trained} | keywords
    return transfer(name, problem.x, problem.y, problem.speakers, problem.target_x, CLASSES, **given)


@pytest.mark.parametrize("name", REFERENCES)
def test_without_a_weight_it_is_the_source_only_model_bit_for_bit(name, problem):
    made = run(name, problem, options=SILENT[name])
    expected = problem.trained.model.state_dict()
    for key, parameter in made.model.named_parameters():
        assert torch.equal(parameter, expected[key]), key
    assert [entry["labels"] for entry in made.history] == [entry["loss"] for entry in problem.trained.history]


def test_a_pretrained_encoder_learns_at_its_own_rate_here_too(tiny_encoder):
    base = tiny_encoder("wav2vec2")
    own = {"encoder": base.family, "size": base.size, "weights": base.weights, "trained": "last", "layers": 1}
    small = {"hidden": 8, "bottleneck": 4, "depth": 1}
    settings, recipe = ModelSettings.model_validate(own | small), TrainSettings(epochs=2, folds=0)
    x = torch.randn(16, 1, 4800, generator=generator("waves"))
    source = (x, torch.arange(16) % 2, [None] * 16)
    trained = train_model(*source, ("anger", "sadness"), settings, recipe, 0, torch.device("cpu"))
    given = {"model": settings, "train": recipe, "options": {"weight": 0}, "seed": 0, "trained": trained}
    made = transfer("coral", *source, x[:6], ("anger", "sadness"), **given)
    assert made.model.pretrained_layers()
    for key, parameter in made.model.named_parameters():
        assert torch.equal(parameter, trained.model.get_parameter(key)), key


@pytest.mark.parametrize("name", REFERENCES)
def test_the_same_seed_gives_the_same_model_and_nothing_else_moves(name, problem):
    before = [tensor.clone() for tensor in (problem.x, problem.y, problem.target_x)]
    weights = {key: tensor.clone() for key, tensor in problem.trained.model.state_dict().items()}
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = run(name, problem)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    second = run(name, problem)
    for tensor, old in zip((problem.x, problem.y, problem.target_x), before, strict=True):
        assert torch.equal(tensor, old)
    for key, tensor in problem.trained.model.state_dict().items():
        assert torch.equal(tensor, weights[key])
    for key, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[key]), key
    assert first.history == second.history
    other = run(name, problem, seed=4).model.state_dict()
    assert not torch.equal(other["bottleneck.0.weight"], first.model.state_dict()["bottleneck.0.weight"])


def test_source_only_is_trained_here_where_the_caller_has_none(problem):
    made = run("coral", problem, trained=None)
    for key, tensor in made.source_only.state_dict().items():
        assert torch.equal(tensor, problem.trained.model.state_dict()[key]), key
    assert made.temperature == problem.trained.temperature
    assert not made.model.training
    assert len(made.history) == problem.trained.epochs


@pytest.mark.parametrize(
    ("name", "weight", "part"),
    [
        ("coral", "weight", "correlation"),
        ("didan", "weight", "reconstruction"),
    ],
)
def test_what_it_minimises_becomes_smaller(name, weight, part, problem):
    ends = [run(name, problem, options={weight: value}).history[-1][part] / value for value in (1e-3, 10.0)]
    assert ends[1] < 0.9 * ends[0]


def test_class_level_alignment_draws_the_target_to_the_sources_class_centres(problem):
    def away(weight: float) -> float:
        """Of all utterances: the loss itself sees those that are confident, others with each weight."""
        options = {"decoupling": 0, "class_level": weight, "corpus_level": 0}
        model = run("emodna", problem, options=options).model
        with torch.no_grad():
            source, target = (functional.normalize(model.embed(x), dim=1) for x in (problem.x, problem.target_x))
            labels = model(problem.target_x).argmax(dim=1)
            return float(class_alignment(source, problem.y, target, labels, 0.3))

    assert away(1.0) < 0.9 * away(0.0)


def test_an_adversary_brings_the_corpora_together(problem):
    def apart(weight: float) -> float:
        model = run("dann", problem, options={"weight": weight}).model
        with torch.no_grad():
            parts = [functional.normalize(model.embed(x), dim=1) for x in (problem.x, problem.target_x)]
            return float(mean_discrepancy(*parts))

    assert apart(1.0) < 0.9 * apart(0.0)


def test_batch_normalisation_ends_with_the_targets_statistics(problem):
    made = run("dann", problem)
    first = made.model.encoder.layers[1]
    seen = made.model.encoder.layers[0](problem.target_x)
    assert torch.allclose(first.running_mean, seen.mean(dim=0), atol=1e-5)
    assert torch.allclose(first.running_var, seen.var(dim=0), atol=1e-5)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_target_smaller_than_a_batch_and_a_class_without_labels_do(name, problem):
    y = torch.where(problem.y == 2, torch.tensor(-1), problem.y)
    made = transfer(
        name, problem.x, y, problem.speakers, problem.target_x[:5], CLASSES, model=MODEL, train=RECIPE, seed=0
    )
    assert bool(made.model(problem.target_x).isfinite().all())


def test_target_batches_cover_the_corpus_and_never_end():
    rows = _rows(10, 4, torch.Generator().manual_seed(0))
    batches = [next(rows) for _ in range(40)]
    assert all(len(set(batch.tolist())) == 4 for batch in batches)
    assert all(set(torch.cat(batches[i : i + 2]).tolist()) <= set(range(10)) for i in range(0, 40, 2))
    assert set(torch.cat(batches).tolist()) == set(range(10))
    assert [len(next(_rows(3, 8, torch.Generator()))) for _ in range(2)] == [3, 3]


def test_what_does_not_fit_is_refused(problem):
    small = {"model": MODEL, "train": RECIPE, "seed": 3, "trained": problem.trained}
    with pytest.raises(UsageError, match="Did you mean 'emodna'"):
        run("Emo-DNA", problem)
    with pytest.raises(ConfigError, match="did you mean 'weight'"):
        run("didan", problem, options={"wieght": 1})
    with pytest.raises(ConfigError, match="temperature"):
        options_of("emodna", {"temperature": 0})
    with pytest.raises(TooLittleDataError, match="at least 2"):
        transfer("dann", problem.x, problem.y, problem.speakers, problem.target_x[:1], CLASSES, seed=0)
    with pytest.raises(UsageError, match="have shape"):
        transfer("dann", problem.x, problem.y, problem.speakers, problem.target_x[:, :3], CLASSES, seed=0)
    with pytest.raises(TooLittleDataError, match="two emotions"):
        transfer("dann", problem.x, 0 * problem.y, problem.speakers, problem.target_x, CLASSES, seed=0)
    with pytest.raises(ConfigError, match="diverged"):
        transfer("didan", problem.x, problem.y, problem.speakers, 1e30 * problem.target_x, CLASSES, **small)


def test_their_own_layers_are_drawn_from_the_seed_alone(problem):
    model = problem.trained.model
    torch.manual_seed(0)
    first = make("dann", model, seed=5).state_dict()
    torch.manual_seed(1)
    second, other = make("dann", model, seed=5).state_dict(), make("dann", model, seed=6).state_dict()
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key])
    assert not torch.equal(first["discriminator.0.weight"], other["discriminator.0.weight"])
