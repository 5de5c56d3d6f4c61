"""How much faster do we run demucs' network on a CPU than demucs itself? Same random weights.

    python benchmarks/demucs_speed.py [--rounds 3] [--threads 2] [--batches 1 2 4]

One block of 7.8 s through an HTDemucs of the released size (42 million parameters), variants in
turns in this process, best of all rounds. The difference from demucs' own output is printed beside:
the largest, and in dB below the output. Trust the ratios, not the seconds.
"""

import argparse
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from demucs.htdemucs import HTDemucs

from beamsplitter.models.separators.demucs_speed import CHANGES, speed_up

BLOCK_SAMPLES = 343980


def released_size(**changes: Any) -> HTDemucs:
    """An HTDemucs as released as `htdemucs`, with random weights of trained size."""
    torch.manual_seed(0)
    released = {
        "channels": 48,
        "depth": 4,
        "dconv_mode": 3,
        "dconv_depth": 2,
        "dconv_comp": 8,
        "bottom_channels": 512,
        "t_layers": 5,
        "t_heads": 8,
        "segment": Fraction(39, 5),
    }
    module = HTDemucs(["drums", "bass", "other", "vocals"], **{**released, **changes})
    # At first the residual branches hardly count: differences in them would not show.
    for name, value in module.named_parameters():
        if name.endswith("scale"):
            value.data = 0.1 + 0.4 * torch.rand(value.shape)
    return module.eval().requires_grad_(False)


def changed(change: Callable[[HTDemucs], object]) -> HTDemucs:
    module = released_size()
    change(module)
    return module


def all_but(left_out: Callable[[HTDemucs], None]) -> Callable[[HTDemucs], None]:
    """What a change is worth shows where it is missing: some make way for others."""

    def change(module: HTDemucs) -> None:
        for each in CHANGES:
            if each is not left_out:
                each(module)

    return change


def in_bfloat16(module: HTDemucs) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(blocks: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return module(blocks)

    return run


def seconds(run: Callable[[], torch.Tensor]) -> tuple[float, float, torch.Tensor]:
    """Wall and CPU seconds, and the output."""
    wall, cpu = time.perf_counter(), time.process_time()
    output = run()
    return time.perf_counter() - wall, time.process_time() - cpu, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    plain, fast = released_size(), changed(speed_up)
    variants: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "demucs": plain,
        "ours": fast,
        **{f"without {left_out.__name__}": changed(all_but(left_out)) for left_out in CHANGES},
        "demucs, bfloat16": in_bfloat16(plain),
        "ours, bfloat16": in_bfloat16(fast),
    }
    with torch.inference_mode():
        for batch in options.batches:
            print(f"{options.threads} threads, batch of {batch}")
            measure(variants, 0.3 * torch.randn(batch, 2, BLOCK_SAMPLES), options.rounds)


def measure(
    variants: dict[str, Callable[[torch.Tensor], torch.Tensor]], blocks: torch.Tensor, rounds: int
) -> None:
    walls: dict[str, list[float]] = {name: [] for name in variants}
    cpus: dict[str, list[float]] = {name: [] for name in variants}
    errors: dict[str, str] = {}
    for _ in range(rounds):
        expected = None
        for name, run in variants.items():
            wall, cpu, output = seconds(lambda run=run: run(blocks))  # type: ignore[misc]
            walls[name].append(wall / len(blocks))
            cpus[name].append(cpu / len(blocks))
            expected = output if expected is None else expected
            error = output.float() - expected
            below_db = 10 * torch.log10(expected.square().sum() / error.square().sum())
            errors[name] = f"{error.abs().max():.1e} {below_db:.1f} dB"
    print(f"{'variant':39} {'wall s/block':>12} {'ratio':>6} {'CPU s/block':>12} {'ratio':>6}")
    for name in variants:
        wall, cpu = min(walls[name]), min(cpus[name])
        print(
            f"{name:39} {wall:12.2f} {min(walls['demucs']) / wall:6.2f} "
            f"{cpu:12.2f} {min(cpus['demucs']) / cpu:6.2f}  {errors[name]}"
        )


if __name__ == "__main__":
    main()
