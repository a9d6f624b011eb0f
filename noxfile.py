"""Releases of Python and of what OVSeg depends on; the lock files; a list of all parts.

    make matrix                            # all releases
    .venv/bin/nox --session newest-3.13    # one
    make lock                              # pin the newest releases in requirements/
    make sbom                              # what .venv holds, as CycloneDX

Each session of the matrix has an environment of its own in output/matrix: the built wheel with its
dependencies, detectron2, `pip check`; five lines of Python in an empty folder; the quick tests, the
wheel's and the notebook, or other tests that are named after `--`. A Python that is not on this
machine is named and left out.
"""

from __future__ import annotations

from pathlib import Path

import nox

from ovseg.cli.detectron2_wheel import REQUIRES

ROOT = Path(__file__).resolve().parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PINNED = ROOT / "requirements"
EXTRAS = ("--extra", "dev", "--extra", "docs", "--extra", "web-test")
FIVE_LINES = """
import sys
import ovseg
assert "site-packages" in ovseg.__file__, ovseg.__file__
predictor = ovseg.Predictor.from_pretrained("tiny", device="cpu")
prediction = predictor(sys.argv[1], ["soccer ball", "grass", "sky"])
prediction.overlay().save("overlay.png")
assert sum(prediction.areas()) > 0
"""

nox.options.default_venv_backend = "uv"
nox.options.envdir = "output/matrix"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["oldest", "newest", "pinned"]


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """The oldest Python, and the oldest release of all that pyproject.toml names."""
    session.install("-r", "pyproject.toml", "--extra", "dev", "--resolution", "lowest-direct")
    session.install("--no-deps", str(_wheel(session)))
    _try(session)


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The newest releases that the wheel allows."""
    session.install("--upgrade", f"ovseg[dev] @ {_wheel(session).as_uri()}")
    _try(session)


@nox.session(python=PYTHONS, venv_backend="venv")
def pinned(session: nox.Session) -> None:
    """What requirements/ pins, by pip, every file compared with its hash."""
    hashed = ("--quiet", "--require-hashes", "--no-build-isolation", "-r")
    session.install(*hashed, str(PINNED / "build.txt"))
    session.install(*hashed, str(PINNED / "dev.txt"))
    session.install("--quiet", "--no-deps", str(_wheel(session)))
    _try(session)


@nox.session(python=False)
def lock(session: nox.Session) -> None:
    """Pin the newest releases for all of PYTHONS and all systems, with the hashes of their files.

    Arguments after `--` go to uv, such as `--constraint FILE`.
    """
    # detectron2 is installed by a command of ours, what it needs from here
    wanted = {"build": ["pip", "setuptools"], "dev": list(REQUIRES)}
    for name, requirements in wanted.items():
        source = Path(session.create_tmp(), f"{name}.in")
        source.write_text("\n".join(requirements), encoding="utf-8")
        project = ("pyproject.toml", *EXTRAS) if name == "dev" else ()
        session.run(
            "uv", "pip", "compile", "--quiet", "--upgrade", "--universal", "--no-header",
            "--no-annotate", "--python-version", PYTHONS[0], "--generate-hashes",
            "--no-emit-index-url", "--output-file", str(PINNED / f"{name}.txt"),
            *session.posargs, str(source), *project, external=True,
        )  # fmt: skip


@nox.session
def sbom(session: nox.Session) -> None:
    """List all parts of .venv with versions and licences, as CycloneDX."""
    session.install("cyclonedx-bom>=7")
    output = ROOT / "output" / "sbom.cdx.json"
    session.run(
        "cyclonedx-py", "environment", str(ROOT / ".venv"), "--pyproject", "pyproject.toml",
        "--output-reproducible", "--output-file", str(output),
    )  # fmt: skip
    session.log(f"wrote {output}")


def _wheel(session: nox.Session) -> Path:
    """The wheel, built anew."""
    folder = Path(session.create_tmp()).resolve()
    command = ("uv", "build", "--quiet", "--wheel", "--out-dir", str(folder))
    session.run(*command, external=True)
    (wheel,) = folder.glob("ovseg-*.whl")
    return wheel


def _try(session: nox.Session) -> None:
    if session.venv_backend == "uv":
        session.install("--upgrade", "pip")  # which installs detectron2, and checks
    session.run("ovseg", "install-detectron2")
    session.run("python", "-m", "pip", "check")
    with session.chdir(session.create_tmp()):
        sample = ROOT / "resources" / "samples" / "ball.jpg"
        session.run("python", "-c", FIVE_LINES, str(sample), silent=True)
    # the tests, and the scripts that they start, are those of the repository
    session.install("--no-deps", "--editable", ".")
    environment = {"OMP_NUM_THREADS": "1"}
    if session.posargs:
        session.run("pytest", "--quiet", *session.posargs, env=environment)
        return
    session.run("pytest", "--quiet", "-m", "not slow and not browser", env=environment)
    files = ("tests/test_wheel.py", "tests/test_notebook.py")
    session.run("pytest", "--quiet", *files, env=environment)
