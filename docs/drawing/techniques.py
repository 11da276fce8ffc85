"""What goes in, what a training step makes of it, and what is to be learned: a picture for each technique.

No network is trained for them. Where a step needs a network's answer, `stand_in` takes its place.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

from drawing.layout import BACKGROUND, Colour, Panel, Picture, Pixels, Row
from drawing.scans import (
    BACKGROUND_STROKE,
    COLOURS,
    LABELS,
    SPACING,
    STROKES,
    Scan,
    greys,
    heat,
    over,
    scan,
    soft,
    stand_in,
    two_dates,
)
from nnunet_ext.augmentation import batch_mixing
from nnunet_ext.augmentation.carving import carved_regions
from nnunet_ext.demo.phantoms import LESION, LIVER, SPLEEN
from nnunet_ext.finetuning import strategies
from nnunet_ext.finetuning.entries import Rows, top_entries
from nnunet_ext.finetuning.roles import Role, parameter_roles
from nnunet_ext.finetuning.strict_optimizers import StrictSGD
from nnunet_ext.losses.consistency import mean_log_probabilities
from nnunet_ext.losses.early_learning import corrected_labels
from nnunet_ext.losses.hard_labels import log_probabilities, one_hot
from nnunet_ext.losses.partial_instances import mixed_pseudo_labels
from nnunet_ext.losses.partial_labels import partial_logits
from nnunet_ext.preprocessing.simulate.label_noise import noisy_labels
from nnunet_ext.preprocessing.simulate.partial_annotation import partial_labels
from nnunet_ext.preprocessing.simulate.scribbles import Strokes, scribble_map
from nnunet_ext.techniques.adele import ADELESettings
from nnunet_ext.techniques.dbdmp import DBDMPSettings
from nnunet_ext.techniques.mixup import MixUpSettings
from nnunet_ext.trainers.dmpls import nnUNetTrainerDMPLS
from nnunet_ext.trainers.dual_encoder import without_prior

WHITE: Colour = (255, 255, 255)
FREE: Colour = (255, 150, 40)
SELECTED: Colour = (255, 225, 120)
FROZEN: Colour = (84, 84, 84)
FREEDOMS = {
    strategies.Freedom.FREE: FREE,
    strategies.Freedom.SELECTED: SELECTED,
    strategies.Freedom.FROZEN: FROZEN,
}


def batch_of(values: np.ndarray | Tensor) -> Tensor:
    """(X, Y, Z) as (1, 1, X, Y, Z)."""
    return torch.as_tensor(np.asarray(values))[None, None]


def classes_of(logits: Tensor) -> np.ndarray:
    """(X, Y, Z) map of the largest logit of each voxel."""
    return logits[0].argmax(dim=0).numpy()


# ---------------------------------------------------------------------- mixup


MIXUP_SEED = 0
"""One for which the box of CutMix crosses the slice that is shown, and a lesion."""
CARVING_SEED = 12
"""One whose margin takes along some of what is around the foreground."""


def mixup() -> list[Row]:
    """A pair of patches, mixed in the three ways, with the targets."""
    rng, pair = np.random.default_rng(MIXUP_SEED), (scan(1), scan(5))
    image = torch.stack([torch.from_numpy(one.image)[None] for one in pair])
    labels = torch.stack([torch.from_numpy(one.labels.astype(np.int64))[None] for one in pair])
    partners, first = batch_mixing.draw_partners(2, rng), pair[0]
    ratios = batch_mixing.draw_ratios(2, MixUpSettings().alpha, rng)
    target, _ = batch_mixing.class_targets(labels, 4, None)
    box = batch_mixing.draw_box(labels.shape[2:], rng)[None, None]
    carved = carved_regions(labels[partners, 0] > 0, SPACING, np.random.default_rng(CARVING_SEED))[:, None]
    mixed = batch_mixing.blend(image, partners, ratios)[0, 0]
    soft_target = batch_mixing.blend(target, partners, ratios)[0]
    images, targets = [], []
    for name, region in (("CutMix", box), ("CarveMix", carved)):
        images.append(Panel(name, first.shown(batch_mixing.paste(image, partners, region)[0, 0])))
        pasted = batch_mixing.paste(labels, partners, region)[0, 0]
        targets.append(Panel("", over(np.zeros_like(images[-1].pixels), first.plane(pasted), opacity=1)))
    blended = soft(np.stack([first.plane(one) for one in soft_target]))
    given = [Panel(name, first.shown(one.image, one.labels)) for name, one in zip(("one patch", "its partner"), pair)]
    percent = round(100 * ratios[0])
    return [
        Row("Given: two patches with labels", given),
        Row(
            "In a step: mixed images",
            [Panel(f"MixUp, {percent} : {100 - percent}", first.shown(mixed)), *images],
        ),
        Row("and the targets of the network", [Panel("", blended), *targets]),
    ]


# ---------------------------------------------------------------------- fine-tuning


def network() -> PlainConvUNet:
    """A small two-dimensional U-Net of nnU-Net's kind with four stages."""
    torch.manual_seed(0)
    return PlainConvUNet(
        1,
        4,
        (4, 8, 16, 16),
        nn.Conv2d,
        3,
        (1, 2, 2, 2),
        (1, 1, 1, 1),
        4,
        (1, 1, 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
    )


def freedom_map(strategy: strategies.Strategy) -> Pixels:
    """A U-Net in which each parameter has the colour of its freedom.

    A stage is a box: kernels are its upper part, biases the bar below, and the last bar has the scales of the
    normalisation at the left and its biases at the right. Heads stand at the right of the decoder.
    """
    pixels = np.full((72, 72, 3), BACKGROUND, dtype=np.uint8)
    net = network()
    roles, freedoms = parameter_roles(net), strategy(net)
    for name, role in roles.items():
        part, kind, number = name.split(".")[:3]
        stage = int(number)
        if part == "decoder" and "encoder" in name:
            continue
        if part == "decoder":
            stage = 2 - stage
        top, left = 4 + 17 * stage, 3 + 7 * stage
        if part == "decoder":
            left = 52 - 7 * stage
        bars = {"convolution": (0, 9), "transposed convolution": (0, 9), "bias": (10, 12)}
        low, high = bars.get(role.value, (13, 15))
        width = 11
        if role in (Role.NORMALIZATION, Role.NORMALIZATION_BIAS):
            width = 5
            left += 6 * (role is Role.NORMALIZATION_BIAS)
        if kind == "seg_layers":
            low, high, left, width = 0, 9, left + 12, 4
        pixels[top + low : top + high, left : left + width] = FREEDOMS[freedoms[name]]
    return pixels


def moved_entries() -> list[Panel]:
    """The gradient of one kernel, the entry of each row that a step of DGST moves, and those that ten steps moved."""
    net, rng, cases = network(), np.random.default_rng(0), [scan(seed) for seed in (1, 5)]
    weight = net.encoder.stages[2][0].convs[0].conv
    rows, before = Rows.of(weight), weight.weight.detach().clone()
    optimizer = StrictSGD([weight.weight], lr=0.01, momentum=0.9, nesterov=True)
    panels: list[Panel] = []
    for number in range(10):
        case = cases[rng.integers(2)]
        plane = int(rng.integers(10, 30))
        image = torch.from_numpy(case.image[None, None, :, :, plane])
        labels = torch.from_numpy(case.labels[None, :, :, plane].astype(np.int64))
        net.zero_grad()
        nn.functional.cross_entropy(net(image), labels).backward()
        gradient = weight.weight.grad
        optimizer.selected = {weight.weight: top_entries(gradient, rows, 1)}
        shown = rows.matrix(gradient.abs()).numpy()
        optimizer.step()
        if number == 0:
            share = shown / shown.max(axis=1, keepdims=True)
            panels.append(Panel("gradient", kernel(heat(share, WHITE))))
            panels.append(Panel("moved in a step", kernel(where_moved(before, weight, rows))))
    return [*panels, Panel("in ten steps", kernel(where_moved(before, weight, rows)))]


def where_moved(before: Tensor, module: nn.Module, rows: Rows) -> Pixels:
    """The entries of a kernel that have changed."""
    moved = rows.matrix(module.weight.detach() != before).numpy()
    return np.where(moved[..., None], np.array(SELECTED), np.array(FROZEN)).astype(np.uint8)


def kernel(pixels: Pixels) -> Pixels:
    """Rows twice as high as their entries are wide."""
    return pixels.repeat(2, axis=0)


def fine_tuning() -> list[Row]:
    """Which weights each strategy changes, and which entries of a kernel DGST does."""
    of_trainer = (
        ("FineTune", strategies.full),
        ("DecoderOnly", strategies.decoder_only),
        ("HeadOnly", strategies.head_only),
        ("BiasOnly", strategies.bias_only),
        ("NormOnly", strategies.norm_only),
        ("DGST", strategies.dgst),
    )
    maps = [Panel(name, freedom_map(strategy)) for name, strategy in of_trainer]
    return [
        Row("Given: a trained network. What moves?", maps[:3]),
        Row("", maps[3:]),
        Row("DGST in one kernel, by output channel", moved_entries()),
    ]


# ---------------------------------------------------------------------- prior and current scans


FOLLOW_UP_SEED = 33
"""One whose slice shows lesions and structures that look alike."""


def dual_encoder() -> list[Row]:
    """A patient at two dates, the same without the prior, and the target among structures that look like it."""
    rng = np.random.default_rng(FOLLOW_UP_SEED)
    dates, current, prior = two_dates(rng)
    labels, before = (dates.labels(one) * LESION for one in (dates.current, dates.prior))
    benign = (dates.current.lesion_instances > 0) & (labels == 0)
    z = int(np.minimum((labels > 0).sum(axis=(0, 1)), benign.sum(axis=(0, 1))).argmax())
    now, earlier = (Scan(image, labels, labels, z) for image in (current, prior))
    channels = torch.stack([torch.from_numpy(one) for one in (current, prior, before.astype(np.float32))])
    withheld = without_prior(channels[None], [0], {1: 0.0, 2: 0.0})[0].numpy()
    look_alikes = over(now.shown(), now.plane(benign), {1: BACKGROUND_STROKE})
    return [
        Row(
            "Given: the current scan and a prior one",
            [
                Panel("current", now.shown()),
                Panel("prior", earlier.shown()),
                Panel("prior labels", earlier.shown(labels=before)),
            ],
        ),
        Row(
            "In one sample of ten the prior is withheld",
            [
                Panel("current", now.shown(withheld[0])),
                *(Panel(name, greys(now.plane(one))) for name, one in zip(("no prior", "no labels"), withheld[1:])),
            ],
        ),
        Row(
            "Target: what is left of the lesions",
            [Panel("current labels", now.shown(labels=labels)), Panel("look-alikes", look_alikes)],
        ),
    ]


# ---------------------------------------------------------------------- scribbles


def scribbles() -> list[Row]:
    """Strokes, two decoders' answers and their mixture, and where the losses look."""
    rng, case = np.random.default_rng(4), scan(1)
    strokes, _ = scribble_map(case.labels, (0, LIVER, SPLEEN, LESION), 4, Strokes(), rng, axis=2)
    answers = [log_probabilities(stand_in(case.labels, rng, certainty=5.0, doubt=0.9)) for _ in range(2)]
    trainer = SimpleNamespace(shared_rng=rng, observe=lambda name, value: None)
    inside = torch.ones_like(answers[0][:, :1], dtype=torch.bool)
    pseudo = classes_of(nnUNetTrainerDMPLS.pseudo_labels(trainer, *answers, inside).byte())  # type: ignore[arg-type]
    mean = mean_log_probabilities(answers)
    sure = (mean.exp() * mean).sum(dim=1).exp()[0]
    drawn = over(case.shown(), case.plane(strokes), STROKES, opacity=1)
    return [
        Row(
            "Given: strokes; all else is unknown",
            [
                Panel("scan", case.shown()),
                Panel("strokes", drawn),
                Panel("truth, unseen", case.shown(labels=case.labels)),
            ],
        ),
        Row(
            "In a step: two decoders predict",
            [
                *(
                    Panel(name, case.shown(labels=classes_of(one)))
                    for name, one in zip(("main decoder", "the other"), answers)
                ),
                Panel("mixed (DMPLS)", case.shown(labels=pseudo)),
            ],
        ),
        Row(
            "How much a voxel counts (white: fully)",
            [
                Panel("cross-entropy", heat(case.plane(strokes != 4).astype(float), WHITE)),
                Panel("TDNet: consistency", heat(case.plane(sure), WHITE)),
            ],
        ),
    ]


# ---------------------------------------------------------------------- partially annotated instances


def partial_instances() -> list[Row]:
    """Two annotated lesions among several, and the pseudo labels that two decoders make of the rest."""
    rng, case = np.random.default_rng(7), scan(8, lesions_between=(9, 9))
    lesions = np.where(case.labels == LESION, 1, 0)
    in_slice = [int(one) for one in np.unique(case.plane(case.instances)) if one]
    given = partial_labels(lesions, case.instances, in_slice[1:3])
    answers = [
        log_probabilities(stand_in(lesions, rng, classes=2, blur=1.5, certainty=4.0, doubt=1.0)) for _ in range(2)
    ]
    target, annotated = one_hot(batch_of(given), 2), batch_of(given) > 0
    mixed = mixed_pseudo_labels(
        *answers, target, annotated, ratio=float(rng.random()), temperature=DBDMPSettings().temperature
    )
    p = [case.plane(one[0, 1]) for one in (*(answer.exp() for answer in answers), mixed)]
    return [
        Row(
            "Given: some lesions are annotated",
            [
                Panel("scan", case.shown()),
                Panel("annotated", case.shown(labels=given * LESION)),
                Panel("truth, unseen", case.shown(labels=lesions * LESION)),
            ],
        ),
        Row(
            "In a step: two decoders teach each other",
            [
                Panel("main: p(lesion)", heat(p[0])),
                Panel("the other", heat(p[1])),
                Panel("pseudo labels", heat(p[2])),
            ],
        ),
    ]


# ---------------------------------------------------------------------- missing labels


def missing_labels() -> list[Row]:
    """Two cases with other labels, the network's answer, and how the loss looks at it in each."""
    rng, cases, keeps = np.random.default_rng(2), (scan(1), scan(5)), ((LIVER,), (SPLEEN, LESION))
    rows = []
    names = "Case 1: only the liver was annotated", "Case 2: the liver was not annotated"
    for name, case, kept in zip(names, cases, keeps):
        logits = stand_in(case.labels, rng, blur=1.2, doubt=0.8)
        annotated = torch.tensor([[value == 0 or value in kept for value in range(4)]])
        seen = partial_logits(logits, annotated, has_regions=False)
        given = np.where(np.isin(case.labels, kept), case.labels, 0)
        rows.append(
            Row(
                name,
                [
                    Panel("labels", case.shown(labels=given)),
                    Panel("prediction", case.shown(labels=classes_of(logits))),
                    Panel("in the loss", case.shown(labels=classes_of(seen))),
                ],
            )
        )
    wanted = [Panel("truth, unseen", case.shown(labels=case.labels)) for case in cases]
    return [*rows, Row("Wanted: all labels in both", wanted)]


# ---------------------------------------------------------------------- wrong labels


def wrong_labels() -> list[Row]:
    """A wrong label, a network that has learned what most labels say, and the label that it corrects."""
    rng, case, settings = np.random.default_rng(5), scan(1), ADELESettings()
    values = (LIVER, SPLEEN, LESION)
    wrong = noisy_labels(
        case.labels.astype(np.int64), SPACING, {LIVER: "dilation"}, rng, size=4.0, values=values, ignore=None
    )
    logits = stand_in(case.labels, rng, blur=1.0, doubt=0.8)
    counts = torch.ones_like(batch_of(wrong), dtype=torch.bool)
    is_open = torch.ones(4, dtype=torch.bool)
    corrected, changed = corrected_labels(logits, batch_of(wrong), counts, is_open, confidence=settings.confidence)
    sure = logits.softmax(dim=1).amax(dim=1)[0] > settings.confidence
    return [
        Row(
            "Given: labels, some of them wrong",
            [
                Panel("scan", case.shown()),
                Panel("liver too large", case.shown(labels=wrong)),
                Panel("truth, unseen", case.shown(labels=case.labels)),
            ],
        ),
        Row(
            "In a step: sure predictions correct labels",
            [
                Panel("prediction", case.shown(labels=classes_of(logits))),
                Panel(f"p above {settings.confidence}", heat(case.plane(sure).astype(float), WHITE)),
                Panel("label in this step", case.shown(labels=corrected[0, 0].numpy())),
            ],
        ),
    ]


PICTURES = [
    Picture("mixup", mixup, LABELS),
    Picture("fine_tuning", fine_tuning, [("moves", FREE), ("selected entries move", SELECTED), ("frozen", FROZEN)]),
    Picture("dual_encoder", dual_encoder, [("lesion", COLOURS[LESION]), ("benign, not a label", BACKGROUND_STROKE)]),
    Picture("scribbles", scribbles, [*LABELS, ("background", BACKGROUND_STROKE)]),
    Picture("partial_instances", partial_instances, [("lesion", COLOURS[LESION])]),
    Picture("missing_labels", missing_labels, LABELS),
    Picture("wrong_labels", wrong_labels, LABELS),
]
