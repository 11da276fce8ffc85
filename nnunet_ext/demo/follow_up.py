"""The demonstration with a prior scan: stock nnU-Net on the current scan alone, and a trainer that has both."""

from __future__ import annotations

from pathlib import Path

from nnunet_ext.demo.longitudinal_phantoms import LABELS, write_follow_up_dataset
from nnunet_ext.demo.run import STOCK, STOCK_TRAINER, Model, number_of, set_up
from nnunet_ext.demo.stopping import stopping_signals_interrupt

WITH_PRIOR = "Dataset902_FollowUpWithPrior"


def run_follow_up_demo(
    out: Path, *, trainer: str, device: str = "auto", epochs: int | None = None, force: bool = False
) -> Path:
    """Train both on fold 0 of two-date phantoms, predict the test patients, write ``report.html``.

    The trainer's model predicts them twice: with their priors, and as if they had none.

    Args:
        out: folder for everything; the environment of this process stays as it is.
        trainer: class name of a trainer that takes the datasets of ``nnunet_ext pair``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        epochs: of each training; None takes the preset's.
        force: empty `out` first.

    Returns:
        The report.

    Raises:
        UserError: if an argument cannot be used.
        CommandFailed: if a command fails.
    """
    place = set_up(out, device=device, epochs=epochs, force=force, commands=15)
    print("Making the phantoms, at two dates", flush=True)
    current = write_follow_up_dataset(place.raw)
    both = current.with_name(WITH_PRIOR)
    labels = [f"{name}={value}" for name, value in LABELS.items() if name != "background"]
    pair = ["nnunet_ext", "pair"]
    with stopping_signals_interrupt():
        training = ["--table", str(current / "pairsTr.csv"), "--labels", *labels]
        place.runner.run("pair", [*pair, *training, "-o", both.name])
        alone = Model(current, place.plan(current), STOCK_TRAINER)
        with_prior = Model(both, place.plan(both), trainer)
        for model in (alone, with_prior):
            place.train(model)

        scans, references = current / "imagesTs", current / "labelsTs"
        with_theirs, with_none = place.out / "held_out" / "with_prior", place.out / "held_out" / "without_prior"
        like = [*pair, "--predict", "--like", number_of(both)]
        place.runner.run("pair_test", [*like, "--table", str(current / "pairsTs.csv"), "-o", str(with_theirs)])
        place.runner.run("pair_test_without_prior", [*like, "--current", str(scans), "-o", str(with_none)])

        name = trainer.removeprefix("nnUNetTrainer")
        runs = [
            place.evaluate(f"{STOCK}, current scan", alone, images=scans, labels=references),
            place.evaluate(name, with_prior, images=with_theirs, labels=references),
            place.evaluate(
                f"{name}, prior withheld", with_prior, images=with_none, labels=references, suffix="_without_prior"
            ),
        ]
    cases = len(list(references.iterdir()))
    title = f"{name} beside {STOCK} without the prior scan, on phantoms at two dates"
    return place.report(runs, title=title, description=f"Evaluated on the {cases} test patients of {current.name}.")
