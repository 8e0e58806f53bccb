"""The ``fedser`` command: assembles the command groups."""

from __future__ import annotations

from fedser.commands import (
    adapt,
    attack,
    bench,
    bundle,
    corpus,
    demo,
    doctor,
    entry,
    keys,
    predict,
    report,
    segment,
    simulate,
    train,
    weights,
)

app = entry.program("fedser", "Federated, source-free, privacy-preserving adaptation of speech-emotion models.")

app.command("demo")(demo.demo)
app.add_typer(corpus.app, name="corpus")
app.command("segment")(segment.segment)
app.command("train")(train.train)
app.add_typer(weights.app, name="weights")
app.add_typer(keys.app, name="keys")
app.add_typer(bundle.app, name="bundle")
app.command("adapt")(adapt.adapt)
app.command("predict")(predict.predict)
app.command("simulate")(simulate.simulate)
app.command("bench")(bench.bench)
app.command("attack")(attack.attack)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line; exit with the code of the error, without a traceback."""
    entry.run(app)


if __name__ == "__main__":
    main()
