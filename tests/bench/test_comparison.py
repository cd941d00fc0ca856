"""The comparison with peers: its archive, its arithmetic, its table. No run is timed here."""

import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bench.comparison.archive import write_archive, write_part
from bench.comparison.ceilings import ceilings
from bench.comparison.contestants import read_files
from bench.comparison.page import markdown
from bench.comparison.process import CommandFailed, run_command, tree_pss_bytes
from bench.comparison.reference import write_reference
from bench.comparison.summary import Ceilings, Difference, Measurement, Ratio, Sizes, Spread, Summary
from PIL import Image

from pneumonia_core.bundles.choice import load_engine
from pneumonia_core.imaging.decode import decode
from pneumonia_core.phantoms.radiograph import phantom

SIZES = Sizes(whole=400, part=100)
SAME = Difference(0.0, 0.0)


@pytest.fixture
def originals(tmp_path):
    """Three originals: grey, RGB and progressive; and one of them twice."""
    folder = tmp_path / "originals"
    (folder / "ward").mkdir(parents=True)
    grey = [Image.fromarray(phantom(0, seed, 0, (90, 120))) for seed in range(3)]
    grey[0].save(folder / "a.jpeg", quality=92)
    grey[0].save(folder / "again.jpeg", quality=92)
    grey[1].convert("RGB").save(folder / "ward" / "b.jpg", quality=75)
    grey[2].save(folder / "ward" / "c.jpeg", quality=85, progressive=True)
    return folder


def test_every_image_of_the_archive_differs_in_bytes_and_in_pixels(originals, tmp_path):
    files = sorted(write_archive(originals, tmp_path / "archive", 3 * 45).iterdir())
    assert len({file.read_bytes() for file in files}) == 3 * 45
    squares = [Image.open(file).convert("L") for file in files]
    assert len({square.tobytes() for square in squares}) == 3 * 45
    assert {square.size for square in squares} == {(120, 90)}


def test_copies_are_encoded_as_their_originals_are(originals, tmp_path):
    files = sorted(write_archive(originals, tmp_path / "archive", 3 * 12).iterdir())
    images = [Image.open(file) for file in files]
    forms = Counter(
        (each.mode, bool(each.info.get("progressive")), str(each.quantization)) for each in images
    )
    assert sorted(forms.values()) == [12, 12, 12]
    for original in range(3):
        sizes = [file.stat().st_size for file in files[original::3]]
        assert max(sizes) < 1.25 * sizes[0]


def test_a_part_of_the_archive_is_spread_over_it(originals, tmp_path):
    archive = write_archive(originals, tmp_path / "archive", 12)
    part = write_part(archive, tmp_path / "part", 4)
    assert sorted(file.name for file in part.iterdir()) == [f"{n:06d}.jpeg" for n in (0, 3, 6, 9)]


def test_steady_state_leaves_out_what_both_runs_need_to_start():
    measured = _measured("us", whole_s=10 + 400 / 50, part_s=10 + 100 / 50)
    assert measured.steady_images_per_s(SIZES) == pytest.approx(50)
    assert measured.whole_images_per_s(SIZES) == pytest.approx(400 / 18)


def test_a_larger_run_that_took_no_longer_has_no_steady_state():
    assert math.isnan(_measured("us", whole_s=9, part_s=10).steady_images_per_s(SIZES))


def test_ratios_are_taken_within_pairs():
    # The second pair ran on a machine of half the speed: the medians of the rates would mix both.
    ours = [_measured("us", 20, 5), _measured("us", 40, 10), _measured("us", 20, 5)]
    peer = [_measured("them", 40, 10), _measured("them", 160, 40), _measured("them", 60, 15)]
    ratio = Ratio.of(ours, peer, SIZES)
    assert ratio.whole == ratio.steady == Spread(3.0, 2.0, 4.0)


def test_efficiency_is_the_share_of_decoding_and_computing_in_turn():
    # 100 decoded and 25 computed a second are 20 in turn; 300 images in 20 s are 15.
    measured = _measured("us", 25, 5, ceilings=Ceilings(100.0, 25.0))
    assert Summary.of([measured], SIZES).efficiency == Spread(*[pytest.approx(0.75)] * 3)


