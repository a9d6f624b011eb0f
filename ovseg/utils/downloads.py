"""Files fetched from Google Drive and the Hugging Face Hub: whole or not at all, by one process.

No server of either was reached when this was written: the tests run gdown and huggingface_hub
against a server on the same machine.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ovseg.errors import UserError
from ovseg.utils.io import atomic_path
from ovseg.utils.locks import only_process

logger = logging.getLogger(__name__)

_SECONDS = 60  # without a byte before a server is given up
_BLOCK = 1 << 20
# a full disk, or a folder that may not be written to, is no failure of the network
_OF_THIS_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


@dataclass(frozen=True)
class DriveFile:
    """A file on Google Drive.

    Args:
        id: Google Drive's.
        md5: the beginning of its MD5 sum, as published.
    """

    id: str
    md5: str

    @property
    def link(self) -> str:
        """The page that a browser downloads it from."""
        return f"https://drive.google.com/file/d/{self.id}/view"


def fetch_from_drive(source: DriveFile, target: Path) -> Path:
    """Have a file of Google Drive at ``target``; fetched only if it is not there.

    What has come is kept beside it when a download breaks off, and the next one goes on from there.
    Of several processes one downloads, the others wait for it.

    Args:
        source: where it is, and how its MD5 sum begins.
        target: where to keep it; a file that somebody put there is checked and used.

    Returns:
        ``target``.

    Raises:
        UserError: it cannot be fetched, or the file at ``target`` is not the published one.
    """
    if target.is_file():
        check_md5(target, source)
        return target
    lock = target.with_name(f".{target.name}.lock")
    with only_process(lock, lambda: f"another process fetches {target.name}: waiting for it"):
        if not target.is_file():  # no other process has fetched it meanwhile
            part = _download(source, target)
            if not _md5(part).startswith(source.md5):
                part.unlink()
                raise UserError(
                    f"what Google Drive sent is not {target.name}: its md5 does not begin with "
                    f"{source.md5}; {_by_hand(source, target)}"
                )
            part.replace(target)
    check_md5(target, source)
    return target


def check_md5(file: Path, source: DriveFile) -> None:
    """Check that a file is the published one; its sum is noted, and taken once while it stays.

    Raises:
        UserError: it is another file, or a damaged one.
    """
    state = file.stat()
    seen = {"size": state.st_size, "changed": state.st_mtime_ns, "begins": source.md5}
    note = file.with_name(f".{file.name}.checked.json")
    with suppress(OSError, ValueError):
        if json.loads(note.read_text()) == seen:
            return
    logger.info("checking %s", file)
    md5 = _md5(file)
    if not md5.startswith(source.md5):
        raise UserError(
            f"{str(file)!r} is damaged or another file: its md5 begins with {md5[:6]}, the "
            f"published one with {source.md5}; delete it, and it is fetched again"
        )
    with suppress(OSError), atomic_path(note) as temporary:  # a folder may be read-only
        temporary.write_text(json.dumps(seen))


def _download(source: DriveFile, target: Path) -> Path:
    try:
        import gdown
    except ModuleNotFoundError as error:
        raise UserError(
            f"{target.name} is fetched by gdown: pip install 'ovseg[download]'; or "
            f"{_by_hand(source, target)}"
        ) from error
    # gdown keeps what has come beside this name until all is there
    part = target.with_name(f"{target.name}.fetched")
    logger.info("fetching %s to %s", source.link, target)
    try:
        gdown.download(
            id=source.id, output=str(part), resume=True, use_cookies=False,
            quiet=not sys.stderr.isatty(), timeout=_SECONDS,
        )  # fmt: skip
    except Exception as error:  # of gdown, requests and urllib3
        if isinstance(error, OSError) and error.errno in _OF_THIS_MACHINE:
            raise
        reason = type(error).__name__
        if isinstance(error, gdown.DownloadError):  # its own words are readable
            reason = re.split(r"[.:\n]", str(error))[0]
        raise UserError(
            f"{target.name} could not be fetched ({reason}); run it again to go on, or "
            f"{_by_hand(source, target)}"
        ) from error
    return part


def _by_hand(source: DriveFile, target: Path) -> str:
    return f"download {source.link} and put it at {str(target)!r}"


def _md5(file: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fetch_from_hub(repository: str, revision: str | None, file: str) -> Path:
    """Have a file of a repository on the Hugging Face Hub in huggingface_hub's own cache.

    Args:
        repository: "owner/name".
        revision: a branch, a tag or a commit; None: its main branch.
        file: its name there.

    Raises:
        UserError: it cannot be had.
    """
    from huggingface_hub import errors, hf_hub_download

    reasons: dict[type[Exception], str] = {
        errors.GatedRepoError: "its owner has to give you access; then set HF_TOKEN",
        errors.RepositoryNotFoundError: "there is no such repository, or HF_TOKEN gives no access",
        errors.RevisionNotFoundError: f"it has no revision {revision}",
        errors.LocalEntryNotFoundError: "the Hub cannot be reached, and it was not fetched before",
        errors.EntryNotFoundError: f"it has no file {file}",
        errors.HFValidationError: "that is no name of a repository",
    }
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THIS_MACHINE:
            raise
        reason = next(
            (text for kind, text in reasons.items() if isinstance(error, kind)),
            type(error).__name__,
        )
        name = f"hf://{repository}" + (f"@{revision}" if revision else "")
        raise UserError(
            f"{name}: {file} could not be fetched ({reason}); check the name, or download "
            "config.yaml and model.safetensors to a folder and give its path"
        ) from error
