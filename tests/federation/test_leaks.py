"""Leak mutants: a site's code gone wrong, or exchanged, that tries to send what must not leave.

Each mutant is a stage of the site's step, or a site that writes its reply itself and signs it with the true key. It is
refused on the way out (the gate answers with a code), or cannot be written (the encoder raises), or is refused by the
provider's decoder. What none of them can see is listed in ``OUT_OF_REACH`` with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from fedser.adapt import probabilities
from fedser.adapt.probabilities import outputs
from fedser.errors import WireError
from fedser.federation import wire
from fedser.federation.audit import AuditLog
from fedser.federation.gate import Gate
from fedser.federation.layout import pack, raw_bytes, tensor_digest
from fedser.federation.local import adapt_locally
from fedser.federation.policy import Policy
from fedser.federation.provider import accept
from fedser.federation.schema import Code, Order, Refusal, Scalars, Update
from fedser.federation.site import Site
from fedser.federation.stages import SiteWork
from tests.federation.conftest import ORDER_KEY, Lab, key, local_data

KEY = key(1)
PLAN = Lab.plan({"site-1": None}, steps=4, rounds=1, largest_norm=20.0)
START = Lab.start(PLAN)


def the_order(**changes: Any) -> Order:
    order = Lab.provider({}, PLAN).order(1, "site-1", "train", START)
    return replace(order, **{"expires": 2**40, **changes})


def site_with(*stages: Callable[[SiteWork], SiteWork], policy: Policy | None = None, audit: Any = None) -> Site:
    return Lab.site(1, policy, stages=(adapt_locally, *stages), audit=audit)


def answer(site: Site, order: Order | None = None) -> bytes:
    return site.answer(wire.encode(order or the_order(), START, ORDER_KEY))


def received(reply: bytes, order: Order) -> str | None:
    """Why the provider does not take a reply; None when it does."""
    try:
        accept(reply, order, "site-1", PLAN)
    except WireError as error:
        return str(error)
    return None


# Mutants of a stage: they put something into the update in place of the change.


def in_place_of_the_update(make: Callable[[SiteWork], Tensor]) -> Callable[[], bool]:
    def refused() -> bool:
        order, log = the_order(), AuditLog()
        site = site_with(lambda work: replace(work, update=make(work)), audit=log)
        reply = answer(site, order)
        message, flat = wire.decode_reply(reply, KEY.public_hex)
        events = [record["event"] for record in log.records]
        return message == Refusal(1, wire.order_digest(order), Code.FAILED) and not len(flat) and events == ["refusal"]

    return refused


def bank(work: SiteWork) -> Tensor:
    b, p = outputs(work.data.model, work.data.x, None)
    return torch.cat([b, p], dim=1).flatten()


def statistics(work: SiteWork) -> Tensor:
    buffers = [t.float().flatten() for name, t in work.state.own.items() if "running_" in name]
    return torch.cat([work.update, *buffers])


def first_layer(work: SiteWork) -> Tensor:
    first = [work.state.own[name].flatten() for name in work.data.model.first_layer()]
    return torch.cat([work.update, *first])


# Mutants of the reply: the site writes and signs it itself.


def honest() -> tuple[Order, Update, Tensor]:
    order = the_order()
    update, flat = wire.decode_reply(answer(site_with(), order), KEY.public_hex)
    assert isinstance(update, Update)
    return order, update, flat


def with_body(change: Callable[[dict[str, Any]], None]) -> Callable[[], bool]:
    """A correctly signed update whose body holds something more, or of another kind."""

    def refused() -> bool:
        order, update, flat = honest()
        body = json.loads(json.dumps(asdict(update)))
        assert received(forge(body, flat), order) is None  # the forger writes what a site writes
        change(body)
        return "not on the schema" in (received(forge(body, flat), order) or "")

    return refused


def forge(body: dict[str, Any], flat: Tensor) -> bytes:
    signature = KEY.sign(b"fedser/update/1\n" + wire._canonical(body).encode()).hex()
    return wire._container(wire._canonical({"body": body, "kind": "update", "signature": signature}), raw_bytes(flat))


def with_header(change: Callable[[dict[str, Any]], bytes]) -> Callable[[], bool]:
    """An honest reply in a container that holds something more."""

    def refused() -> bool:
        order = the_order()
        data = answer(site_with(), order)
        length = int.from_bytes(data[:8], "little")
        parsed = json.loads(data[8 : 8 + length])
        extra = change(parsed)
        text = json.dumps(parsed, separators=(",", ":")).encode()
        forged = len(text).to_bytes(8, "little") + text + data[8 + length :] + extra
        return received(forged, order) is not None

    return refused


def second_tensor(parsed: dict[str, Any]) -> bytes:
    end = parsed["flat"]["data_offsets"][1]
    parsed["probabilities"] = {"dtype": "F32", "shape": [2], "data_offsets": [end, end + 8]}
    return bytes(8)


def metadata(parsed: dict[str, Any]) -> bytes:
    parsed["__metadata__"]["error"] = "FileNotFoundError: /data/ward-3/f1_anger.wav"
    return b""


def exception_text() -> bool:
    """A stage that fails on a recording: all that leaves is the code, and the reply holds no word of it."""

    def failing(work: SiteWork) -> SiteWork:
        raise RuntimeError("speaker f1: ward-3/f1_anger.wav is silent")

    order = the_order()
    reply = answer(site_with(failing), order)
    message, _ = wire.decode_reply(reply, KEY.public_hex)
    return message == Refusal(1, wire.order_digest(order), Code.FAILED) and b"ward" not in reply


def text_in_a_refusal() -> bool:
    try:
        Refusal(1, "0" * 64, Code.FAILED, "f1_anger.wav")  # type: ignore[call-arg]
    except (TypeError, ValidationError):
        pass
    else:
        return False
    body = {"protocol": 1, "order_digest": None, "code": 13, "text": "f1_anger.wav"}
    signature = KEY.sign(b"fedser/refusal/1\n" + wire._canonical(body).encode()).hex()
    entry = wire._canonical({"body": body, "kind": "refusal", "signature": signature})
    return "not on the schema" in (received(wire._container(entry, b""), the_order()) or "")


def list_valued_metric() -> bool:
    """By the schema on the site itself, and by the provider's."""
    try:
        Scalars(loss=[0.1, 0.2], confidence=0.5, diversity=0.5)  # type: ignore[arg-type]
    except ValidationError:
        return with_body(lambda body: body.update(scalars={"loss": [0.1], "confidence": 0.5, "diversity": 0.5}))()
    return False


