"""Ways to damage a file, drawn from a generator. Each returns a line that says what was done."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from nnunet_ext.checkpoints.reading import read_checkpoint

MARK = "NNUNET_EXT_FUZZ_MARK"
"""The variable that names a file which a payload makes if it is run."""

NAMES = [
    "../evil",
    "/tmp/evil",
    "..",
    "",
    "a/b",
    "a\\b",
    "C:\\x",
    "x" * 300,
    "con",
    "a\nb",
    "<b>x</b>",
    "._a",
    "ü",
    "\0",
]
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    math.inf,
    math.nan,
    "",
    "x",
    [],
    {},
    [[]],
    [None],
    {"a": {}},
    0.5,
    *NAMES,
]


class Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (os.environ[MARK],)


def nodes(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON document: its container and its key."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield content, key
        yield from nodes(value)


def json_value(file: Path, rng: np.random.Generator) -> str:
    """Another value at some place."""
    content = json.loads(file.read_text())
    container, key = pick(list(nodes(content)), rng)
    value = pick(ODD, rng)
    container[key] = value
    file.write_text(json.dumps(content))
    return f"{key!r} = {value!r:.40}"


def json_key(file: Path, rng: np.random.Generator) -> str:
    """A key that is missing, or has another name."""
    content = json.loads(file.read_text())
    container, key = pick([place for place in nodes(content) if isinstance(place[0], dict)], rng)
    value = container.pop(key)
    name = pick([None, *NAMES, "subprocess.Popen"], rng)
    if name is not None:
        container[name] = value
    file.write_text(json.dumps(content))
    return f"key {key!r} -> {name!r:.40}"


def json_code(file: Path, rng: np.random.Generator) -> str:
    """A name of code in the place of a text."""
    content = json.loads(file.read_text())
    places = [(box, key) for box, key in nodes(content) if isinstance(box[key], str)]
    container, key = pick(places or list(nodes(content)), rng)
    container[key] = pick(["os.mkdir", "subprocess.Popen", "builtins.exec", "torch.hub.load"], rng)
    file.write_text(json.dumps(content))
    return f"{key!r} = {container[key]!r}"


def json_whole(file: Path, rng: np.random.Generator) -> str:
    """Another document."""
    text = pick(
        ["", "[]", "3", "null", "{}", "[" * 100_000, '{"x":' + "9" * 5000 + "}", '"x"', "{", "\ufeff{}", "NaN"], rng
    )
    file.write_text(text)
    return f"content {text[:10]!r}"


def cut(file: Path, rng: np.random.Generator) -> str:
    """The end is missing."""
    content = file.read_bytes()
    size = int(len(content) * rng.random())
    file.write_bytes(content[:size])
    return f"cut to {size} of {len(content)} bytes"


def flipped(file: Path, rng: np.random.Generator) -> str:
    """Some bytes are others."""
    content = bytearray(file.read_bytes())
    for place in rng.integers(0, max(len(content), 1), 1 + len(content) // 2000):
        if content:
            content[place] ^= 1 << int(rng.integers(8))
    file.write_bytes(bytes(content))
    return "bits flipped"


def noise(file: Path, rng: np.random.Generator) -> str:
    """Anything."""
    file.write_bytes(rng.bytes(int(rng.integers(0, 300))))
    return "noise"


def missing(file: Path, rng: np.random.Generator) -> str:
    """No file."""
    file.unlink()
    return "removed"


def folder_instead(file: Path, rng: np.random.Generator) -> str:
    """A folder of its name."""
    file.unlink()
    file.mkdir()
    return "a folder instead"


def link_to_itself(file: Path, rng: np.random.Generator) -> str:
    """A link in a circle."""
    file.unlink()
    file.symlink_to(file.name)
    return "a link to itself"


def renamed(file: Path, rng: np.random.Generator) -> str:
    """Another name."""
    name = pick(
        [
            "._" + file.name,
            "x" * 240 + file.suffix,
            "a b" + file.suffix,
            file.name.replace(".", "", 1),
            "ü" + file.name,
        ],
        rng,
    )
    file.rename(file.with_name(name))
    return f"renamed to {name:.40}"


def copied(file: Path, rng: np.random.Generator) -> str:
    """A hidden copy beside it, as macOS leaves them."""
    shutil.copy(file, file.with_name("._" + file.name))
    return "hidden copy beside it"


def image_values(file: Path, rng: np.random.Generator) -> str:
    """Voxels of other values."""
    image = sitk.ReadImage(str(file))
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    value = pick([math.nan, math.inf, -1.0, 0.5, 1.0000001, 7.0, 300.0, 1e30], rng)
    array.flat[rng.integers(0, array.size, 5)] = value
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(file))
    return f"voxels {value}"


def image_shape(file: Path, rng: np.random.Generator) -> str:
    """Another grid: cropped, one slice, four axes, several values a voxel, another spacing or origin."""
    image = sitk.ReadImage(str(file))
    array = sitk.GetArrayFromImage(image)
    kind = pick(["cropped", "one slice", "four axes", "vector", "spacing", "origin", "empty"], rng)
    made = {
        "cropped": lambda: array[..., :-1],
        "one slice": lambda: array[:1],
        "four axes": lambda: array[None],
        "vector": lambda: np.stack([array] * 3, axis=-1),
        "empty": lambda: np.zeros_like(array),
    }.get(kind, lambda: array)()
    changed = sitk.GetImageFromArray(made, isVector=kind == "vector")
    if kind == "spacing":
        changed.SetSpacing((0.5, 2.0, 1e-7)[: changed.GetDimension()])
    if kind == "origin":
        changed.SetOrigin((1000.0,) * changed.GetDimension())
    sitk.WriteImage(changed, str(file))
    return f"image: {kind}"


def checkpoint_payload(file: Path, rng: np.random.Generator) -> str:
    """A checkpoint that runs something when it is unpickled."""
    content = read_checkpoint(file)
    content[pick(["network_weights", "payload"], rng)] = Payload()
    torch.save(content, file)
    return "payload"


def checkpoint_content(file: Path, rng: np.random.Generator) -> str:
    """A checkpoint with another value somewhere, or without it."""
    content = read_checkpoint(file)
    places = [(content, key) for key in content] + list(nodes(content["init_args"]))
    places += [(content["network_weights"], key) for key in content["network_weights"]]
    container, key = pick(places, rng)
    if rng.random() < 0.5:
        del container[key]
        said = "removed"
    else:
        container[key] = pick([*ODD, torch.zeros(3), torch.full((2, 2), math.nan)], rng)
        said = f"= {container[key]!r:.40}"
    torch.save(content, file)
    return f"{key!r} {said}"


def pickled(file: Path, rng: np.random.Generator) -> str:
    """A plain pickle with a payload."""
    file.write_bytes(pickle.dumps(Payload()))
    return "pickle with a payload"


def archive(file: Path, rng: np.random.Generator) -> str:
    """An entry that leads elsewhere, is there twice, or unpacks to very much."""
    name = pick(["../evil", "/tmp/evil", "a/../../evil", "C:\\evil", "plans.json", "big"], rng)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as content:
        if name == "plans.json":
            content.writestr(content.namelist()[0].upper(), "x")
        else:
            content.writestr(name, b"\0" * (30_000_000 if name == "big" else 1))
    return f"entry {name!r}"


def table_cell(file: Path, rng: np.random.Generator) -> str:
    """Another cell, or a column that is missing."""
    rows = list(csv.reader(file.open()))
    row = rows[int(rng.integers(len(rows)))]
    column = int(rng.integers(len(row)))
    row[column] = str(pick([*NAMES[:-1], "nan", "1e9"], rng))
    with file.open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return f"cell {row[column]!r:.40}"


def unzipped(file: Path, rng: np.random.Generator) -> str:
    """No longer packed, under the same name."""
    file.write_bytes(gzip.decompress(file.read_bytes()))
    return "unpacked under the same name"


ANY = (cut, flipped, noise, missing, folder_instead, link_to_itself, renamed)
BY_ENDING: dict[str, tuple[Callable[[Path, np.random.Generator], str], ...]] = {
    ".json": (json_value, json_value, json_value, json_key, json_key, json_code, json_whole),
    ".nii.gz": (image_values, image_shape, copied, unzipped),
    ".pth": (checkpoint_payload, checkpoint_content, checkpoint_content, pickled),
    ".zip": (archive, archive),
    ".csv": (table_cell, table_cell),
}


def pick(choices: Any, rng: np.random.Generator) -> Any:
    """One of some."""
    return choices[int(rng.integers(len(choices)))]


def mutate(file: Path, rng: np.random.Generator) -> str:
    """Damage a file in one way.

    Returns:
        What was done.
    """
    ways = next((ways for ending, ways in BY_ENDING.items() if file.name.endswith(ending)), ())
    way = pick((*ways, *ways, *ANY), rng)
    try:
        return way(file, rng)
    except Exception:  # what was damaged before is not always of the kind that its name tells
        return noise(file, rng)
