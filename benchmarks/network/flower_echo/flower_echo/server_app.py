"""The server: FedAvg as it comes, with the seconds of each round written down."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):  # type: ignore[misc]
    """FedAvg that notes how long its rounds take, from the first order to the aggregated arrays."""

    begin = 0.0
    notes = Path("/dev/null")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A round begins."""
        self.begin = time.monotonic()
        return list(super().configure_train(server_round, arrays, config, grid))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """A round ends."""
        kept = list(replies)
        result: tuple[ArrayRecord | None, MetricRecord | None] = super().aggregate_train(server_round, kept)
        told: dict[str, Any] = {"event": "round", "round": server_round, "seconds": time.monotonic() - self.begin}
        with self.notes.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**told, "answers": sum(reply.has_content() for reply in kept)}) + "\n")
        return result


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """All rounds."""
    config = context.run_config
    sites = int(config["sites"])
    strategy = Timed(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=sites,
        min_evaluate_nodes=0,
        min_available_nodes=sites,
    )
    strategy.notes = Path(str(config["notes"]))
    weights = np.random.default_rng(99).standard_normal(int(config["values"]), dtype=np.float32)
    start = ArrayRecord({"weight": Array(weights)})
    strategy.start(grid=grid, initial_arrays=start, num_rounds=int(config["rounds"]), timeout=1200)