def exact_scalars() -> bool:
    """Scalars with all their digits: the gate rounds whatever a stage hands over."""
    exact = Scalars(loss=1.23456789, confidence=0.123456789, diversity=0.987654321)
    update, _ = wire.decode_reply(answer(site_with(lambda work: replace(work, scalars=exact))), KEY.public_hex)
    assert isinstance(update, Update)
    return update.scalars == Scalars(loss=1.235, confidence=0.123, diversity=0.988)


def exact_count() -> bool:
    """No stage hands a count over: the gate alone writes it, in units of the policy, of at least ten."""
    assert not any("count" in name or "utterances" in name for name in SiteWork.__dataclass_fields__)
    update, _ = wire.decode_reply(answer(site_with()), KEY.public_hex)
    try:
        Policy(count_unit=1)
    except ValidationError:
        assert isinstance(update, Update)
        return update.utterances == 50 != len(local_data(1).x)
    return False


def first_layer_ordered() -> bool:
    """An order whose layout names the first layer: the gate refuses it before anything is computed."""
    model = Lab.data().model
    name = model.first_layer()[0]
    layout = ((name, tuple(dict(model.named_parameters())[name].shape)), *PLAN.layout)
    flat = pack(dict(model.named_parameters()), layout)
    order = the_order(layout=layout, tensor_digest=tensor_digest(flat))
    message, _ = wire.decode_reply(site_with().answer(wire.encode(order, flat, ORDER_KEY)), KEY.public_hex)
    return isinstance(message, Refusal) and message.code == Code.LAYOUT


def statistics_ordered() -> bool:
    """An order whose layout names normalisation buffers."""
    flat = torch.zeros(8)
    order = the_order(layout=(("encoder.layers.1.running_mean", (8,)),), tensor_digest=tensor_digest(flat))
    message, _ = wire.decode_reply(site_with().answer(wire.encode(order, flat, ORDER_KEY)), KEY.public_hex)
    return isinstance(message, Refusal) and message.code == Code.LAYOUT


def unclipped() -> bool:
    """A stage that shouts is clipped; a site without a gate is refused by the provider's own bound."""
    loud = site_with(lambda work: replace(work, update=work.update * 1e4), policy=Policy(clip=2.0))
    order = the_order()
    _, flat = wire.decode_reply(answer(loud, order), KEY.public_hex)
    update = replace(honest()[1], tensor_digest=tensor_digest(flat * 1e3))
    return float(flat.double().norm()) <= 2.0 and "norm" in (
        received(wire.encode(update, flat * 1e3, KEY), order) or ""
    )


