"""Small networks of demucs with random weights, and their files, for tests."""

import hashlib
import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

STEMS = ["drums", "bass", "other", "vocals"]


def tiny_htdemucs(seed: int = 0, **changes: Any) -> torch.nn.Module:
    """An HTDemucs of 8 channels, with blocks of 1 s at 44100 Hz."""
    from demucs.htdemucs import HTDemucs

    options = {
        "channels": 8,
        "dconv_mode": 3,
        "dconv_comp": 4,
        "bottom_channels": 32,
        "t_layers": 3,
        "t_heads": 4,
        "segment": Fraction(1),
    }
    return _seeded(HTDemucs, seed, {**options, **changes})


def tiny_hdemucs(seed: int = 0, **changes: Any) -> torch.nn.Module:
    """An HDemucs of 4 channels, with blocks of 1 s at 44100 Hz."""
    from demucs.hdemucs import HDemucs

    return _seeded(HDemucs, seed, {"channels": 4, "dconv_comp": 1, "segment": 1, **changes})


def tiny_demucs(seed: int = 0, **changes: Any) -> torch.nn.Module:
    """A Demucs of 4 channels, with blocks of 1 s at 44100 Hz, and 0.2 s around them."""
    from demucs.demucs import Demucs

    return _seeded(Demucs, seed, {"channels": 4, "dconv_comp": 1, "segment": 1, **changes})


def _seeded(network: Any, seed: int, options: dict[str, Any]) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module: torch.nn.Module = network(**{"sources": STEMS, **options}).eval()
    # At first residual branches hardly count: what a trained network has there would not show.
    for name, value in module.named_parameters():
        if name.endswith("scale"):
            value.data = 0.1 + 0.4 * torch.rand(value.shape, generator=generator)
    # Files hold halves.
    return module.half().float()


def write_th(module: Any, folder: Path, signature: str) -> Path:
    """The network as demucs publishes it: `SIGNATURE-DIGEST.th`."""
    args, kwargs = module._init_args_kwargs
    content = {
        "klass": type(module),
        "args": args,
        "kwargs": kwargs,
        "state": module.half().state_dict(),
        "training_args": {"dset": {"sources": STEMS}, "epochs": 360},
        "metrics": ({"loss": 0.1}, {"nsdr": np.float64(8.5)}),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    module.float()
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
    path = folder / f"{signature}-{digest}.th"
    path.write_bytes(buffer.getvalue())
    return path


def write_safetensors(module: Any, folder: Path, signature: str) -> Path:
    """The network as demucs has it on its hub: `SIGNATURE.safetensors`."""
    from safetensors.torch import save_file

    args, kwargs = module._init_args_kwargs
    metadata = {
        "klass": f"{type(module).__module__}.{type(module).__qualname__}",
        "args": json.dumps(args, default=_json_fraction),
        "kwargs": json.dumps(kwargs, default=_json_fraction),
    }
    path = folder / f"{signature}.safetensors"
    state = {key: value.contiguous() for key, value in module.half().state_dict().items()}
    save_file(state, path, metadata)
    module.float()
    return path


def _json_fraction(value: Fraction) -> dict[str, Any]:
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
