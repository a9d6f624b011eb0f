"""Fetching and matching of artwork, on packages made up here."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

import cv2
import numpy as np
import pytest
from conftest import ROOT

import prepare_stickerscenes
from ovseg.data.stickerscenes import load_concepts, object_concepts
from ovseg.errors import UserError
from stickerscenes import sprites
from stickerscenes.icons import IconSet
from stickerscenes.packages import PACKAGES, NpmPackage, fetch_package

ICONS = {
    "icons": {"wolf-face": {"body": '<path d="M0 0"/>'}, "bear": {"body": "", "width": 8}},
    "aliases": {"grizzly-bear": {"parent": "bear"}},
    "width": 36,
    "height": 36,
}


def concept(name):
    return next(c for c in load_concepts() if c.name == name)


def archive(folder, content=b'{"name": "x"}'):
    """An npm package beside its pinned description."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        info = tarfile.TarInfo("package/package.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    digest = base64.b64encode(hashlib.sha512(data.getvalue()).digest()).decode()
    package = NpmPackage("@some/icons", "1.0.0", f"sha512-{digest}")
    (folder / package.archive).write_bytes(data.getvalue())
    return package


def test_a_cached_package_is_checked_and_unpacked(tmp_path):
    package = archive(tmp_path)
    folder = fetch_package(package, tmp_path)
    assert folder == tmp_path / "some-icons-1.0.0"
    assert json.loads((folder / "package.json").read_text()) == {"name": "x"}
    (tmp_path / package.archive).unlink()
    assert fetch_package(package, tmp_path) == folder  # nothing left to fetch


def test_a_changed_package_is_refused(tmp_path):
    package = archive(tmp_path)
    (tmp_path / package.archive).write_bytes(b"something else")
    with pytest.raises(UserError, match=r"some-icons-1\.0\.0\.tgz is not .* as pinned"):
        fetch_package(package, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [package.archive]


def test_without_npm_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="npm was not found"):
        fetch_package(PACKAGES["noto"], tmp_path)


def test_a_drawing_is_found_by_code_point_or_by_name():
    by_code_point = IconSet("twemoji", ICONS, {"1f43a": "wolf-face", "1f43b": "gone"})
    assert by_code_point.find(concept("wolf"), []) == "wolf-face"
    assert by_code_point.find(concept("bear"), []) is None
    by_name = IconSet("emojione", ICONS, {})
    assert by_name.find(concept("wolf"), ["wolf", "wolf_face"]) == "wolf-face"
    assert by_name.find(concept("bear"), []) == "bear"
    assert by_name.find(concept("rose"), ["red rose"]) is None
    own_words = IconSet("fxemoji", {"icons": {"ship": {"body": ""}, "aubergine": {"body": ""}}}, {})
    assert own_words.find(concept("eggplant"), []) == "aubergine"
    assert own_words.find(concept("ship"), []) is None


def test_svg_has_the_size_of_the_icon_and_aliases_are_followed():
    icons = IconSet("twemoji", ICONS, {})
    assert 'viewBox="0 0 36 36"' in icons.svg("wolf-face")
    assert '<path d="M0 0"/>' in icons.svg("wolf-face")
    assert 'viewBox="0 0 8 36"' in icons.svg("grizzly-bear")


def test_render_cuts_to_the_drawn_part():
    pytest.importorskip("resvg_py")
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="32" height="32">'
        '<rect x="8" y="4" width="16" height="8" fill="#ff0000"/></svg>'
    )
    picture = sprites.render_svg(svg, 64)
    assert picture.shape == (32, 64, 4)
    assert (picture[4:-4, 4:-4] == (255, 0, 0, 255)).all()
    with pytest.raises(ValueError, match="empty"):
        sprites.render_svg(svg.replace('width="16"', 'width="0"'), 64)


@pytest.mark.parametrize(
    "arguments", [["--scale", "0"], ["--scale", "1.5"], ["--num-workers", "0"]]
)
def test_bad_arguments_are_named(arguments, tmp_path):
    with pytest.raises(UserError, match=arguments[0]):
        prepare_stickerscenes.main(["--root", str(tmp_path), *arguments])


def test_as_a_script_with_worker_processes(tmp_path, monkeypatch):
    """Workers find the generator where the script does, beside it."""

    def draw(cache, concepts, num_workers):
        for style in ("twemoji", "noto"):
            (cache / "sprites" / style).mkdir(parents=True)
            for concept in concepts:
                picture = np.full((48, 64, 4), (concept.label, 90, 200, 255), np.uint8)
                name = concept.name.replace(" ", "_")
                cv2.imwrite(str(cache / "sprites" / style / f"{name}.png"), picture)

    monkeypatch.setattr(sprites, "_render_all", draw)
    root = tmp_path / "stickerscenes"
    sprites.build_sprites(root / "artwork", object_concepts())
    options = ["--root", str(tmp_path), "--only", "dev", "--scale", "0.01", "--num-workers", "2"]
    script = ROOT / "datasets" / "prepare_stickerscenes.py"
    done = subprocess.run(
        [sys.executable, str(script), *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "dev: 3 scenes, 3 of them newly drawn" in done.stderr
    for folder in ("images", "annotations", "instances"):
        assert len(list((root / folder / "dev").iterdir())) == 3


def test_pinned_packages_are_sha512():
    for package in PACKAGES.values():
        kind, _, digest = package.integrity.partition("-")
        assert kind == "sha512"
        assert np.frombuffer(base64.b64decode(digest), np.uint8).size == 64
