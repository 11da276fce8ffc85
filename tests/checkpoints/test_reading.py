"""Checkpoints are read without running what is in them; whatever is none is refused with the reason."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.checkpoints.claimed_sizes import check_claims
from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.errors import UserError
from support.nnunet_runs import train

WEIGHTS = {"encoder.weight": torch.arange(6.0).reshape(2, 3)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a folder ü" / "checkpoint_final.pth"


def saved(file: Path, content: Any) -> Path:
    file.parent.mkdir(exist_ok=True)
    torch.save(content, file)
    return file


def refusal(file: Path) -> str:
    with pytest.raises(UserError) as error:
        read_checkpoint(file)
    assert str(file) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("own", "told"),
    [([1], "nnunet_ext must be a mapping"), ({"source": 3, "known": "all"}, "source, known must be a mapping")],
)
def test_what_this_package_adds_is_a_mapping(file: Path, own: Any, told: str) -> None:
    assert told in refusal(saved(file, {"network_weights": WEIGHTS, "nnunet_ext": own}))


def test_what_is_null_is_as_if_it_were_not_there(file: Path) -> None:
    assert "nnunet_ext" not in read_checkpoint(saved(file, {"network_weights": WEIGHTS, "nnunet_ext": None}))
    content = {"network_weights": WEIGHTS, "nnunet_ext": {"version": "1", "left_out": None}}
    assert read_checkpoint(saved(file, content))["nnunet_ext"] == {"version": "1"}


def test_names_of_weights_are_text(file: Path) -> None:
    assert "not tensors by name" in refusal(saved(file, {"network_weights": {3: torch.zeros(1)}}))


@pytest.mark.parametrize("trainer", ["nnUNetTrainer_1epoch", "nnUNetTrainerMixUp"])
def test_checkpoint_of_a_real_training_is_read_whole(
    results: Path, monkeypatch: pytest.MonkeyPatch, trainer: str
) -> None:
    init = nnUNetTrainer.__init__

    def short(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.num_iterations_per_epoch = self.num_val_iterations_per_epoch = 1

    monkeypatch.setattr(nnUNetTrainer, "__init__", short)
    built = train(trainer)
    file = Path(built.output_folder) / "checkpoint_final.pth"
    checkpoint = read_checkpoint(file)
    trusted = torch.load(file, weights_only=False)
    assert set(checkpoint) == set(trusted)
    assert checkpoint["trainer_name"] == trainer
    assert checkpoint["init_args"]["configuration"] == "3d_tiny"
    assert checkpoint["logging"] == trusted["logging"]
    assert checkpoint["_best_ema"] == trusted["_best_ema"]
    assert set(checkpoint["network_weights"]) == set(trusted["network_weights"])
    for key, tensor in trusted["network_weights"].items():
        assert torch.equal(checkpoint["network_weights"][key], tensor)


def test_numbers_of_numpy_and_devices_are_data(file: Path) -> None:
    values = {
        "float": np.float32(1.5),
        "int": np.int64(3),
        "bool": np.bool_(True),
        "text": np.str_("T1"),
        "array": np.arange(4.0),
    }
    content = {"network_weights": WEIGHTS, "logging": values, "device": torch.device("cuda", 0)}
    checkpoint = read_checkpoint(saved(file, content))
    read = checkpoint["logging"]
    np.testing.assert_array_equal(read.pop("array"), values.pop("array"))
    assert read == values
    assert checkpoint["device"] == torch.device("cuda", 0)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_of_both_generations_of_numpy_are_read(file: Path, module: str) -> None:
    saved(file, {"network_weights": WEIGHTS, "_best_ema": np.float64(0.25)})
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in entries if name.endswith("data.pkl"))
    present = np.float32(0).__reduce__()[0].__module__.encode()
    assert present in entries[name]
    entries[name] = entries[name].replace(present, module.encode())
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    assert read_checkpoint(file)["_best_ema"] == 0.25


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(file: Path, prefix: str) -> None:
    saved(file, {"network_weights": {f"{prefix}{key}": value for key, value in WEIGHTS.items()}})
    assert list(read_checkpoint(file)["network_weights"]) == list(WEIGHTS)


def test_names_of_one_tensor_stay_names_of_one_tensor(file: Path) -> None:
    tensor = torch.rand(3)
    weights = read_checkpoint(saved(file, {"network_weights": {"a": tensor, "b": tensor}}))["network_weights"]
    assert weights["a"].data_ptr() == weights["b"].data_ptr()


def test_file_written_by_old_torch_is_read(file: Path) -> None:
    file.parent.mkdir()
    torch.save({"network_weights": WEIGHTS}, file, _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(file)["network_weights"]["encoder.weight"], WEIGHTS["encoder.weight"])


def test_code_in_a_file_is_named_and_not_run(file: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(trace),)

    message = refusal(saved(file, {"network_weights": WEIGHTS, "extra": Trap()}))
    assert f"{os.mkdir.__module__}.mkdir" in message
    assert "could run code" in message
    assert not trace.exists()


def test_object_of_an_unknown_class_is_named(file: Path) -> None:
    assert "pathlib" in refusal(saved(file, {"network_weights": WEIGHTS, "extra": Path("x")}))


def test_array_of_objects_is_refused(file: Path) -> None:
    message = refusal(saved(file, {"network_weights": WEIGHTS, "extra": np.array([None, {}], dtype=object)}))
    assert "ObjectDType" in message


def test_missing_file(file: Path) -> None:
    assert "does not exist" in refusal(file)


def test_folder_names_the_checkpoints_in_it(tmp_path: Path) -> None:
    model = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    saved(model / "checkpoint_best.pth", {})
    (model / "fold_0").mkdir()
    saved(model / "fold_0" / "checkpoint_final.pth", {})
    message = refusal(model)
    assert "checkpoint_best.pth" in message
    assert str(Path("fold_0") / "checkpoint_final.pth") in message


def test_folder_without_checkpoints(tmp_path: Path) -> None:
    assert "no .pth files" in refusal(tmp_path)


@pytest.mark.parametrize(("new_format", "share"), [(True, 0.1), (True, 0.5), (True, 0.99), (False, 0.9)])
def test_truncated_file(file: Path, new_format: bool, share: float) -> None:
    file.parent.mkdir()
    torch.save({"network_weights": {"w": torch.rand(500)}}, file, _use_new_zipfile_serialization=new_format)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "cut off" in refusal(file)


def test_empty_file(file: Path) -> None:
    file.parent.mkdir()
    file.touch()
    assert "is empty" in refusal(file)


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n" + bytes(300), b"hello, this is a text\n", pickle.dumps({"network_weights": {}})],
    ids=["png", "text", "pickle"],
)
def test_file_of_another_kind(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    message = refusal(file)
    assert "is no checkpoint" in message
    assert "checkpoint_final.pth" in message


def test_exported_model_is_told_from_a_checkpoint(file: Path) -> None:
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("Dataset004/plans.json", "{}")
    assert "nnUNetv2_install_pretrained_model_from_zip" in refusal(file)


def test_checkpoint_of_the_first_nnunet(file: Path) -> None:
    content = {"epoch": 1000, "state_dict": WEIGHTS, "plot_stuff": ([np.float64(1)], [], [], [])}
    message = refusal(saved(file, content))
    assert "nnU-Net v1" in message
    assert "nnUNetv2_convert_old_nnUNet_dataset" in message


def test_another_programs_checkpoint_is_not_called_that_of_the_first_nnunet(file: Path) -> None:
    message = refusal(saved(file, {"epoch": 3, "state_dict": WEIGHTS, "pytorch-lightning_version": "2"}))
    assert "v1" not in message
    assert "It has: epoch, state_dict, pytorch-lightning_version" in message


def rewritten(file: Path, change: Callable[[dict[str, bytes]], None], *, packed: bool = False) -> Path:
    """The archive of a checkpoint with other members."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def storage_of(members: Mapping[str, bytes]) -> str:
    return next(name for name in members if name.endswith("/data/0"))


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *given, **more: pytest.fail("it was read"))


