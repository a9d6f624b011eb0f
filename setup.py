"""Which packages an installation has; everything else about the project is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["ovseg*", "open_clip_training*"]),
        "ovseg.configs",
        "ovseg.resources",
    ],
    # in the repository these two lie at the top, where users look for them
    package_dir={"ovseg.configs": "configs", "ovseg.resources": "resources"},
    package_data={
        "ovseg": ["py.typed", "**/*.json", "**/*.css", "**/*.html"],
        "ovseg.configs": ["*.yaml", "methods/*.yaml"],
        "ovseg.resources": ["ovseg_tiny.pth", "NOTICE"],
    },
)
