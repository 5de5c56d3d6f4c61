"""The repository root is the package `beamsplitter`; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

FLOORS = ["audio", "storage", "models", "transforms", "pipelines"]
PACKAGES = find_packages(include=[*FLOORS, *(f"{floor}.*" for floor in FLOORS)])

setup(
    package_dir={"beamsplitter": "."},
    packages=["beamsplitter", *(f"beamsplitter.{package}" for package in PACKAGES)],
    package_data={
        "beamsplitter": ["py.typed", "CHANGELOG.md", "job-configs/*.yaml"],
        "beamsplitter.pipelines.report": ["page/*"],
        "beamsplitter.models": ["registry.yaml"],
        "beamsplitter.models.export": ["metadata-schema.json", "torch-1.9-operators.txt"],
    },
)
