"""Learning from cases of which only some labels were annotated (arXiv 2007.03868)."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nnunetv2.evaluation.evaluate_predictions import load_summary_json, save_summary_json
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn
from torch import Tensor

from nnunet_ext.devices import on_device
from nnunet_ext.errors import UserError
from nnunet_ext.files import written_whole
from nnunet_ext.formats.annotated_labels import KINDS, AnnotatedLabels, annotated_labels
from nnunet_ext.formats.dataset_json import values_of
from nnunet_ext.formats.summary import of_known_labels
from nnunet_ext.losses.consistency import entropy
from nnunet_ext.losses.hard_labels import log_probabilities
from nnunet_ext.losses.partial_labels import exclusion_loss, over_voxels, partial_logits
from nnunet_ext.losses.soft_targets import masked_mean
from nnunet_ext.messages import counted
from nnunet_ext.plans.settings import Settings
from nnunet_ext.techniques.mixup import MIXUP
from nnunet_ext.techniques.partial_labels import PARTIAL_LABELS, without_prediction
from nnunet_ext.trainers.base import Batch, Outputs, nnUNetTrainerConfigurable
from nnunet_ext.trainers.mixup import MixUpMixin
from nnunet_ext.trainers.scribbles import ScribbleMixin


class PartialLabelsMixin(nnUNetTrainerConfigurable, technique=PARTIAL_LABELS):
    """nnU-Net's loss over the labels that each case was annotated for; dataset.json lists them.

    Labels that were not annotated are merged with background, case by case, before the loss looks at them; regions that
    were not annotated leave it. Pseudo Dice and the final validation count a label only in cases that were annotated
    for it. A batch whose cases were annotated for every label is trained on as in nnU-Net; cases that were annotated
    for nothing are left out, and predicted by the final validation alone.

    Prepared batches say which channels count, under ``annotated``: a boolean (B, C), missing where all do.
    """

    cannot_be_mixed = "mixed patches need the lists of both cases; derive it from PartialLabelsMixUpMixin"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.has_one_decoder:
            raise TypeError(f"{cls.__name__} cannot have partial labels: its network has several decoders.")

    @classmethod
    def refuse_unsupported(cls, plans: dict, configuration: str, dataset_json: dict) -> None:
        """Raise an error also if the lists are wrong, or the exclusion loss is asked for with regions."""
        super().refuse_unsupported(plans, configuration, dataset_json)
        annotated_labels(dataset_json)
        settings = cls.planned_settings(plans, configuration).section(PARTIAL_LABELS)
        has_regions = "regions" in cls.needed_capabilities(plans, configuration, dataset_json)
        if has_regions and settings.exclusion_weight > 0:
            raise NotImplementedError(
                f"{cls.__name__} has no exclusion loss for regions, which may lie over one another. Set "
                "partial_labels.exclusion_weight to 0."
            )

    @cached_property
    def annotated(self) -> AnnotatedLabels:
        """What dataset.json says."""
        return annotated_labels(self.dataset_json, where=Path(self.preprocessed_dataset_folder_base, "dataset.json"))

    def annotated_channels(self, case: str) -> npt.NDArray[np.bool_]:
        """Which of the network's channels a case was annotated for, (C,); background is always among them."""
        labels = self.annotated.of(case)
        if self.label_manager.has_regions:
            return np.array([label in labels for label in self.annotated.labels])
        values = {0}.union(*(values_of(self.dataset_json["labels"][label]) for label in labels))
        return np.isin(np.arange(self.label_manager.num_segmentation_heads), sorted(values))

    # ------------------------------------------------------------------ training

    @classmethod
    def learns_from_unlabelled(cls, settings: Settings) -> bool:
        """Whether something is learned from cases that were annotated for nothing."""
        return False

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's, without training cases that teach nothing; a UserError if there is no other.

        Validation cases stay, which nnU-Net predicts at the end: the next stage of a cascade reads these predictions,
        and the search for the best configuration wants the same of every model. Left out are those that were annotated
        for nothing and that the first stage of a cascade has not predicted.
        """
        training, validation = super().do_split()
        unpredicted = self._unlabelled_without_prediction(validation)
        return (
            self._annotated("training", training, self.learns_from_unlabelled(self.settings)),
            [case for case in validation if case not in unpredicted],
        )

    def _unlabelled_without_prediction(self, cases: list[str]) -> list[str]:
        """In the second stage of a cascade, cases annotated for nothing of which the first has no prediction."""
        if not self.is_cascaded:
            return []
        predicted = {file.stem for file in Path(self.folder_with_segs_from_previous_stage).glob("*")}
        return [case for case in cases if case not in predicted and not self.annotated.of(case)]

    def _annotated(self, part: str, cases: list[str], takes_all: bool = False) -> list[str]:
        """The cases of a part of the fold that were annotated for something, or all; a UserError if there are none."""
        kept = [case for case in cases if takes_all or self.annotated.of(case)]
        if cases and not kept:
            raise UserError(
                f"No {part} case of fold {self.fold} was annotated for anything, by {self.annotated.where}. Train "
                "another fold, or draw others with nnunet_ext split."
            )
        if len(kept) < len(cases):
            left_out = counted(len(cases) - len(kept), f"{part} case")
            self.print_to_log_file(f"{left_out} annotated for nothing: left out.")
        return kept

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's, for training: validation without cases that show nothing.

        Raises:
            UserError: if a list is missing, if no validation case was annotated, if a case has a label that it was not
                annotated for, or if the first stage of a cascade has not predicted an unlabelled case.
        """
        parts = training, validation = super().get_tr_and_val_datasets()
        if unpredicted := self._unlabelled_without_prediction(training.identifiers):
            advice = without_prediction(unpredicted, self.configuration_manager.previous_stage_name)
            raise UserError(f"Leave out, or predict, cases that the first stage of the cascade lacks. {advice}")
        validation.identifiers = self._annotated("validation", validation.identifiers)
        for name, cases in (("training", training), ("validation", validation)):
            self.print_to_log_file(f"Annotated {name} cases: {self._described(cases.identifiers)}")
        for part in parts:
            for case in part.identifiers:
                self._refuse_contradiction(part, case)
        return parts

    def _described(self, cases: list[str]) -> str:
        """How many cases there are of each kind, and how many were annotated for each label."""
        lists, kinds = [self.annotated.of(case) for case in cases], [self.annotated.kind(case) for case in cases]
        of_kind = [f"{kinds.count(kind)} {kind}" for kind in KINDS]
        of_label = [f"{label} {sum(label in one for one in lists)}" for label in self.annotated.labels]
        return f"{', '.join(of_kind)}; {', '.join(of_label)}"

    def _refuse_contradiction(self, cases: Any, case: str) -> None:
        """Raise a UserError if a case's labels have one that it was not annotated for."""
        known = self.annotated_channels(case)
        if self.label_manager.has_regions or known.all():
            return  # the labels of an annotated region may lie in another one
        *_, properties = cases.load_case(case)
        places = properties["class_locations"]
        if wrong := [value for value in np.flatnonzero(~known).tolist() if len(places.get(value, ()))]:
            names = [name for name, value in self.dataset_json["labels"].items() if value in wrong]
            raise UserError(
                f"{self.annotated.where} says that {case} was not annotated for {', '.join(names)}, but its labels "
                "have it. Add it to the case's list, or remove it from the label map and preprocess again."
            )

    def prepare_batch(self, batch: Batch, *, training: bool) -> Batch:
        batch = super().prepare_batch(batch, training=training)
        known = np.stack([self.annotated_channels(str(case)) for case in batch["keys"]])
        if known.all():
            return batch
        annotated = on_device(known, self.device)
        batch = {**batch, "annotated": annotated}
        if self.label_manager.has_regions:
            heads = [without_unknown_regions(head, annotated) for head in self.heads(batch["target"])]
            batch["target"] = heads if isinstance(batch["target"], list) else heads[0]
        return batch

    def loss_terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        annotated = batch.get("annotated")
        of_annotated = outputs if annotated is None else self.partial_outputs(outputs, annotated)
        terms = super().loss_terms(of_annotated, batch)
        weight = self.section(PARTIAL_LABELS).exclusion_weight
        # in a distributed training all processes add up, also one whose cases were annotated for every label
        if weight > 0 and (annotated is not None or self.is_ddp):
            terms["exclusion"] = weight * self.exclusion_term(outputs, batch)
        return terms

    def partial_outputs(self, outputs: Outputs, annotated: Tensor) -> Outputs:
        """The network's output as logits of what was annotated, at every resolution."""
        has_regions = self.label_manager.has_regions
        heads = [partial_logits(head, annotated, has_regions=has_regions) for head in self.heads(outputs)]
        return heads if isinstance(outputs, (list, tuple)) else heads[0]

    def exclusion_term(self, outputs: Outputs, batch: Batch) -> Tensor:
        """The exclusion loss, summed over resolutions by their weights."""
        ignore, summed = self.label_manager.ignore_label, torch.zeros((), device=self.device)
        annotated = batch.get("annotated")
        if annotated is None:
            annotated = torch.ones(self.full_resolution(outputs).shape[:2], dtype=torch.bool, device=self.device)
        for weight, logits, target in zip(self.head_weights(), self.heads(outputs), self.heads(batch["target"])):
            if weight > 0:
                counts = target >= 0 if ignore is None else (target >= 0) & (target != ignore)
                loss = exclusion_loss(logits, target > 0, annotated, counts, total=self.total)
                summed = summed + weight * loss
        return summed

    # ------------------------------------------------------------------ validation

    def validation_step(self, batch: Batch) -> dict[str, Any]:
        """The loss, and what pseudo Dice is computed from, over the labels that the cases were annotated for."""
        prepared = self.prepare_batch(batch, training=False)
        annotated = prepared.get("annotated")
        if annotated is None:
            return super().validation_step(batch)
        with self.autocast():
            outputs = self.forward(prepared)
            loss = self.loss(self.partial_outputs(outputs, annotated), prepared["target"])
        logits, target = self.full_resolution(outputs), self.heads(prepared["target"])[0]
        labels, mask = self.label_manager, None
        if labels.has_regions:
            predicted, first = logits > 0, 0
            if labels.has_ignore_label:
                target, mask = target[:, :-1], ~target[:, -1:].bool()
        else:
            # the network's decision among all classes: of those that were not annotated nothing is counted
            predicted = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.argmax(1, keepdim=True), True)
            first = 1
            if labels.has_ignore_label:
                mask = target != labels.ignore_label
                target = torch.where(mask, target, 0)
        counts = get_tp_fp_fn_tn(predicted.float(), target, axes=tuple(range(2, logits.ndim)), mask=mask)[:3]
        tp, fp, fn = ((count * annotated).sum(0)[first:].cpu().numpy() for count in counts)
        return {"loss": loss.detach().cpu().numpy(), "tp_hard": tp, "fp_hard": fp, "fn_hard": fn}

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's, whose summary.json then counts a label only in cases that were annotated for it."""
        super().perform_actual_validation(save_probabilities)
        if self.local_rank == 0 and self.annotated.are_partial(self.do_split()[1]):
            self._score_what_was_annotated(Path(self.output_folder, "validation", "summary.json"))

    def _score_what_was_annotated(self, file: Path) -> None:
        """Take labels that were not annotated out of a summary.json."""
        labels = self.label_manager

        def known(reference_file: str) -> Mapping[Any, bool]:
            channels = self.annotated_channels(reference_file.removesuffix(self.dataset_json["file_ending"]))
            return dict(zip(labels.foreground_regions, channels)) if labels.has_regions else dict(enumerate(channels))

        summary = of_known_labels(load_summary_json(str(file)), known)
        with written_whole(file) as temporary:
            save_summary_json(summary, str(temporary))
        for key, mean in summary["mean"].items():
            self.logger.log_summary(f"final_val/class_{key}_dice", mean["Dice"])
        dice = summary["foreground_mean"]["Dice"]
        self.logger.log_summary("final_val/foreground_dice", dice)
        self.print_to_log_file("Mean Validation Dice over annotated labels: ", dice, also_print_to_console=True)