def test_a_checkpoint_that_unpacks_to_far_more_is_refused_unread(file: Path, never_loaded: None) -> None:
    saved(file, {"network_weights": {"a": torch.ones(10_000_000)}})
    assert "bytes packed into" in refusal(rewritten(file, lambda members: None, packed=True))


def test_a_large_checkpoint_is_refused_unread_and_the_limit_can_be_set(
    file: Path, never_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(file, {"network_weights": WEIGHTS})
    monkeypatch.setenv("NNUNET_EXT_MAX_GB", "1e-7")
    assert "NNUNET_EXT_MAX_GB" in refusal(file)


def test_a_tensor_that_claims_more_than_the_file_has_is_refused_unread(file: Path, never_loaded: None) -> None:
    saved(file, {"network_weights": {"a": torch.ones(1000)}})

    def shortened(members: dict[str, bytes]) -> None:
        members[storage_of(members)] = bytes(40)

    assert "a tensor claims 4000 bytes, but the file has 40 for it" in refusal(rewritten(file, shortened))


def test_what_a_checkpoint_names_is_not_imported_to_find_out_its_size(file: Path, tmp_path: Path) -> None:
    saved(file, {"network_weights": WEIGHTS, "payload": Path(tmp_path)})
    check_claims(file)


def test_tensors_larger_than_their_storage_are_refused(file: Path) -> None:
    expanded = torch.ones(1).expand(10**9)
    assert "network_weights.a claims 1000000000 numbers" in refusal(saved(file, {"network_weights": {"a": expanded}}))
    sparse = torch.ones(3).to_sparse()
    assert "is sparse" in refusal(saved(file, {"network_weights": {"a": sparse}}))


@pytest.mark.parametrize("place", ["name", "pickle"])
def test_an_archive_that_cannot_be_looked_through_is_refused_unread(file: Path, never_loaded: None, place: str) -> None:
    """torch's own reader takes some of these: none of the limits would hold."""
    saved(file, {"network_weights": WEIGHTS})

    def with_another(members: dict[str, bytes]) -> None:
        members["checkpoint_final/xxüx"] = b""
        if place == "pickle":
            name = next(name for name in members if name.endswith("data.pkl"))
            members[name] = members[name][:-1]  # the instruction to stop

    content = rewritten(file, with_another).read_bytes()
    if place == "name":
        content = content.replace("xxüx".encode(), b"xx\xff\xffx")
    file.write_bytes(content)
    assert "is damaged or cut off. Copy it again" in refusal(file)


def test_an_archive_with_two_lists_of_entries_is_refused_unread(file: Path, tmp_path: Path, never_loaded: None) -> None:
    """Python reads the last one, torch the one that the end names."""
    other = rewritten(saved(tmp_path / "other.pth", {"network_weights": WEIGHTS}), lambda members: None)
    first, second = (rewritten(one, lambda members: None).read_bytes() for one in (saved(file, {"a": 1}), other))
    for end in (22, 0):  # without and with the end of the first list
        file.write_bytes(first[: len(first) - end] + second)
        assert "has a list of its entries that torch does not read" in refusal(file)


def test_names_that_torchs_reader_takes_for_one_are_refused(file: Path, never_loaded: None) -> None:
    saved(file, {"network_weights": WEIGHTS})

    def with_another(members: dict[str, bytes]) -> None:
        members[storage_of(members).replace("/data/0", "/DATA/0")] = b"1"

    assert "two entries of one kind" in refusal(rewritten(file, with_another))


def with_pickle(file: Path, data: bytes) -> Path:
    saved(file, {"network_weights": WEIGHTS})

    def replaced(members: dict[str, bytes]) -> None:
        members[next(name for name in members if name.endswith("data.pkl"))] = data

    return rewritten(file, replaced)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x80\x02}r" + (1 << 27).to_bytes(4, "little") + b".", "claim 134217728 objects"),
        (b"\x80\x02}p134217728\n.", "claim 134217728 objects"),
        (b"\x80\x05\x96" + (1 << 34).to_bytes(8, "little") + b".", "17179869184 bytes"),
    ],
    ids=["place", "place in text", "bytes"],
)
def test_a_pickle_that_takes_more_memory_than_it_has_bytes_is_refused_unread(
    file: Path, never_loaded: None, data: bytes, told: str
) -> None:
    tracemalloc.start()
    try:
        assert told in refusal(with_pickle(file, data))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_key_of_tuples_that_hold_each_other_is_refused_unread(file: Path, never_loaded: None) -> None:
    often = b"K\x01" + b"2\x86" * 40  # twice the one before in each; Python itself could not look up such a key
    deep = b"K\x01" + b"\x85" * 1_000_000
    for key in (often, deep):
        assert "a tuple has more than 10000 values" in refusal(with_pickle(file, b"\x80\x02}" + key + b"K\x01s."))


