"""One HTML page that explains a self-training: its rounds, why it stopped, and which model to use."""

import shlex
from pathlib import Path

from nnunet_ext.evaluation.largest_component import PIECES
from nnunet_ext.evaluation.scores_table import nanmean
from nnunet_ext.files import write_text
from nnunet_ext.messages import counted
from nnunet_ext.pseudo_labels.datasets import PICTURES
from nnunet_ext.report.charts import draw_strips
from nnunet_ext.report.overlays import data_url
from nnunet_ext.report.page import page_template, time_written
from nnunet_ext.self_training.rounds import SelfTraining
from nnunet_ext.self_training.state import Round, has_improved

PAGE = "report.html"


def write_page(training: SelfTraining) -> Path:
    """Write the page of a self-training with at least one round, whole or not at all; returns the file."""
    state, rounds = training.state, training.state.rounds
    labelled = [one for one in rounds if one.labelling is not None]
    taught = training.raw / state.request.dataset(labelled[-1].number if labelled else 0)
    pictures = sorted((taught / PICTURES).glob("*.png"))
    scored = [one for one in rounds if one.dice is not None]
    strips = [(one.number, [nanmean(row) for row in training.scores(one.number).values.tolist()]) for one in scored]
    page = page_template("self_training.html").render(
        title=f"Self-training on {state.request.labelled}",
        request=state.request,
        pieces=PIECES,
        written=time_written(),
        reason=training.reason or "It has not ended: repeat the command to go on.",
        best=training.best,
        improved=training.best.number > 0,
        rounds=rounds,
        verdicts=[_verdict(one, state.request.margin) for one in rounds],
        labels=list(scored[0].by_label),
        cases=len(strips[0][1]),
        strips=draw_strips("Dice, mean over the labels", strips),
        counted=counted,
        percent=lambda share: "–" if share is None else f"{share:.1%}",
        remarks=state.remarks,
        pictures=[(file.stem, data_url(file.read_bytes())) for file in pictures],
        pictures_of=labelled[-1].number if labelled else 0,
        use=commands_to_use(training.best),
        commands=list(state.done.values()),
    )
    write_text(training.folder / PAGE, page)
    return training.folder / PAGE


def commands_to_use(best: Round) -> list[str]:
    """How to predict with a round's model, score it on cases that chose nothing, and export it."""
    model, folds = shlex.quote(best.model), " ".join(map(str, best.folds))
    return [
        f"nnUNetv2_predict_from_modelfolder -m {model} -f {folds} -i IN -o OUT",
        f"nnunet_ext evaluate {model} -f {folds} --on DATASET:test -o EVALUATION",
        f"nnunet_ext export-stock {model} -o EXPORTED",
    ]


def _verdict(one: Round, margin: float) -> str:
    if one.number == 0:
        return "the teacher"
    if one.dice is None:
        return "nothing was labelled"
    return "better" if has_improved(one, margin) else "not better"
