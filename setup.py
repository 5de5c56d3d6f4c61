"""The repository root is the package `beamsplitter`; everything else is in pyproject.toml."""

from setuptools import setup

setup(
    package_dir={"beamsplitter": "."},
    packages=[
        "beamsplitter",
        "beamsplitter.audio",
        "beamsplitter.models",
        "beamsplitter.models.separators",
        "beamsplitter.transforms",
        "beamsplitter.pipelines",
    ],
)
