"""The npm packages that hold the artwork: pinned, checked and unpacked."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from ovseg.errors import UserError


@dataclass(frozen=True)
class NpmPackage:
    """An npm package at a pinned version; ``integrity`` is npm's own (``sha512-<base64>``)."""

    name: str
    version: str
    integrity: str

    @property
    def archive(self) -> str:
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


EMOJIBASE = NpmPackage(
    "emojibase-data",
    "17.0.0",
    "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)
PACKAGES: dict[str, NpmPackage] = {
    "noto": NpmPackage(
        "@iconify-json/noto",
        "1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "twemoji": NpmPackage(
        "@iconify-json/twemoji",
        "1.2.5",
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
    ),
    "emojione": NpmPackage(
        "@iconify-json/emojione",
        "1.2.3",
        "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
    ),
    "fxemoji": NpmPackage(
        "@iconify-json/fxemoji",
        "1.2.2",
        "sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
    ),
    "fluent-emoji": NpmPackage(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
    ),
    "fluent-emoji-flat": NpmPackage(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
}


def fetch_package(package: NpmPackage, cache: Path) -> Path:
    """Return the folder of ``package`` under ``cache``, fetching and checking it when needed.

    Raises:
        UserError: npm is missing, the download failed, or the archive is not the pinned one.
    """
    folder = cache / package.archive.removesuffix(".tgz")
    if (folder / "package.json").is_file():
        return folder
    archive = cache / package.archive
    if not archive.is_file():
        _npm_pack(package, archive)
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != package.integrity:
        raise UserError(
            f"{archive} is not {package.name}@{package.version} as pinned (sha512 differs): "
            "delete it and run again"
        )
    scratch = cache / f".{folder.name}.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
    (scratch / "package").replace(folder)
    shutil.rmtree(scratch)
    return folder


def _npm_pack(package: NpmPackage, archive: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"npm was not found: install Node.js, or put {archive.name} into {archive.parent}"
        )
    archive.parent.mkdir(parents=True, exist_ok=True)
    spec = f"{package.name}@{package.version}"
    command = [npm, "pack", spec, "--silent", "--pack-destination", str(archive.parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0 or not archive.is_file():
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"npm pack {spec} failed ({reason}): check the network and run again")
