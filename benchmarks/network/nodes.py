"""A study of real nodes on loopback: the product's own commands, one process each."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from machine import Processes, free_port
from safetensors.torch import load_file

from fedser import files
from fedser.demo.corpus import CorpusPlan, write_corpus

SHARED = ("rab", "dis", "pau", "gio", "neu", "tri")  # EMOVO's words for the emotions that EMO-DB has too
CLASSES = "anger,disgust,fear,happiness,neutral,sadness"


@dataclass
class Study:
    """One study: its folders, and how its nodes are started.

    Attributes:
        folder: for the nodes' states.
        processes: where they run.
        sites: the recordings of each site by name.
        settings: of the study, as ``fedser-server start`` takes them.
        join: further options of ``fedser-client join``.
    """

    folder: Path
    processes: Processes
    sites: Mapping[str, Path]
    settings: Sequence[str]
    join: Sequence[str] = ()
    port: int = field(default_factory=free_port)

    @property
    def provider(self) -> Path:
        """The provider's state folder."""
        return self.folder / "provider"

    def site(self, name: str) -> Path:
        """A site's state folder."""
        return self.folder / name

    def invite(self, study: str) -> None:
        """Begin anew: empty states, one invitation a site."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in self.sites:
            made = ("--out", self.folder / f"{name}.invite", "--address", f"127.0.0.1:{self.port}")
            self.processes.start(
                f"invite-{name}", server("invite", name, *made, "--state", self.provider, "--study", study)
            )
            self.processes.wait([f"invite-{name}"], 120)

    def start(self) -> None:
        """Start the provider, the first time or again: it is the same command."""
        options = ("--sites", len(self.sites), "--state", self.provider, "--port", self.port)
        self.processes.start("provider", server("start", *options, *self.settings))

    def join_all(self) -> None:
        """Start every site for the first time."""
        for name, data in self.sites.items():
            options = ("--data", data, "--state", self.site(name), *self.join)
            self.processes.start(name, client("join", self.folder / f"{name}.invite", *options))

    def again(self, name: str) -> None:
        """Start a node again."""
        if name == "provider":
            self.start()
        else:
            self.processes.start(name, client("run", "--state", self.site(name)))

    def finish(self, seconds: float) -> None:
        """Wait until all nodes ended well."""
        self.processes.wait(["provider", *self.sites], seconds)

    def joint(self) -> dict[str, torch.Tensor]:
        """The last joint tensors."""
        return load_file(self.provider / "joint.safetensors")

    def personal(self, name: str) -> dict[str, torch.Tensor]:
        """A site's personal model."""
        held = load_file(self.site(name) / "state.safetensors")
        return {key.removeprefix("personal/"): value for key, value in held.items() if key.startswith("personal/")}


def server(*words: object) -> list[str]:
    """A command of the provider's node."""
    return [sys.executable, "-m", "fedser_server", *map(str, words)]


def client(*words: object) -> list[str]:
    """A command of a site's node."""
    return [sys.executable, "-m", "fedser_client", *map(str, words)]


def emovo_sites(corpora: Path, folder: Path, pairs: Sequence[Sequence[str]], limit: int | None) -> dict[str, Path]:
    """Folders of links to EMOVO's recordings: one site for each group of speakers.

    Args:
        corpora: where ``emovo`` lies.
        folder: where the links are made.
        pairs: speakers of each site.
        limit: recordings a site at most, evenly spread; all of the shared emotions when None.
    """
    sites = {}
    for number, speakers in enumerate(pairs):
        found = sorted(
            path
            for path in (corpora / "emovo").rglob("*")
            if path.suffix in (".flac", ".wav") and path.stem[:3] in SHARED and path.stem.split("-")[1] in speakers
        )
        if not found:
            raise SystemExit(f"{corpora / 'emovo'} holds no recordings of {', '.join(speakers)}")
        kept = found if limit is None else found[:: max(1, len(found) // limit)][:limit]
        site = folder / f"data-{number + 1}"
        shutil.rmtree(site, ignore_errors=True)
        files.output_folder(site)
        for path in kept:
            (site / path.name).symlink_to(path.resolve())
        sites[f"site-{'abc'[number]}"] = site
    return sites


def synthetic_sites(folder: Path, count: int, utterances: int = 12) -> dict[str, Path]:
    """Small sites of synthetic speech."""
    sites = {}
    for number in range(count):
        site = folder / f"data-{number + 1}"
        if not (site / "manifest.csv").exists():
            shutil.rmtree(site, ignore_errors=True)
            plan = CorpusPlan(site.name, speakers=2, utterances=utterances, seconds=(0.6, 0.9), first=100 * number)
            write_corpus(site, plan, seed=6)
        sites[f"site-{'abcdefgh'[number]}"] = site
    return sites


def difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The largest absolute difference between two sets of tensors; infinite when they are not the same tensors."""
    if {name: tensor.shape for name, tensor in one.items()} != {name: tensor.shape for name, tensor in other.items()}:
        return float("inf")
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)
