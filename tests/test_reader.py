"""Reading metrics: every number and no other, in little memory, and nothing that was handed out ever changes."""

from __future__ import annotations

import json
import math
import random
import struct
import tracemalloc
from pathlib import Path

import pytest

from engine.base.status import is_number
from engine.export.tables import export_csv
from engine.runs import reader as readers
from engine.runs.columns import Columns
from engine.runs.reader import RunReader

ODD = [
    b'{"step": 1, "a": NaN, "b": -Infinity, "c": 1e999, "d": 1.5e308, "e": -0.0, "f": null}',
    b'{"step": 2, "a": true, "b": "1", "c": [1], "d": {"x": 1}, "e": 1' + b"0" * 400 + b', "f": 1e-320}',
    b'  {"step": 3, "a": 1}  ',
    b'{"step": 4, "a": 1}\r',
    b'\xef\xbb\xbf{"step": 5, "a": 1}',
    b'{"step": 6, "a": 1, "\xed\xa0\x80": 2}',
    b'{"step": 7, "a": 1, "a": 2}',
    b'{"step": 8, "a": 1}{"step": 9, "a": 1}',
    b'{"step": 8, "a": 1},{"step": 9, "a": 1}',
    b'{"step": 10, "a": 1',
    b'"b": 2}',
    b'{"step": null, "a": 1}',
    b'{"step": true, "a": 1}',
    b'{"step": "12", "a": 1}',
    b'{"step": 13, "t": "noon", "a": 13}',
    b'{"step": 14, "t": true, "a": 14}',
    b'{"step": 15, "t": null, "a": 15}',
    b'{"step": 16.5, "t": 16, "a": 16}',
    b'{"a": 1}',
    b"{}",
    b"null",
    b"1",
    b'"\\ud800"',
    b"\xff\xfe",
    b"[" * 5000,
    b'{"step": 17}',
    b'{"step": 18, "": 1, "s\\u0000": 2}',
]


def write(folder: Path, lines: list[bytes]) -> RunReader:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return RunReader(folder)


