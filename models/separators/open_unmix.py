"""Open-Unmix: a BLSTM for each target estimates magnitudes, a Wiener filter makes stems of them.

Stöter, Uhlich, Liutkus and Mitsufuji, "Open-Unmix – a reference implementation for music source
separation", JOSS 2019. Equals `openunmix.model.Separator`, and needs neither it nor torchaudio.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from .base import Description, Member, ModelError, TorchSeparator, alone
from .blocks import BlockLengths
from .options import parse_options

if TYPE_CHECKING:
    import torch

    from ..networks.open_unmix import OpenUnmix, Targets

# The whole recording would be the best context, but its length has no bound. Training knows
# excerpts of 6 s: what the weights make of more than 3 s on either side is by chance. The block is
# three windows of the Wiener filter. In whole hops, so that frames lie where they do in the whole;
# at its ends blocks are cut, so that a recording that fits into one is separated as a whole.
KEPT_HOPS = 720
CONTEXT_HOPS = 88
OVERLAP = 1 / 8


class OpenUnmixOptions(BaseModel):
    """What a job may change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wiener_iterations: int = Field(
        1,
        ge=0,
        le=100,
        description="of the Wiener filter: more take more of the other stems out, and leave more "
        "artefacts; 0: each stem by its own network, with the phase of the mixture",
    )


@dataclass(frozen=True)
class Layout:
    """What weights are made for: targets, Hz, channels, and samples of the STFT."""

    stems: tuple[str, ...]
    sample_rate: int
    channels: int
    n_fft: int
    hop_length: int

    @property
    def block_samples(self) -> int:
        """Length of a block."""
        return (KEPT_HOPS + 2 * CONTEXT_HOPS) * self.hop_length


MUSIC = Layout(("vocals", "drums", "bass", "other"), 44100, 2, 4096, 1024)
SPEECH = Layout(("speech", "noise"), 16000, 1, 1024, 512)
LAYOUTS = {"umx": MUSIC, "umxhq": MUSIC, "umxl": MUSIC, "umxse": SPEECH}


def describe(name: str, options: Mapping[str, object]) -> Description:
    """What is known of the separator.

    Raises
    ------
    ModelError
        there is none of this name
    ValueError
        an option is unknown or out of range
    """
    from ..model_registry import find_entry

    layout = _layout(name)
    parsed = parse_options(OpenUnmixOptions, options)
    files = find_entry(f"umx:{name}").files
    return Description(
        layout.stems,
        sample_rates=(layout.sample_rate,),
        context_s=layout.block_samples / layout.sample_rate,
        uses_device=True,
        sha256="+".join(file.sha256 for file in files),
        resolved_options=parsed.model_dump_json(),
    )


def load(name: str, options: Mapping[str, object]) -> tuple[Member, ...]:
    """The separator; without a Wiener filter one for each stem, of which only the wanted ones run.

    Raises
    ------
    ModelError
        its weights can't be had, or are others
    """
    from ..model_cache import ModelCache
    from ..model_registry import find_entry

    parsed = parse_options(OpenUnmixOptions, options)
    layout = _layout(name)
    return load_folder(name, layout, ModelCache().fetch(find_entry(f"umx:{name}")), parsed)


def load_folder(
    name: str, layout: Layout, folder: Path, options: OpenUnmixOptions
) -> tuple[Member, ...]:
    """The separator whose weights lie in a folder, as `vocals….pth` and so on.

    Raises
    ------
    ModelError
        a file is missing, or has other weights
    """
    from ..networks.open_unmix import Targets

    networks = {stem: _load_network(_file_of(stem, folder), layout) for stem in layout.stems}
    if options.wiener_iterations:
        return alone(OpenUnmixSeparator(name, layout, Targets(networks), options.wiener_iterations))
    return tuple(
        member
        for stem, network in networks.items()
        for member in alone(OpenUnmixSeparator(name, layout, Targets({stem: network}), 0))
    )


class OpenUnmixSeparator(TorchSeparator):
    """Separates blocks at the rate of its weights.

    Parameters
    ----------
    name
        of the weights
    targets
        their networks, all of the layout or some of them
    wiener_iterations
        with any, stems sum to the mixture if all targets are there; 0 for none
    """

    overlap = OVERLAP

    def __init__(
        self, name: str, layout: Layout, targets: "Targets", wiener_iterations: int
    ) -> None:
        super().__init__(targets)
        self.name = f"umx:{name}"
        self.stems = tuple(targets)
        self.sample_rate = layout.sample_rate
        self.channels = layout.channels
        self.block_samples = layout.block_samples
        # The STFT mirrors half a window at the ends.
        self.block_lengths = BlockLengths(layout.n_fft // 2 + 1)
        self.context_samples = CONTEXT_HOPS * layout.hop_length
        self.wiener_iterations = wiener_iterations
        self._n_fft, self._hop_length = layout.n_fft, layout.hop_length

    def forward(self, blocks: "torch.Tensor") -> "torch.Tensor":
        """Separate a batch.

        Parameters
        ----------
        blocks
            float32 `(batch, channels, samples)`, more than `n_fft / 2` samples

        Returns
        -------
        float32 `(batch, stems, channels, samples)`
        """
        import torch

        from .wiener import wiener

        window = torch.hann_window(self._n_fft, device=blocks.device)
        spectrum = torch.stft(
            blocks.flatten(0, 1), self._n_fft, self._hop_length, window=window, return_complex=True
        )
        mixture = spectrum.unflatten(0, blocks.shape[:2])
        stems = wiener(self.module(mixture.abs()), mixture, iterations=self.wiener_iterations)
        samples = torch.istft(
            stems.flatten(0, 2),
            self._n_fft,
            self._hop_length,
            window=window,
            length=blocks.shape[-1],
        )
        return samples.unflatten(0, stems.shape[:3])


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise ModelError(f"umx:{name}: Open-Unmix has {', '.join(LAYOUTS)}: name one of these")
    return LAYOUTS[name]


def _file_of(stem: str, folder: Path) -> Path:
    found = sorted(folder.glob(f"{stem}*.pth"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ModelError(f"{folder}: needs one file {stem}….pth of weights, but has {names}")
    return found[0]


def _load_network(path: Path, layout: Layout) -> "OpenUnmix":
    import torch

    from ..networks.open_unmix import OpenUnmix

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network = OpenUnmix.from_state(state)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # A broken file can end in almost any error of the unpickler.
        raise ModelError(
            f"{path}: holds no weights of Open-Unmix: replace it, or remove it to have it fetched "
            f"again ({type(error).__name__}: {' '.join(str(error).split())[:500]})"
        ) from error
    bins = layout.n_fft // 2 + 1
    if (network.channels, network.bins) != (layout.channels, bins):
        raise ModelError(
            f"{path}: holds weights of another model, for {network.channels} channels and "
            f"{network.bins} bins: it takes {layout.channels} and {bins}"
        )
    return network
