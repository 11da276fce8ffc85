"""Every trainer trains in every setting nnU-Net offers, and what it saves is loaded strictly by the predictor."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_ext.errors import UserError
from support.changed_trainers import step_terms
from support.nnunet_runs import build_trainer, train
from support.tiny_data import dataset_name
from support.trainers_under_test import EVERY_TRAINER, PRE_TRAINING, data_kind, trainer_class

SETTINGS = {
    "2d": {"configuration": "2d_tiny"},
    "3d": {"configuration": "3d_tiny"},
    "residual_encoder": {"configuration": "3d_tiny", "plans": "nnUNetResEncUNetMPlans"},
    "ignore_label": {"configuration": "3d_tiny", "kind": "ignore"},
    "regions_ignore_and_channels": {"configuration": "3d_tiny", "kind": "regions"},
    "regions_2d": {"configuration": "2d_tiny", "kind": "regions"},
    "batch_of_one": {"configuration": "3d_tiny_batch_of_one"},
}


def predictor_for(trainer) -> nnUNetPredictor:
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, use_folds=(trainer.fold,))
    return predictor


def predicted_logits(predictor: nnUNetPredictor, seed: int) -> torch.Tensor:
    channels = len(predictor.dataset_json["channel_names"])
    shape = (channels, 1, 24, 24) if len(predictor.configuration_manager.patch_size) == 2 else (channels, 20, 24, 24)
    data = torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))
    return predictor.predict_logits_from_preprocessed_data(data)


def reason_to_refuse(name: str, configuration: str, kind: str, plans: str = "nnUNetPlans") -> str | None:
    """Why the trainer declares that it cannot do this, if it does."""
    cls = trainer_class(name)
    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset_name(kind)
    needed = cls.needed_capabilities(
        json.loads((folder / f"{plans}.json").read_text()),
        configuration,
        json.loads((folder / "dataset.json").read_text()),
    )
    return next((cls.unsupported[capability] for capability in sorted(needed) if capability in cls.unsupported), None)


def check_logged_losses(trainer) -> None:
    logged = trainer.logger.local_logger.my_fantastic_logging
    assert np.isfinite(logged["train_losses"]).all()
    assert np.isfinite(logged["val_losses"]).all()
    terms = {key: values for key, values in logged.items() if key.startswith("loss/")}
    assert terms
    assert all(len(values) == trainer.num_epochs for values in terms.values())
    np.testing.assert_allclose(sum(values[0] for values in terms.values()), logged["train_losses"][0], rtol=1e-4)


@pytest.mark.capability("{setting}")
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_trains_and_predicts(name, setting, results):
    options = dict(SETTINGS[setting])
    options["kind"] = data_kind(name, options.get("kind", "labels"))
    reason = reason_to_refuse(name, **options)
    if reason is not None:
        with pytest.raises(NotImplementedError, match=re.escape(reason)):
            train(name, **options)
        assert not any(results.iterdir()), "a refused training must leave nothing behind"
        return
    trainer = train(name, **options)
    check_logged_losses(trainer)
    if name in PRE_TRAINING:
        with pytest.raises(UserError, match="has no segmentation to predict"):
            predictor_for(trainer)
        return
    predictor = predictor_for(trainer)  # loads strictly
    logits = predicted_logits(predictor, seed=1)
    assert logits.shape[0] == trainer.label_manager.num_segmentation_heads
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, predicted_logits(predictor, seed=1)), "prediction must be deterministic"
    assert not torch.equal(logits, predicted_logits(predictor, seed=2)), "prediction must depend on the image"
    trainer.set_deep_supervision_enabled(False)
    patch = torch.randn(1, trainer.num_input_channels, *trainer.configuration_manager.patch_size)
    with torch.no_grad():
        torch.testing.assert_close(predictor.network.eval()(patch), trainer.network.eval()(patch))


def terms_of(trainer, batch) -> dict[str, torch.Tensor]:
    """The terms of the loss in a step, with the same draws for every trainer."""
    torch.manual_seed(0)
    trainer.rng, trainer.shared_rng = np.random.default_rng(1), np.random.default_rng(2)
    trainer.network.train()
    prepared = trainer.prepare_batch(batch, training=True)
    with torch.no_grad():
        return step_terms(trainer, prepared)


@pytest.mark.capability("no deep supervision")
@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_trains_without_deep_supervision(name, results, monkeypatch):
    cls = trainer_class(name)

    class WithoutDeepSupervision(cls):
        def __init__(self, plans, configuration, fold, dataset_json, device):
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.enable_deep_supervision = False

    kind = data_kind(name, "labels")
    with monkeypatch.context() as patch:
        patch.setattr(
            "nnunetv2.run.run_training.recursive_find_trainer_class_by_name", lambda _: WithoutDeepSupervision
        )
        trainer = train(name, kind=kind)
    check_logged_losses(trainer)
    data = torch.randn(1, trainer.num_input_channels, 16, 16, 16)
    with torch.no_grad():
        assert isinstance(trainer.network.eval()(data), torch.Tensor)

    if name in PRE_TRAINING:
        return  # which have no deep supervision
    deep = build_trainer(name, kind=kind)
    deep.initialize()
    deep.network.load_state_dict(trainer.network.state_dict())
    deep.current_epoch = trainer.current_epoch
    deep.loss.weight_factors = (1.0, 0.0, 0.0, 0.0)
    batch = next(deep.get_dataloaders()[0])
    terms = terms_of(trainer, {**batch, "target": batch["target"][0]})
    torch.testing.assert_close(terms, terms_of(deep, batch))
