"""Gradient reversal, its schedule and the domain loss against hand calculation."""

from __future__ import annotations

import math

import pytest
import torch

from fedser.models import EmotionClassifier, ModelSettings
from fedser.transfer import Batch, Part, make
from fedser.transfer.dann import domain_loss, reversal_strength, reverse_gradient


def test_the_reversal_is_the_identity_with_a_negative_gradient():
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    seen = reverse_gradient(x, 0.25)
    assert torch.equal(seen, x)
    (seen * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert torch.equal(x.grad, -0.25 * torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


def test_the_schedule_goes_from_nothing_to_almost_one():
    assert reversal_strength(0.0) == 0.0
    assert reversal_strength(0.1) == pytest.approx(math.tanh(0.5))  # 2/(1+e^-x) - 1 = tanh(x/2)
    assert reversal_strength(1.0) == pytest.approx(0.9999092)
    steps = [reversal_strength(t / 20) for t in range(21)]
    assert steps == sorted(steps)


def test_the_domain_loss_weighs_both_corpora_alike():
    logits = torch.tensor([[0.3], [-1.0], [2.0]])
    source = (math.log(1 + math.exp(0.3)) + math.log(1 + math.exp(-1.0))) / 2
    target = math.log(1 + math.exp(-2.0))
    assert float(domain_loss(logits, 2)) == pytest.approx((source + target) / 2)


def test_the_discriminator_learns_what_the_network_unlearns():
    model = EmotionClassifier(ModelSettings(hidden=4, bottleneck=3), (5,), ("a", "b"))
    reference = make("dann", model, {"weight": 2.0}, seed=0)
    rng = torch.Generator().manual_seed(4)
    b = [torch.randn(6, 3, generator=rng).requires_grad_() for _ in range(2)]
    parts = [Part(torch.zeros(6, 4), own, torch.zeros(6, 2)) for own in b]
    loss = reference.loss(Batch(parts[0], parts[1], torch.zeros(6, dtype=torch.long), 0.1))["domain"]
    loss.backward()
    found = [own.grad.clone() for own in b]
    kept = [parameter.grad.clone() for parameter in reference.parameters()]
    for tensor in (*b, *reference.parameters()):
        tensor.grad = None
    plain = 2.0 * domain_loss(reference.discriminator(torch.cat(b)), 6)
    plain.backward()
    assert loss.item() == pytest.approx(plain.item())
    for reversed_gradient, own in zip(found, b, strict=True):
        assert torch.allclose(reversed_gradient, -math.tanh(0.5) * own.grad, atol=1e-7)
    for first, parameter in zip(kept, reference.parameters(), strict=True):
        assert torch.allclose(first, parameter.grad)
