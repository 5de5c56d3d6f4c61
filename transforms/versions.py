"""The versions of what makes results."""

import functools
import importlib.metadata
import platform

PACKAGES = ("apache-beam", "av", "librosa", "numba", "numpy", "scipy", "soundfile", "soxr")
PACKAGES_OF_MODELS = ("torch", "demucs")


@functools.cache
def versions(*, of_models: bool) -> dict[str, str]:
    """Versions by name: of Python, of this package, and of those that compute.

    Parameters
    ----------
    of_models
        those that run neural networks, too
    """
    found = {"beamsplitter": version_of("beamsplitter"), "python": platform.python_version()}
    for package in (*PACKAGES, *(PACKAGES_OF_MODELS if of_models else ())):
        if version := version_of(package):
            found[package] = version
    return found


def version_of(package: str) -> str:
    """The version of a package; empty if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
