"""The client: answers with what came and a little more, since Flower sends no object twice."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    """One order, answered at once."""
    (came,) = message.content["arrays"].to_numpy_ndarrays()
    changed = ArrayRecord({"weight": Array(came + np.float32(1e-3 * (1 + context.node_id % 97)))})
    content = RecordDict({"arrays": changed, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)