def without_unknown_regions(target: Tensor, annotated: Tensor) -> Tensor:
    """nnU-Net's target (B, R, [X,] Y, Z), or with a last channel of ignored voxels, without regions not annotated."""
    regions = annotated.shape[1]
    known = target[:, :regions].masked_fill(~over_voxels(annotated, target), 0)
    return torch.cat([known, target[:, regions:]], dim=1)


class PartialLabelsMixUpMixin(MixUpMixin, PartialLabelsMixin):
    """Both. In a mixed patch each source's labels count by the list of its own case.

    MixUp's cross-entropy is linear in the mixed target: it is λ times that of the one source and 1 - λ times that of
    the other, each over the labels that this source was annotated for. Where patches are pasted, each voxel has one
    source.
    """

    cannot_be_mixed = ""

    def mixed_labels(self, batch: Batch, soft: Tensor, partners: np.ndarray, ratios: np.ndarray) -> Batch:
        """That of each source by itself, as ``soft_target``, where a case was annotated for some labels."""
        if "annotated" not in batch:
            return super().mixed_labels(batch, soft, partners, ratios)
        return {"soft_target": soft}

    def loss_of_mixed(self, logits: Tensor, mixed: Batch) -> Tensor:
        if "annotated" not in mixed:
            return super().loss_of_mixed(logits, mixed)
        labels, partners = self.label_manager, on_device(mixed["partners"], logits.device)
        lists = mixed["annotated"], mixed["annotated"][partners]
        own, other = (partial_logits(logits, one, has_regions=labels.has_regions) for one in lists)
        if self.section(MIXUP).kind != "mixup":
            return super().loss_of_mixed(torch.where(mixed["pasted"], other, own), mixed)
        soft, mask = mixed["soft_target"], mixed["mixed_mask"]
        ratios = on_device(mixed["ratios"].astype(np.float32), logits.device)
        return self.soft_loss(own, soft, mask, ratios) + self.soft_loss(other, soft[partners], mask, 1 - ratios)