def test_the_difference_is_of_images_that_both_scored():
    expected = {"a": np.array([0.5, 0.25, 0.25]), "b": np.array([1.0, 0.0, 0.0])}
    found = {"b": np.array([0.7, 0.3, 0.0]), "c": np.array([0.0, 0.0, 1.0])}
    difference = Difference.of(found, expected)
    assert (difference.largest, difference.mean) == (pytest.approx(0.3), pytest.approx(0.2))
    with pytest.raises(ValueError, match="no image"):
        Difference.of({}, expected)


def test_the_table_shows_missing_rows_and_no_efficiency_of_peers():
    ours = [_measured("us", 20, 5, rows=400, ceilings=Ceilings(100.0, 25.0))]
    peer = [_measured("them", 40, 10, rows=399)]
    summaries = [Summary.of(each, SIZES) for each in (ours, peer)]
    text = markdown({"cores": 2}, SIZES, summaries, [Ratio.of(ours, peer, SIZES)])
    assert "- cores: 2" in text
    assert "| us | 20.0 (20.0 to 20.0) | 20.0 (20.0 to 20.0) | 400 |" in text
    assert "399 of 400" in text
    assert "| us | them | 2.00 (2.00 to 2.00) | 2.00 (2.00 to 2.00) |" in text
    assert text.count("Efficiency of") == 1
    assert "times as fast" not in markdown({}, SIZES, summaries[:1], [])


def test_memory_of_a_process_is_that_of_its_tree():
    hungry = "import sys; held = bytearray(b'x') * (64 << 20); print(flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hungry!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert 64 << 20 < tree_pss_bytes(process.pid) < 256 << 20
    assert tree_pss_bytes(os.getpid()) > 64 << 20
    process.communicate("")


def test_a_failing_command_says_why(tmp_path):
    program = "import sys; print('no such model', file=sys.stderr); sys.exit(3)"
    with pytest.raises(CommandFailed, match="exit code 3:\nno such model"):
        run_command([sys.executable, "-c", program], tmp_path)


def test_rows_of_a_peer_are_read_by_file_name_and_doubles_are_refused(tmp_path):
    table = pa.table(
        {"path": ["/a/1.jpeg", "file:///a/2.jpeg"], **{f"p{n}": [0.1 * n, 0.2] for n in range(3)}}
    )
    pq.write_table(table, tmp_path / "one.parquet")
    found = read_files(tmp_path)
    assert found["1.jpeg"].tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert found["2.jpeg"].tolist() == pytest.approx([0.2, 0.2, 0.2])
    pq.write_table(table, tmp_path / "two.parquet")
    with pytest.raises(ValueError, match="4 rows of 2 images"):
        read_files(tmp_path)


def test_the_machine_is_measured_and_the_reference_is_what_float32_engines_compute(
    tiny_bundle, originals, tmp_path
):
    images = write_archive(originals, tmp_path / "archive", 6)
    rates = ceilings(tiny_bundle.path, images, "openvino", "float32", measure_s=0.01)
    assert rates.keys() == {each.name for each in fields(Ceilings)}
    assert all(rate > 0 for rate in rates.values())
    write_reference(tiny_bundle.path, images, tmp_path / "reference")
    expected = read_files(tmp_path / "reference")
    engine = load_engine(tiny_bundle, "openvino", "float32")
    squares = np.stack([decode(file.read_bytes(), 64) for file in sorted(images.iterdir())])
    found = dict(zip(sorted(expected), engine(squares).probabilities, strict=True))
    assert len(expected) == 6
    assert Difference.of(found, expected).largest < 1e-5


def _measured(
    contestant: str, whole_s: float, part_s: float, rows: int = 400, ceilings: Ceilings | None = None
) -> Measurement:
    return Measurement(contestant, whole_s, part_s, rows, 2**30, SAME, None, ceilings)
