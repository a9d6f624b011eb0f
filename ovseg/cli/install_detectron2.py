"""Install detectron2 0.6 where no working detectron2 is there.

    ovseg install-detectron2            # does nothing when detectron2 works already
    ovseg install-detectron2 --force    # installs over what is there
    ovseg install-detectron2 --sdist pb1-detectron2-0.6.tar.gz    # no download

detectron2 has no release on the package index under its own name. Its 0.6 source is there as
pb1-detectron2, without the C++ files that its setup.py wants to compile. This command takes that
source with pip's own index settings, checks its SHA-256, makes a few edits (they are listed in
ovseg/cli/detectron2_wheel.py), packs the result into a pure-Python wheel named detectron2 and lets
pip install it. Nothing is compiled, and no code of the source is run.

The few ops that exist only in the compiled extension (rotated boxes, deformable convolution on a
GPU, the fast variant of COCO evaluation) say so when they are called. OVSeg uses none of them. An
official build, or one from source, is as good: this command leaves it alone.
ovseg-install-detectron2 and python tools/install_detectron2.py are the same.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ovseg.cli.detectron2_wheel import (
    SDIST,
    VERSION,
    apply_edits,
    build_wheel,
    check_hash,
    collect,
    unpack,
)
from ovseg.errors import Parser, UserError, cli_errors

log = logging.getLogger(__name__)

# Imports what OVSeg uses; prints the version. Runs in a process of its own, because a broken
# installation may take its process down.
PROBE = (
    "import detectron2, detectron2.engine, detectron2.evaluation, detectron2.projects.deeplab;"
    "import importlib.metadata as m;"
    "print(m.version('detectron2') if 'detectron2' in {d.name for d in m.distributions()}"
    " else detectron2.__version__)"
)

# Finds and downloads one file of one project as `pip download` would (index, find-links, proxy,
# certificates, credentials), but stops before pip asks the source for its metadata: that would run
# its setup.py, and pip rejects what it says. pip has no public interface for this.
FETCH = """
import logging, sys
from pip._internal.commands import create_command
logging.basicConfig(level=logging.DEBUG, format="%(message)s")  # for pip's "Could not fetch"
project, filename, target = sys.argv[1:]
command = create_command("download")
options, _ = command.parse_args([])
with command.main_context():
    session = command.get_default_session(options)
    finder = command._build_package_finder(options=options, session=session)
    links = [c.link for c in finder.find_all_candidates(project) if c.link.filename == filename]
    if not links:
        sys.exit(f"pip finds no {filename}")
    if links[0].is_file:
        data = open(links[0].file_path, "rb").read()
    else:
        reply = session.get(links[0].url_without_fragment, headers={"Accept-Encoding": "identity"})
        reply.raise_for_status()
        data = reply.content
with open(target, "wb") as file:
    file.write(data)
"""


def last_line(text: str) -> str:
    """The last line of ``text`` that is not empty; tracebacks keep their message there."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")


def working_version() -> tuple[str | None, str]:
    """Return the version of the detectron2 that works here, or None, and what went wrong."""
    # away from the current folder: a checkout of detectron2 lying there is not an installation
    with tempfile.TemporaryDirectory() as elsewhere:
        probe = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, cwd=elsewhere
        )
    if probe.returncode == 0:
        return last_line(probe.stdout), ""
    return None, last_line(probe.stderr)


def download(target: Path, pauses: Sequence[float] = (5.0, 20.0)) -> None:
    """Download the source archive to ``target`` from where pip is set up to look.

    An index that is busy now may answer after one of the ``pauses`` (seconds). Raises
    :class:`UserError` with pip's reason when it never does.
    """
    command = [sys.executable, "-c", FETCH, "pb1-detectron2", SDIST, str(target)]
    for pause in (*pauses, None):
        log.info("downloading %s", SDIST)
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 0:
            return
        if pause is not None:
            time.sleep(pause)
    # pip passes over an index that fails, and says so only in its debug messages
    failures = [line for line in result.stderr.splitlines() if line.startswith("Could not fetch")]
    reason = failures[0].removesuffix(" - skipping") if failures else last_line(result.stderr)
    raise UserError(
        f"cannot download {SDIST}: {reason}; check the network and pip's index settings, or get "
        "the file elsewhere and give it with --sdist FILE"
    )


def install(sdist: Path | None, wheel_folder: Path | None = None) -> None:
    """Build the wheel from ``sdist`` (downloaded when None), and install it unless only kept."""
    with tempfile.TemporaryDirectory(prefix="detectron2-") as name:
        work = Path(name)
        archive = sdist or work / SDIST
        if sdist is None:
            download(archive)
        elif not sdist.is_file():
            raise UserError(f"--sdist {sdist}: no such file")
        check_hash(archive)
        (work / "source").mkdir()
        source = unpack(archive, work / "source")
        files = apply_edits(collect(source))
        licence = (source / "LICENSE").read_bytes()
        if wheel_folder is not None:
            wheel_folder.mkdir(parents=True, exist_ok=True)
            log.info("wrote %s", build_wheel(files, licence, wheel_folder))
            return
        wheel = build_wheel(files, licence, work)
        log.info("installing %s", wheel.name)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", str(wheel)]
        environment = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **os.environ}
        # The first call puts the wheel over whatever is there, the same version included; the
        # second adds what it requires and is missing, and leaves alone what is there.
        for command in ([*pip, "--force-reinstall", "--no-deps"], pip):
            if subprocess.run(command, env=environment).returncode != 0:
                raise UserError("pip could not install the wheel; its message is above")


def build_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--force", action="store_true", help="install over a detectron2 that works")
    add("--sdist", type=Path, metavar="FILE", help=f"use this copy of {SDIST}")
    add("--wheel-dir", type=Path, metavar="DIR", help="only write the wheel there")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with cli_errors():
        args = build_parser().parse_args(argv)
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        if args.wheel_dir is not None:
            install(args.sdist, args.wheel_dir)
            return
        version, problem = working_version()
        stale = version is not None and "+ovseg" in version and version != VERSION
        if version is not None and not stale and not args.force:
            log.info("detectron2 %s is there and works: nothing to do", version)
            return
        log.info("detectron2 %s", f"{version} is replaced" if version else f"missing: {problem}")
        install(args.sdist)
        version, problem = working_version()
        if version is None:
            raise UserError(f"detectron2 was installed but does not import: {problem}")
        log.info("detectron2 %s works", version)