class MixedSupervisionMixin(PartialLabelsMixin, ScribbleMixin):
    """Dense, scribbled, partially labelled and unlabelled cases in one training, each with the loss that it permits.

    Scribbled cases have the ignore label where nobody annotated. Nobody annotated what lies outside the image either,
    nor anything of an unlabelled case: they take no part, so that the means are over what was annotated. Voxels that
    nobody annotated, and all of an unlabelled case, can be asked for predictions that are sure of themselves: their
    mean entropy is the term ``entropy``.

    Source of the entropy: Grandvalet and Bengio, NIPS 2004.
    """

    cannot_be_mixed = "with mixed supervision, voxels of mixed patches would count that nobody annotated"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if issubclass(cls, MixUpMixin):  # asked here, as PartialLabelsMixUpMixin withdraws `cannot_be_mixed`
            raise TypeError(f"{cls.__name__} cannot have MixUp: {MixedSupervisionMixin.cannot_be_mixed}.")

    @classmethod
    def learns_from_unlabelled(cls, settings: Settings) -> bool:
        return settings.section(PARTIAL_LABELS).entropy_weight > 0

    def loss_terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        inside = self.heads(batch["inside"])
        known = inside
        if "annotated" in batch:
            is_labelled = batch["annotated"][:, 1:].any(dim=1, keepdim=True)
            known = [is_inside & over_voxels(is_labelled, is_inside) for is_inside in inside]
        heads = zip(self.heads(batch["target"]), known)
        targets = [torch.where(is_known, target, self.unknown_label) for target, is_known in heads]
        target = targets if isinstance(batch["target"], list) else targets[0]
        terms = super().loss_terms(outputs, {**batch, "target": target})
        weight = self.section(PARTIAL_LABELS).entropy_weight
        if weight > 0:
            is_unknown = (targets[0] == self.unknown_label) & inside[0]
            log_p = log_probabilities(self.full_resolution(outputs))
            terms["entropy"] = weight * masked_mean(entropy(log_p), is_unknown, total=self.total)
        return terms


class nnUNetTrainerPartialLabels(PartialLabelsMixin):
    """nnU-Net for cases of which only some labels were annotated."""


class nnUNetTrainerPartialLabelsMixUp(PartialLabelsMixUpMixin):
    """The same with MixUp or CutMix."""


class nnUNetTrainerMixedSupervision(MixedSupervisionMixin):
    """nnU-Net for dense, scribbled, partially labelled and unlabelled cases in one dataset."""
