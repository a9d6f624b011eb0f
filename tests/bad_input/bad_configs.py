"""Broken and hostile configs."""

from __future__ import annotations

from pathlib import Path

from bad_cases import (
    RAN,
    WEIGHTS,
    Command,
    aliases,
    case,
    deep,
    segment,
    written,
)


def _config(folder: Path, content: bytes | str) -> Command:
    return segment(folder, "--config-file", written(folder / "config.yaml", content))


@case
def config_missing(folder: Path) -> Command:
    return segment(folder, "--config-file", folder / "config.yaml")


@case
def config_broken_yaml(folder: Path) -> Command:
    return _config(folder, "MODEL: {WEIGHTS: [")


@case
def config_binary(folder: Path) -> Command:
    return _config(folder, WEIGHTS.read_bytes()[:4000])


@case
def config_python_tag(folder: Path) -> Command:
    return _config(folder, f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{folder / RAN}']\n")


@case
def config_evaluates(folder: Path) -> Command:
    text = f"""INPUT:\n  MIN_SIZE_TRAIN: !!python/object/apply:eval ["__import__('os').mkdir('{folder / RAN}')"]\n"""  # noqa: E501
    return _config(folder, text)


@case
def config_evaluates_a_huge_list(folder: Path) -> Command:
    text = """INPUT:\n  MIN_SIZE_TRAIN: !!python/object/apply:eval ["[int(x * 0.1 * 640) for x in range(5, 999999999)]"]\n"""  # noqa: E501
    return _config(folder, text)


@case
def config_alias_bomb(folder: Path) -> Command:
    return _config(folder, aliases())


@case
def config_deep(folder: Path) -> Command:
    return _config(folder, f"MODEL: {deep('[', ']', 1000)}\n")


@case
def config_list(folder: Path) -> Command:
    return _config(folder, "- MODEL\n")


@case
def config_unknown_key(folder: Path) -> Command:
    return _config(folder, "MODEL:\n  WEIHGTS: x.pth\n")


@case
def config_wrong_type(folder: Path) -> Command:
    return _config(folder, "INPUT:\n  MIN_SIZE_TEST: large\n")


@case
def config_base_missing(folder: Path) -> Command:
    return _config(folder, "_BASE_: none.yaml\n")


@case
def config_base_is_itself(folder: Path) -> Command:
    return _config(folder, "_BASE_: config.yaml\n")


@case
def config_override_without_value(folder: Path) -> Command:
    return segment(folder, "--opts", "MODEL.WEIGHTS")


@case
def config_override_of_code(folder: Path) -> Command:
    return segment(folder, "--opts", "INPUT.MIN_SIZE_TEST",
                   f"__import__('os').mkdir('{folder / RAN}')")  # fmt: skip


@case
def config_size_zero(folder: Path) -> Command:
    return segment(folder, "--opts", "INPUT.MIN_SIZE_TEST", "-5")
