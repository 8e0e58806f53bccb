"""One site by itself: the guard sees what it should, and what it chose is what answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fedser import bundle as bundles
from fedser.adapt import make
from fedser.adapt.guard import GuardSettings
from fedser.adapt.local import adapt_site, distance, guard_personal
from fedser.adapt.schedule import Schedule
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.normalise import SiteNormaliser
from fedser.bundle import Bundle
from fedser.errors import UsageError

CPU = torch.device("cpu")
OPEN = GuardSettings(fewest=2, farthest=99, strangest=99, least=0, most_changed=1)


@pytest.fixture(scope="module")
def bundle(signed: Any) -> Bundle:
    return bundles.read(signed.path, signer=signed.signer)


@pytest.fixture(scope="module")
def data(speech: Path, bundle: Bundle) -> SpeechData:
    return dataset.load(speech, bundle.header.features)


def test_what_the_guard_chose_answers(bundle: Bundle, data: SpeechData) -> None:
    methods = [make("aad", {"decay": 2.0}), make("logreg_self")]
    local = adapt_site(
        *(bundle, data.raw, data.speakers, methods),
        seed=1,
        device=CPU,
        schedule={"aad": Schedule(epochs=2)},
        guard=OPEN,
    )
    assert local.choice is not None
    assert list(local.candidates) == ["source", "aad", "logreg_self"]
    assert local.site.header.method == local.choice.name
    assert torch.allclose(local.answer.probabilities, local.candidates[local.choice.name], atol=1e-6)
    options = {"source": {}, "aad": methods[0].settings.model_dump(), "logreg_self": methods[1].settings.model_dump()}
    assert local.site.header.options == options[local.choice.name]
    assert len(local.history) == (2 if local.choice.name == "aad" else 0)


def test_recordings_far_from_the_sources_keep_the_source(bundle: Bundle, data: SpeechData) -> None:
    far = data.raw + 9 * data.raw.std(dim=0)
    assert distance(bundle, data.raw) < 2 < distance(bundle, far)
    local = adapt_site(*(bundle, far, data.speakers, [make("bn")]), seed=0, device=CPU)
    assert local.choice is not None
    assert local.choice.name == "source"
    assert "unlike the source's speech" in local.choice.reason
    plain = bundle.classifier().state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in local.site.model.state_dict().items())


def test_without_guard_there_is_one_method_and_it_is_used(bundle: Bundle, data: SpeechData) -> None:
    local = adapt_site(*(bundle, data.raw, data.speakers, [make("bn")]), seed=0, device=CPU, guard=None)
    assert (local.choice, local.site.header.method, dict(local.candidates)) == (None, "bn", {})
    with pytest.raises(UsageError, match="nobody chooses"):
        adapt_site(*(bundle, data.raw, data.speakers, [make("bn"), make("shot")]), seed=0, device=CPU, guard=None)


def test_a_personal_model_has_to_be_worth_it(bundle: Bundle, data: SpeechData) -> None:
    """The bundle's own model is worth nothing over itself; one whose answers follow the recordings is."""
    normaliser = SiteNormaliser.fit(data.raw, data.speakers, bundle.header.normalisation)
    x = normaliser.transform(data.raw, data.speakers)
    for settings, word in ((OPEN, "no better"), (GuardSettings(fewest=99), "too few")):
        choice, found = guard_personal(
            *(bundle, data.raw, x, bundle.classifier()), method="ecan", mask=None, settings=settings
        )
        assert choice.name == "source"
        assert word in choice.reason
        assert [each.name for each in found] == ["source", "ecan"]
    first = torch.nn.Linear(x.shape[1], len(bundle.header.classes))
    with torch.no_grad():
        direction = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)[2][0]
        first.weight.copy_(torch.stack([direction * (-1) ** k / (1 + k // 2) for k in range(first.out_features)]))
        first.bias.zero_()
    settings = OPEN.model_copy(update={"margin": 0.0})
    choice, found = guard_personal(*(bundle, data.raw, x, first), method="mine", mask=None, settings=settings)
    assert choice.name == "mine", choice
    assert found[1].model is first
