"""Names of CLIPs. They are known without importing open_clip, which takes seconds."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from ovseg.errors import UserError

#: endings by which a name is known for a file
CLIP_FILES = frozenset({".pt", ".pth", ".bin", ".safetensors"})
#: endings of a name that tell the activation: whether it is QuickGELU
ACTIVATION_ENDINGS = {"-gelu": False, "-quickgelu": True}
#: folders of model configs in packages: the name of a file is that of a CLIP
_FOLDERS = (("open_clip", "model_configs"), ("ovseg", "modeling/clip/model_configs"))


def is_clip_file(name: str) -> bool:
    """Whether a CLIP's name means a file, which may be missing, and no architecture."""
    return Path(name).is_file() or Path(name).suffix in CLIP_FILES


def check_clip_name(option: str, name: str) -> None:
    """Find out whether there is a CLIP of that name.

    Args:
        option: that gives it, for the message.
        name: OpenAI's form ("ViT-B/16") or open_clip's ("ViT-B-16"); a file is passed over, as is a
            place of open_clip's own kind ("hf-hub:...").

    Raises:
        UserError: there is none; it says which are alike.
    """
    # where open_clip is imported already, a program may have added more
    if is_clip_file(name) or ":" in name or "open_clip" in sys.modules:
        return
    known = {path.stem for folder in _config_folders() for path in folder.glob("*.json")}
    plain = name.replace("/", "-")
    forms = {plain, *(plain.removesuffix(ending) for ending in ACTIVATION_ENDINGS)}
    if known and not forms & known:
        raise unknown_clip(option, name, known)


def unknown_clip(option: str, name: str, known: Iterable[str]) -> UserError:
    """What is said of a name that is none of the known ones."""
    alike = sorted(each for each in known if each.startswith(name[:5]))[:8]
    return UserError(
        f"{option} {name!r} is neither a file nor a model of open_clip; for example: "
        f"{', '.join(alike or ['ViT-B/16', 'ViT-L/14'])}"
    )


def _config_folders() -> list[Path]:
    """The folders of model configs; none where open_clip is missing or of another form."""
    folders = []
    for package, folder in _FOLDERS:
        found = importlib.util.find_spec(package)
        for place in (found and found.submodule_search_locations) or ():
            folders.append(Path(place, folder))
    return folders if all(folder.is_dir() for folder in folders) else []
