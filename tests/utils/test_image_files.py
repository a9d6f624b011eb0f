"""Images are written whole or not at all, also where OpenCV would not notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovseg.utils.image_files import write_image

# a file of this process may have 20 bytes: less than any PNG, and less than a buffer
FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from ovseg.errors import cli_errors
from ovseg.utils.image_files import write_image
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
with cli_errors():
    write_image(Path(sys.argv[1]), np.zeros((8, 8), np.uint8))
"""


def test_what_is_written_is_read(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    write_image(tmp_path / "a.png", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png")), image)
    write_image(tmp_path / "b.jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 100))
    write_image(tmp_path / "c.jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 10))
    assert (tmp_path / "c.jpg").stat().st_size < (tmp_path / "b.jpg").stat().st_size
    with pytest.raises(cv2.error):
        write_image(tmp_path / "d.nothing", image)


def test_a_small_file_on_a_full_disk(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.ones((3, 3), np.uint8))
    before = (tmp_path / "a.png").read_bytes()
    command = [sys.executable, "-c", FULL, str(tmp_path / "a.png")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert "a.png" in line
    assert "make room there" in line
    assert (tmp_path / "a.png").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