def test_a_long_tuple_of_names_is_not_called_damage(file: Path) -> None:
    content = {"network_weights": WEIGHTS, "init_args": {"cases": tuple(f"case_{number}" for number in range(12_000))}}
    message = refusal(saved(file, content))
    assert "damaged" not in message
    assert "a tuple has more than 10000 values. Take out all but network_weights" in message


@pytest.mark.parametrize("behind", [b"\n", bytes(512), b"PK"])
def test_what_a_storage_puts_behind_an_archive_is_left_alone(file: Path, behind: bytes) -> None:
    saved(file, {"network_weights": WEIGHTS})
    file.write_bytes(file.read_bytes() + behind)
    assert read_checkpoint(file)


@pytest.mark.parametrize("kind", [dict, list, tuple])
def test_parts_that_hold_each_other_so_often_that_they_do_not_end_are_refused(file: Path, kind: type) -> None:
    part: Any = "x" * 1000
    for _ in range(10 if kind is tuple else 60):
        part = {"a": part, "b": part} if kind is dict else kind([part, part])
    message = refusal(saved(file, {"network_weights": WEIGHTS, "init_args": [part] * 20}))
    assert "hold the same parts so often" in message


def test_parts_that_lie_too_deep_or_in_themselves_are_refused(file: Path) -> None:
    deep: Any = {}
    for _ in range(110):
        deep = {"a": deep}
    assert "init_args.a.a has more than 100 levels" in refusal(
        saved(file, {"network_weights": WEIGHTS, "init_args": deep})
    )
    shared: Any = [0]
    for _ in range(60):
        shared = [shared]
    late: Any = shared
    for _ in range(60):
        late = [late]
    assert "has more than 100 levels" in refusal(saved(file, {"network_weights": WEIGHTS, "a": shared, "b": late}))
    endless: list[Any] = []
    endless.append(endless)
    assert "a.0 holds itself" in refusal(saved(file, {"network_weights": WEIGHTS, "a": endless}))


