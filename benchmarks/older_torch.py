"""Packages in torch 1.9.0, which Audacity has: needs Python 3.9, and fetches 830 MB.

    python benchmarks/older_torch.py run PACKAGE…    # against the torch of this environment
    python benchmarks/older_torch.py operators       # for models/export/torch-1.9-operators.txt

The environment of torch 1.9.0 is made once, in FOLDER.
"""

import argparse
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = ("torch==1.9.0", "typing-extensions")
OPERATORS = r"""
import re, torch
left_out = r"backward|cudnn|miopen|mkldnn|sparse|_out$|\.out|cufft|_foreach"
schemas = torch._C._jit_get_all_schemas()
for each in sorted(schemas, key=lambda each: (each.name, each.overload_name)):
    name = each.name + ("." + each.overload_name if each.overload_name else "")
    if each.name.startswith("aten::") and not re.search(left_out, name):
        print(name[6:], len(each.arguments))
"""
RUN = r"""
import sys, torch
model = torch.jit.load(sys.argv[1])
for waveform, expected in torch.load(sys.argv[2]):
    with torch.no_grad():
        difference = (model(waveform) - expected).abs().max().item()
    print(f"{tuple(waveform.shape)}: {difference:.1e} apart")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "operators"))
    parser.add_argument("packages", nargs="*", type=Path)
    parser.add_argument("--python", default="python3.9")
    parser.add_argument("--folder", type=Path, default=Path("older-torch"))
    arguments = parser.parse_args()
    python = _environment(arguments.folder, arguments.python)
    if arguments.what == "operators":
        print(_told_by(python, OPERATORS), end="")
    for package in arguments.packages:
        examples = arguments.folder / "examples.pt"
        _write_examples(package, examples)
        print(package)
        print(_told_by(python, RUN, package / "model.pt", examples), end="")


def _environment(folder: Path, python: str) -> Path:
    inside = folder / "bin" / "python"
    if not inside.exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
        subprocess.run([inside, "-m", "pip", "install", "--no-deps", *REQUIREMENTS], check=True)
    return inside


def _write_examples(package: Path, path: Path) -> None:
    """What a package makes here of some waveforms."""
    import torch

    from beamsplitter.models.export.package_tools import get_example_inputs
    from beamsplitter.models.packages.metadata import FILE_NAME, read_metadata
    from beamsplitter.models.packages.torchscript import load_torchscript

    metadata = read_metadata(package / FILE_NAME, str(package))
    model = load_torchscript(package / "model.pt", str(package))
    with torch.no_grad():
        torch.save([(x, model(x)) for x in get_example_inputs(metadata.multichannel)], path)


def _told_by(python: Path, program: str, *arguments: Path) -> str:
    command = [python, "-W", "ignore", "-c", program, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


if __name__ == "__main__":
    main()