def plain(lines: list[bytes]) -> tuple[dict[str, list[tuple[float, float, float]]], int]:
    """Metric to (step, time, value) of its records, line by line in the plainest way; and how many lines are bad."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    bad = 0
    for line in lines:
        try:
            record = json.loads(line.decode(errors="replace"))
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not is_number(record.get("step")):
            bad += 1
            continue
        time = record.get("t")
        time = time if time is not None and is_number(time) else math.nan
        for key, value in record.items():
            if key not in ("step", "t") and (value is None or is_figure(value)):
                found.setdefault(key, []).append((record["step"], time, math.nan if value is None else value))
    return found, bad


def is_figure(value: object) -> bool:
    """A number, be it finite or not, that a float can hold."""
    return isinstance(value, float) or (isinstance(value, int) and value is not True and abs(value) < 2**1023)


def of(columns: Columns) -> dict[str, list[tuple[float, float, float]]]:
    return {name: list(zip(item.steps, item.times, item.values, strict=True)) for name, item in columns.items()}


def bits(found: dict[str, list[tuple[float, float, float]]]) -> dict[str, list[bytes]]:
    """To the last bit: NaN is NaN, and 0 is not -0."""
    return {name: [struct.pack("3d", *record) for record in records] for name, records in found.items()}


def usual(count: int, chance: random.Random) -> list[bytes]:
    """Records of two kinds, as runs write them, now and then one metric more or less; floats of 32 and of 64 bits."""
    lines = []
    for step in range(count):
        narrow = struct.unpack("f", struct.pack("f", chance.gauss(0, 1)))[0]
        record = {"t": 1.8e9 + step / 7, "step": step, "narrow": narrow, "count": step % 3, "wide": chance.random()}
        if step > count / 2:
            record["late"] = narrow if step < 0.75 * count else chance.random()
        if chance.random() < 0.1:
            record = {"t": 1.8e9 + step / 7, "step": step, "rare": chance.random(), "count": None}
        if chance.random() < 0.02:
            record.pop("wide", None)
        lines.append(json.dumps(record).encode())
    return lines


@pytest.mark.parametrize("piece", [2**17, 300])
@pytest.mark.parametrize("kind", ["usual", "odd", "both"])
def test_columns_are_what_the_plainest_reader_finds(tmp_path, monkeypatch, kind, piece):
    chance = random.Random(3)
    lines = {"usual": usual(3000, chance), "odd": ODD, "both": [*usual(500, chance), *ODD, *usual(500, chance)]}[kind]
    if kind == "both":
        chance.shuffle(lines)
    monkeypatch.setattr(readers, "PIECE", piece)
    reader = write(tmp_path / "run", lines)
    expected, bad = plain(lines)
    assert reader.poll() == len(lines) - bad and reader.bad_lines == bad
    assert bits(of(reader.columns)) == bits(expected)


def test_polling_may_stop_at_any_piece_and_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "PIECE", 1000)
    lines = usual(200, random.Random(1))
    reader = write(tmp_path / "run", lines)
    seen = 0
    for _ in range(3):
        seen += len(next(reader.pieces()))
        assert 0 < seen < 200
    assert seen + reader.poll() == 200 and bits(of(reader.columns)) == bits(plain(lines)[0])


def test_what_was_handed_out_stays_as_it_is(tmp_path):
    reader = write(tmp_path / "run", [b'{"step": %d, "a": 0.5}' % step for step in range(50)])
    reader.poll()
    steps, values = reader.series("a")
    with open(reader.path / "metrics.jsonl", "ab") as file:  # more room is needed, and 64 bits
        file.writelines(b'{"step": %d, "a": 0.1}\n' % step for step in range(50, 5000))
    reader.poll()
    assert list(steps) == list(range(50)) and list(values) == [0.5] * 50
    assert list(reader.series("a")[1]) == [0.5] * 50 + [0.1] * 4950
    with pytest.raises(TypeError):
        values[0] = 1.0  # type: ignore[index]  # for readers only


def test_a_long_file_takes_no_more_memory_than_its_numbers(tmp_path):
    metrics = {f"metric {number}": number / 3 for number in range(10)}
    reader = write(
        tmp_path / "run", [json.dumps({"t": 1e9, "step": step, **metrics}).encode() for step in range(20_000)]
    )
    tracemalloc.start()
    try:
        for _ in reader.pieces():
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6  # as dicts: more than 10 MB
    assert len({id(column.stamps) for column in reader.columns.values()}) == 1  # steps and times are there once


def test_records_are_not_kept_and_the_table_has_them_all(tmp_path):
    lines = usual(300, random.Random(2))
    reader = write(tmp_path / "run", lines)
    assert [record["step"] for record in reader.records()] == list(range(300))
    assert list(reader.records()) == []
    counts = export_csv(RunReader(reader.path), tmp_path / "csv")
    rows = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()
    assert counts["metrics.csv"] == 300 and rows[0].split(",")[:2] == ["step", "t"]
    assert "late" in rows[0] and len({row.count(",") for row in rows}) == 1


def test_columns_may_be_kept_of_some_metrics_only(tmp_path):
    write(
        tmp_path,
        [b'{"step": 0, "loss": 1, "norm": 2}', b'{"step": 1, "loss": 1, "norm": true}', b'{"step": 2, "norm": 8}'],
    )
    reader = RunReader(tmp_path, wanted=lambda metric: metric == "norm")
    assert reader.poll() == 3
    assert list(reader.columns) == ["norm"] and list(reader.series("norm")[1]) == [2.0, 8.0]
    write(tmp_path, [b'{"step": 5, "loss": 1.0, "norm": 3.0}'])
    reader.poll()
    assert list(reader.columns) == ["norm"] and list(reader.series("norm")[0]) == [5.0]