def test_tensors_in_lists_are_looked_at_too(file: Path) -> None:
    expanded = torch.ones(1).expand(10**9)
    content = {"network_weights": WEIGHTS, "optimizer_state": {"state": [(expanded,)]}}
    assert "optimizer_state.state.0.0 claims 1000000000 numbers" in refusal(saved(file, content))


def test_what_is_long_or_shared_as_in_real_checkpoints_is_read(file: Path) -> None:
    plans = {"configurations": {str(number): {"patch_size": [1, 2, 3]} for number in range(100)}}
    images = [{"name of the case": f"case {number}", "spacing": (1.0, 1.0)} for number in range(20_000)]
    content = {"network_weights": WEIGHTS, "a": [plans] * 50, "images": images, "logging": [0.0] * 1_000_000}
    assert len(read_checkpoint(saved(file, content))["images"]) == 20_000


def test_weights_that_share_a_storage_are_read(file: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    weights = {"a": whole, "b": whole.T, "c": whole[1:], "d": torch.ones(2, dtype=torch.bfloat16), "e": torch.empty(0)}
    read = read_checkpoint(saved(file, {"network_weights": weights}))["network_weights"]
    assert all(torch.equal(read[key], weights[key]) for key in weights)


def test_bare_weights(file: Path) -> None:
    assert "{'network_weights': torch.load" in refusal(saved(file, WEIGHTS))


def test_dictionary_of_something_else_names_its_keys(file: Path) -> None:
    message = refusal(saved(file, {"optimizer": {}, "epoch": 3}))
    assert "no network_weights" in message
    assert "optimizer, epoch" in message


@pytest.mark.parametrize("weights", [{}, {"a": 1}])
def test_weights_that_are_none(file: Path, weights: dict[str, Any]) -> None:
    assert "not tensors by name" in refusal(saved(file, {"network_weights": weights}))


def test_tensor_alone(file: Path) -> None:
    assert "holds a Tensor" in refusal(saved(file, torch.rand(2)))


def test_torch_that_cannot_read_safely_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(file, {"network_weights": WEIGHTS})
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(UserError, match=r"torch >= 2\.6; torch 2\.5\.1\+cpu is installed"):
        read_checkpoint(file)
