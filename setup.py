"""The repository root is the package `beamsplitter`; everything else is in pyproject.toml."""

from setuptools import setup

setup(
    package_dir={"beamsplitter": "."},
    packages=[
        "beamsplitter",
        "beamsplitter.audio",
        "beamsplitter.models",
        "beamsplitter.models.networks",
        "beamsplitter.models.packages",
        "beamsplitter.models.separators",
        "beamsplitter.transforms",
        "beamsplitter.pipelines",
    ],
    package_data={"beamsplitter.models": ["registry.yaml"]},
)
