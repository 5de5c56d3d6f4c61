"""What a job on Dataflow costs, and how long it takes: a formula; nothing was run on Dataflow.

    python benchmarks/dataflow_cost.py                                    1 M songs of 4 minutes
    python benchmarks/dataflow_cost.py --songs 50000 --duration-s 180 --vcpus 200
    python benchmarks/dataflow_cost.py --gpus 50 --gpu-real-time-factor 100
    python benchmarks/dataflow_cost.py --measure                          this machine's `Measured`

What a song costs was measured with this project on a virtual machine with 2 cores (`Measured`).
Prices are public list prices in US dollars (`Prices`), which change: look them up, and change them
by `--price shuffle_gb=0.02`.
"""

import argparse
import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from measuring import AUDIO_DIR, beamsplitter, cost_of, long_signal, write_files

GB = 1e9
STEPS = {
    "decode": ("SkipFinished", "PlanParts", "LoadBinary", "LoadAudio"),
    "separate": (
        "GetSTFT",
        "GetMagnitude",
        "FilterNearestNeighbors",
        "GetSoftMask",
        "InverseSTFT",
    ),
    "encode": ("LoadStems", "EncodeStems", "PublishTrack"),
    "plot": ("GetSpec", "SpecToPlot"),
}


@dataclass(frozen=True)
class Measured:
    """Of a song of 4 minutes, stereo at 44.1 kHz, in one part: two stems as flac, three plots.

    `…_s` are seconds of one vCPU for each second of audio. Requests were counted at a server of
    Cloud Storage, and shuffled bytes by the coders, in a test.
    """

    decode_s: float = 0.0013
    separate_s: float = 0.0275
    encode_s: float = 0.0046
    plot_s: float = 0.0057
    output_bytes_per_audio_s: float = 159_000
    reads: int = 20
    writes: int = 9
    shuffled_bytes: int = 10_500


@dataclass(frozen=True)
class Prices:
    """US dollars in us-central1, as listed in 2025, without discounts.

    `gpu_hour` is that of an NVIDIA L4 on Dataflow.
    """

    vcpu_hour: float = 0.056
    memory_gb_hour: float = 0.003557
    disk_gb_hour: float = 0.000054
    gpu_hour: float = 0.672
    shuffle_gb: float = 0.011
    writes_per_1000: float = 0.005
    reads_per_1000: float = 0.0004
    stored_gb_month: float = 0.020
    other_region_gb: float = 0.02


@dataclass(frozen=True)
class Job:
    """What is to be done, and with what.

    `utilisation` is the share of the paid time in which workers work on songs, an assumption: the
    rest is the start of workers, waiting for storage, and the end of a job, when some have nothing
    left to do. With `gpus`, a GPU separates `gpu_real_time_factor` seconds of audio a second,
    an assumption too.
    """

    songs: int = 1_000_000
    duration_s: float = 240.0
    input_bytes_per_audio_s: float = 32_000.0
    vcpus: int = 1000
    memory_gb_per_vcpu: float = 4.0
    disk_gb_per_vcpu: float = 12.5
    utilisation: float = 0.85
    gpus: int = 0
    gpu_real_time_factor: float = 100.0
    from_other_region: bool = False


@dataclass(frozen=True)
class Estimate:
    """Hours, and US dollars by what they are paid for."""

    wall_hours: float
    vcpu_hours: float
    dollars: dict[str, float]


def estimate(job: Job, measured: Measured, prices: Prices) -> Estimate:
    """The formula.

    All workers are paid for until the last is done, so the wall time is that of what there is too
    little of: vCPUs, or GPUs.
    """
    audio_s = job.songs * job.duration_s
    cpu_s = measured.decode_s + measured.encode_s + measured.plot_s
    gpu_hours = 0.0
    if job.gpus:
        gpu_hours = audio_s / job.gpu_real_time_factor / 3600 / job.utilisation
    else:
        cpu_s += measured.separate_s
    vcpu_hours = audio_s * cpu_s / 3600 / job.utilisation
    wall_hours = max(vcpu_hours / job.vcpus, gpu_hours / job.gpus if job.gpus else 0)
    paid = wall_hours * job.vcpus
    read_gb = audio_s * job.input_bytes_per_audio_s / GB
    written_gb = audio_s * measured.output_bytes_per_audio_s / GB
    return Estimate(
        wall_hours,
        vcpu_hours,
        {
            "vCPUs": paid * prices.vcpu_hour,
            "memory": paid * job.memory_gb_per_vcpu * prices.memory_gb_hour,
            "disks": paid * job.disk_gb_per_vcpu * prices.disk_gb_hour,
            "GPUs": wall_hours * job.gpus * prices.gpu_hour,
            "shuffle": job.songs * measured.shuffled_bytes / GB * prices.shuffle_gb,
            "storage writes": job.songs * measured.writes / 1000 * prices.writes_per_1000,
            "storage reads": job.songs * measured.reads / 1000 * prices.reads_per_1000,
            "traffic between regions": read_gb * prices.other_region_gb * job.from_other_region,
            "keeping the results, a month": written_gb * prices.stored_gb_month,
        },
    )


def measure(songs: int) -> Measured:
    """Run the job on this machine, with one worker, and take the times of its steps."""
    with tempfile.TemporaryDirectory() as folder:
        signal = long_signal(AUDIO_DIR, 44100, 2)
        write_files(Path(folder, "in"), signal, 44100, [240.0] * songs)
        out = Path(folder, "out")
        cost_of(*beamsplitter("separate", Path(folder, "in"), "-o", out, "--workers", 1))
        steps = json.loads(Path(out, "run.json").read_text())["steps"]
    audio_s = songs * 240.0
    seconds = {
        f"{name}_s": sum(steps[step]["milliseconds"]["sum"] for step in group if step in steps)
        / 1000
        / audio_s
        for name, group in STEPS.items()
    }
    output_bytes = steps["PublishTrack"]["bytes"] / audio_s
    return Measured(**seconds, output_bytes_per_audio_s=output_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure on this machine")
    parser.add_argument("--price", action="append", default=[], metavar="NAME=DOLLARS")
    for field in dataclasses.fields(Job):
        name = f"--{field.name.replace('_', '-')}"
        if field.type is bool:
            parser.add_argument(name, action="store_true")
        else:
            parser.add_argument(name, type=field.type, default=field.default)
    given = vars(parser.parse_args())
    measured = measure(4) if given.pop("measure") else Measured()
    pairs = (pair.split("=", 1) for pair in given.pop("price"))
    prices = dataclasses.replace(Prices(), **{name: float(value) for name, value in pairs})
    job = Job(**given)
    print(measured)
    found = estimate(job, measured, prices)
    print(
        f"{job.songs:,} songs of {job.duration_s:g} s on {job.vcpus} vCPUs and {job.gpus} GPUs: "
        f"{found.wall_hours:.1f} h, {found.vcpu_hours:,.0f} vCPU hours of work"
    )
    for name, dollars in found.dollars.items():
        print(f"{dollars:12,.0f} $  {name}")
    total = sum(found.dollars.values())
    print(f"{total:12,.0f} $  in all; {1000 * total / job.songs:.2f} $ for 1000 songs")


if __name__ == "__main__":
    main()
