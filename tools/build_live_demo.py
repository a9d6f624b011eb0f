#!/usr/bin/env python3
"""Put the embedded model and onnxruntime-web beside the documentation's live demo.

    python tools/build_live_demo.py

Writes docs/live/model, docs/live/ort and docs/live/samples, from which `make docs` copies them to
the site. What is there already and still fits is left as it is.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from ovseg.errors import Parser, UserError, cli_errors
from ovseg.runtime.folder import MANIFEST, ExportFolder
from ovseg.utils.digests import file_digest
from ovseg.utils.io import atomic_path, write_json
from ovseg.utils.package_files import package_folder

LIVE = Path(__file__).resolve().parents[1] / "docs" / "live"
PACKAGE = "onnxruntime-web@1.30.0"
# of the package, as the registry states it and package managers check it
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
#: says of which weights the model was made
WEIGHTS = "weights.json"


def fetch_runtime(folder: Path) -> None:
    """Take onnxruntime-web's files for browsers out of its package.

    Raises:
        UserError: npm is not there, cannot fetch the package, or gives another one.
    """
    if all((folder / name).is_file() for name in FILES):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("npm is not installed, which fetches onnxruntime-web")
    with TemporaryDirectory() as temporary:
        done = subprocess.run(
            [npm, "pack", "--silent", PACKAGE], cwd=temporary, capture_output=True, text=True
        )
        if done.returncode:
            raise UserError(f"npm cannot fetch {PACKAGE}: {done.stderr.strip()[-200:]}")
        (package,) = Path(temporary).glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if found != SHA512:
            raise UserError(f"{PACKAGE} has another content than expected (sha512 {found})")
        with tarfile.open(package) as archive:
            for name in FILES:
                content = archive.extractfile(f"package/dist/{name}")
                assert content is not None
                with atomic_path(folder / name) as path:
                    path.write_bytes(content.read())


def export_embedded(folder: Path) -> None:
    """Export the embedded model with weights in half precision, unless it is there."""
    weights = {"sha256": file_digest(package_folder("resources") / "ovseg_tiny.pth")}
    about = folder.with_name(WEIGHTS)
    if (folder / MANIFEST).is_file() and about.is_file():
        try:
            ExportFolder.read(folder)
            fits = about.read_text(encoding="utf-8").split('"')[3] == weights["sha256"]
        except (UserError, IndexError):
            fits = False
        if fits:
            return
    from ovseg.engine.test_time import plain_model
    from ovseg.export.write import ExportOptions, export_model
    from ovseg.predictor import Predictor

    predictor = Predictor.from_pretrained("tiny", device="cpu")
    model = plain_model(predictor.model)
    export_model(predictor.cfg, model, folder, ExportOptions("fp16"), progress=print)
    write_json(about, weights)


def main() -> None:
    """The command line; ends with exit code 0 where the demo has to be left out."""
    Parser(__doc__).parse_args()
    with cli_errors():
        try:
            fetch_runtime(LIVE / "ort")
        except UserError as error:
            print(f"\n*** THE LIVE DEMO IS LEFT OUT OF THE SITE: {error} ***\n", file=sys.stderr)
            return
        export_embedded(LIVE / "model")
        shutil.copytree(
            package_folder("resources") / "samples", LIVE / "samples", dirs_exist_ok=True
        )
        print(f"the live demo is in {LIVE}")


if __name__ == "__main__":
    main()
