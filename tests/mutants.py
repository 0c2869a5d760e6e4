"""Damaged and manipulated saved models: seeded changes of the bytes, the JSON and the files of a folder."""

from __future__ import annotations

import hashlib
import json
import random
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from traceback import extract_tb
from typing import Any

import numpy as np

import mmfusion
from mmfusion.artifacts.integrity import write_files
from mmfusion.artifacts.names import FILES

Files = dict[str, bytes]

#: the file of an exported model.
PROGRAM = "model.onnx"
#: seconds of CPU time that a folder may take.
PATIENCE = 10.0

#: invalid values.
STOCK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**400, 1e308, -1e308, float("nan"), float("inf"), 0.5),
    *("", "x", "../../etc/passwd", "/etc/passwd", "hf-hub:a/b", "\ud800", "nan", "a" * 5000, "\0", "{x!r:{y}}", ","),
    *([], [[]], {}, {"a": {"b": []}}, ["x", 1, None], [0, 0, 0], {"model_type": "dpt", "backbone": "a/b"}),
)
#: Keys that could have a meaning for a library.
KEYS = (
    *("auto_map", "attn_implementation", "backbone", "trust_remote_code", "quantization_config", "checkpoint_path"),
    *("encoder_weights", "config", "model_type", "num_labels", "id2label", "export", "plugins", "dtype", "towers"),
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values in nested values."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from _paths(each, (*path, key))


def _changed(value: Any, rng: random.Random) -> Any:
    """A different value."""
    if isinstance(value, bool):
        return rng.choice([not value, *STOCK])
    if isinstance(value, int | float) and rng.random() < 0.6:
        half = value // 2 if isinstance(value, int) else value / 2
        return rng.choice([-value, value + 1, value - 1, value * 1000, value * 10**9, half, str(value)])
    if isinstance(value, str) and rng.random() < 0.4:
        return rng.choice([value[1:], value + "x", value.upper(), value * 100, [value]])
    if isinstance(value, list) and rng.random() < 0.6:
        return rng.choice([value[1:], value[::-1], value * 2, [value], dict.fromkeys(map(str, value))])
    return deepcopy(rng.choice(STOCK))


def json_changed(data: bytes, rng: random.Random) -> bytes:
    """Change, remove, add or move one or two entries of a JSON file."""
    values = json.loads(data)
    for _ in range(rng.choice([1, 1, 1, 2])):
        path = rng.choice(list(_paths(values)) or [()])
        if not path:
            break
        node = values
        for key in path[:-1]:
            node = node[key]
        action = rng.random()
        if action < 0.6:
            node[path[-1]] = _changed(node[path[-1]], rng)
        elif action < 0.75:
            del node[path[-1]]
        elif action < 0.9 and isinstance(node, dict):
            node[rng.choice(KEYS)] = deepcopy(rng.choice(STOCK))
        elif action < 0.95:
            deep: Any = node[path[-1]]
            for _ in range(rng.choice([30, 100, 300])):
                deep = rng.choice([[deep], {"a": deep}])
            node[path[-1]] = deep
        else:
            node[path[-1]] = deepcopy(values[rng.choice(list(values))])
    return json.dumps(values, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")


def bytes_changed(data: bytes, rng: random.Random) -> bytes:
    """Flip a bit, remove, duplicate or overwrite a piece, or truncate the file."""
    found = bytearray(data)
    start = rng.randrange(max(1, len(found)))
    end = min(len(found), start + rng.choice([1, 4, 64, 4096]))
    match rng.randrange(6):
        case 0 | 1:
            found[start] ^= 1 << rng.randrange(8)
        case 2:
            del found[start:]
        case 3:
            del found[start:end]
        case 4:
            found[start:end] = rng.randbytes(end - start)
        case _:
            found[start:start] = b"[" * 5000 if rng.random() < 0.3 else found[start:end]
    return bytes(found)


def header_changed(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a safetensors file, which describes the tensors."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json_changed(data[8 : 8 + length], rng)
    except RecursionError:
        return data[:8]
    stated = len(header) if rng.random() < 0.8 else rng.choice([0, 1, 2**32, 2**63 - 1])
    return stated.to_bytes(8, "little") + header + data[8 + length :]


def files_changed(files: Files, rng: random.Random) -> Files:
    """Remove, empty, exchange or add a file."""
    found, name, other = dict(files), *rng.sample(sorted(files), 2)
    match rng.randrange(5):
        case 0:
            del found[name]
        case 1:
            found[name] = b""
        case 2:
            found[name] = files[other]
        case 3:
            found[name], found[other] = files[other], files[name]
        case _:
            added = rng.choice(["added_tokens.json", "special_tokens_map.json", "vocab.txt", "merges.txt"])
            found[added] = rng.choice([b'{"melanoma": 7}', b'{"unk_token": "[CLS]"}', b"{", b"a\nb\n", files[other]])
    return found


def mutant(files: Files, seed: int) -> Files:
    """The files of a folder with one change that depends on the seed."""
    rng = random.Random(seed)
    if rng.random() < 0.1:
        return files_changed(files, rng)
    # most changes are in the configuration
    name = rng.choice([*sorted(files), *["config.json"] * 6, *["tokenizer.json"] * 2])
    if name.endswith(".json") and rng.random() < 0.75:
        return {**files, name: json_changed(files[name], rng)}
    if name.endswith(".safetensors") and rng.random() < 0.5:
        return {**files, name: header_changed(files[name], rng)}
    return {**files, name: bytes_changed(files[name], rng)}


def write(files: Files, folder: Path) -> None:
    """Write a folder with only these files."""
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def with_hash(files: Files) -> Files:
    """The files of an exported folder with a matching hash of the program."""
    config = json.loads(files["config.json"])
    config["export"]["sha256"] = hashlib.sha256(files[PROGRAM]).hexdigest()
    return {**files, "config.json": json.dumps(config).encode()}


def answers(folder: Path, rows: Sequence[Any]) -> dict[str, Any]:
    """Predictions of a model for rows and their texts."""
    predictor = mmfusion.Predictor.from_pretrained(folder, device="cpu")
    tokenizer = predictor.processor.tokenizer
    tokens = tokenizer([row.get("text", "") for row in rows])["input_ids"] if tokenizer is not None else []
    return {"labels": predictor.labels, "tokens": tokens, "p": predictor.predict_proba(rows)}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[name] == other[name] for name in ("labels", "tokens")) and np.array_equal(one["p"], other["p"])


def check_mutants(saved: Files, folder: Path, rows: Sequence[Any], count: int, attacked: bool) -> None:
    """Load mutants of a folder; each must be refused in one line or predict like the saved model.

    Attacked folders have a ``files.json`` that says nothing against them, or none, and name the program that they
    hold; they may be another sound model.
    """
    files = {name: data for name, data in saved.items() if not (attacked and name == FILES)}
    write(saved, folder)
    expected, outcomes, faults = answers(folder, rows), Counter[str](), []
    for seed in range(count):
        changed = mutant(files, seed + 10**6 * attacked)
        if attacked and changed.get(PROGRAM) and changed.get("config.json") == files["config.json"]:
            changed = with_hash(changed)
        write(changed, folder)
        if attacked and seed % 2:
            write_files(folder, PROGRAM)
        began = time.process_time()
        try:
            with warnings.catch_warnings(action="ignore"):
                found = "same" if same(answers(folder, rows), expected) else "another"
        except (ValueError, OSError) as error:
            found = "refused"
            if "\n" in str(error) or not 0 < len(str(error)) < 1500:
                faults.append(f"{seed}: not one short line: {str(error)[:300]}")
        except Exception as error:  # errors that a user would see as a traceback
            found = "traceback"
            where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in extract_tb(error.__traceback__)]
            faults.append(f"{seed}: {type(error).__name__}: {str(error)[:200]} ({', '.join(where[-4:])})")
        if found == "another" and not attacked:
            faults.append(f"{seed}: another model was loaded")
        if (took := time.process_time() - began) > PATIENCE:
            faults.append(f"{seed}: {found} after {took:.0f} s")
        outcomes[found] += 1
    print(f"{'attacked' if attacked else 'damaged'}: {dict(outcomes)}")
    assert not faults, f"{len(faults)} of {count} ({dict(outcomes)}):\n" + "\n".join(faults[:40])
    assert outcomes["refused"] > count / 4