def unrecorded() -> bool:
    """What the log cannot take down does not leave."""

    class Full(AuditLog):
        def append(self, entry: Any) -> str:
            raise OSError("the disk is full")

    try:
        answer(site_with(audit=Full()))
    except OSError:
        return True
    return False


def soft_labels(work: SiteWork) -> Tensor:
    return probabilities(work.data.model, work.data.x).flatten()


MUTANTS: dict[str, Callable[[], bool]] = {
    "audio": in_place_of_the_update(lambda work: torch.zeros(16_000)),
    "features": in_place_of_the_update(lambda work: work.data.x.flatten()),
    "features behind the update": in_place_of_the_update(lambda work: torch.cat([work.update, work.data.x[0]])),
    "bank": in_place_of_the_update(bank),
    "pseudo-labels": in_place_of_the_update(lambda work: soft_labels(work).view(24, 3).argmax(dim=1).float()),
    "logits": in_place_of_the_update(soft_labels),
    "statistics behind the update": in_place_of_the_update(statistics),
    "statistics by an order": statistics_ordered,
    "first layer behind the update": in_place_of_the_update(first_layer),
    "first layer by an order": first_layer_ordered,
    "one utterance's gradient each": in_place_of_the_update(lambda work: work.update.repeat(24, 1)),
    "names": with_body(lambda body: body.update(names=["f1_anger.wav"])),
    "speaker ids": with_body(lambda body: body.update(speakers=["f1", "m1"])),
    "speaker as the count": with_body(lambda body: body.update(utterances="f1")),
    "class counts": with_body(lambda body: body.update(utterances=[10, 8, 6])),
    "class counts as scalars": with_body(lambda body: body["scalars"].update(anger=10.0)),
    "exact count": exact_count,
    "exact scalars": exact_scalars,
    "run time": with_body(lambda body: body["scalars"].update(seconds=3.2)),
    "free text": with_body(lambda body: body.update(note="patient 17 was angry")),
    "list-valued metric": list_valued_metric,
    "logits as scalars": with_body(lambda body: body["scalars"].update(loss=[[0.1, 0.9]])),
    "scales that hold features": with_body(lambda body: body.update(scales=[["x", 0.5]])),
    "extra tensor": with_header(second_tensor),
    "exception text in the metadata": with_header(metadata),
    "bytes behind the tensor": with_header(lambda parsed: b"f1_anger"),
    "exception text": exception_text,
    "text in a refusal": text_in_a_refusal,
    "unclipped norm": unclipped,
    "an update that is not recorded": unrecorded,
}

OUT_OF_REACH = {
    "data in the low bits of an update": "Every bit of a float is a legal value; only noise larger than the hidden "
    "bits (differential privacy) or fewer bits (8-bit updates) leave less room.",
    "features in place of an update, of its length": "Shape, range and norm are those of an update, and the gate does "
    "not know what training should have given. It takes a change of the installed code, which no message can make.",
    "the choice whether or when to answer": "A site may always refuse; that tells a bit, and so does its delay.",
    "a refusal's code as a message": "Eighteen codes are eighteen words; each is recorded in the audit log.",
    "what an honest update itself tells": "Gradients carry information about the data. Clipping, local layers, the "
    "trap check and the lower bounds on batch and steps bound it, and differential privacy limits it.",
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_leak_is_refused(name: str) -> None:
    assert MUTANTS[name]()


def test_the_list_holds_what_it_must() -> None:
    assert len(MUTANTS) >= 16
    assert all(reason.endswith(".") for reason in OUT_OF_REACH.values())


def test_features_of_an_updates_length_are_out_of_reach() -> None:
    """The list is honest: this one does pass."""
    site = site_with(lambda work: replace(work, update=work.data.x.flatten().repeat(9)[: len(work.update)]))
    order = the_order()
    assert received(answer(site, order), order) is None


class Ungated(Gate):
    """A gate that lets everything through shows that the tests above see a leak."""

    def bound(self, order: Order, flat: Tensor, scalars: Scalars | None) -> tuple[Update, Tensor] | None:
        update = Update(1, wire.order_digest(order), tensor_digest(flat), 24, scalars)
        return update, flat


@pytest.mark.parametrize("name", ["features", "bank", "pseudo-labels", "logits", "exact scalars", "unclipped norm"])
def test_without_the_gate_the_leak_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedser.federation.site.Gate", Ungated)
    assert not MUTANTS[name]()
