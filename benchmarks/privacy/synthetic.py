"""The synthetic speakers of ``configs/privacy/speakers.yaml``, as settings and as recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from fedser import console
from fedser.config import Settings
from fedser.demo.corpus import CorpusPlan, write_corpus
from fedser.demo.rooms import CLINIC, OFFICE, PHONE, STUDIO
from fedser.demo.voices import EVERYDAY, STAGE

POPULATIONS = {"stage": STAGE, "everyday": EVERYDAY}
CHANNELS = {"studio": STUDIO, "clinic": CLINIC, "phone": PHONE, "office": OFFICE}


class Speakers(Settings):
    """One synthetic corpus.

    Attributes:
        name: of its folder.
        speakers: how many voices.
        utterances: how many recordings; emotions and speakers get nearly equal shares.
        population: whose habits the speakers share.
        channel: where they are recorded.
        seconds: shortest and longest recording.
        first: number of the first voice, so that corpora of one seed share no speaker.
    """

    name: str
    speakers: int = Field(ge=1)
    utterances: int = Field(ge=1)
    population: Literal["stage", "everyday"]
    channel: Literal["studio", "clinic", "phone", "office"]
    seconds: tuple[float, float]
    first: int = Field(ge=0)

    def plan(self) -> CorpusPlan:
        """The same for the synthesiser."""
        return CorpusPlan(
            self.name,
            self.speakers,
            self.utterances,
            POPULATIONS[self.population],
            CHANNELS[self.channel],
            seconds=self.seconds,
            first=self.first,
        )


class World(Settings):
    """The provider's corpus, the site's, and the one that settings are chosen on.

    Attributes:
        seed: of the voices.
        source: what the published model learns.
        target: what the figures are measured on.
        development: what settings may be chosen on.
    """

    seed: int = Field(ge=0)
    source: Speakers
    target: Speakers
    development: Speakers


def synthesise(world: World, out: Path, names: tuple[str, ...]) -> None:
    """Write the named corpora of a world below ``out``."""
    for name in names:
        plan: Speakers = getattr(world, name)
        with console.progress(f"synthesising {plan.name}", plan.utterances) as step:
            write_corpus(out / plan.name, plan.plan(), world.seed, step)
