"""Networks that are made faster give what they gave, whatever their settings."""

import copy
import itertools
import logging

import pytest
import torch
from demucs_models import tiny_demucs, tiny_hdemucs, tiny_htdemucs

from beamsplitter.models.separators import demucs_speed
from beamsplitter.models.separators.demucs import DemucsSeparator
from beamsplitter.models.separators.demucs_speed import checked_speed_up, speed_up

# Enough for frames that are further apart than the widest taps of a branch reach.
SAMPLES = 4097
# Less than the frames of the first layers.
FRAMES_AT_ONCE = 500
MAKERS = {"htdemucs": tiny_htdemucs, "hdemucs": tiny_hdemucs, "demucs": tiny_demucs}


def half_of_product(**choices):
    """Every other one of a product of pairs: all settings but one meet in all ways."""
    pairs = [[*enumerate(each)] for each in choices.values()]
    halves = [each for each in itertools.product(*pairs) if sum(i for i, _ in each) % 2 == 0]
    return [dict(zip(choices, (value for _, value in each), strict=True)) for each in halves]


def one_at_a_time(**choices):
    return [{name: value} for name, values in choices.items() for value in values]


LAYERS = one_at_a_time(
    dconv_mode=[1, 2],
    rewrite=[False],
    context=[0, 2],
    dconv_depth=[1, 3],
    dconv_comp=[2],
)
SETTINGS = {
    "htdemucs": [
        *half_of_product(
            cac=[True, False],
            dconv_mode=[0, 3],
            norm_starts=[1, 4],
            t_layer_scale=[True, False],
        ),
        *half_of_product(
            t_norm_first=[True, False],
            t_norm_out=[True, False],
            t_group_norm=[True, False],
            t_norm_in_group=[True, False],
        ),
        *one_at_a_time(
            bottom_channels=[0],
            t_gelu=[False],
            t_norm_in=[False],
            t_cross_first=[True],
            t_emb=["scaled"],
            freq_emb=[0],
            multi_freqs=[[0.5]],
            context_enc=[1],
            time_stride=[4],
            growth=[3],
        ),
        *LAYERS,
    ],
    "hdemucs": [
        *half_of_product(
            hybrid_old=[True, False], cac=[True, False], dconv_mode=[0, 3], norm_starts=[1, 4]
        ),
        *(
            {"hybrid": False, **each}
            for each in half_of_product(cac=[True, False], dconv_mode=[0, 3], norm_starts=[1, 4])
        ),
        *one_at_a_time(
            dconv_lstm=[0],
            dconv_attn=[0],
            freq_emb=[0],
            multi_freqs=[[0.5]],
            context_enc=[1],
            time_stride=[4],
            # Of six layers: three times as wide each would be 120 million weights.
            growth=[1],
        ),
        *LAYERS,
    ],
    "demucs": [
        *half_of_product(
            dconv_mode=[0, 3], gelu=[True, False], norm_starts=[0, 4], rewrite=[True, False]
        ),
        *one_at_a_time(
            lstm_layers=[2], dconv_lstm=[0], dconv_attn=[1], resample=[False], context=[0]
        ),
    ],
}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [(kind, changes) for kind, each in SETTINGS.items() for changes in each],
    ids=lambda value: (
        value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items())
    ),
)
def test_it_gives_what_it_gave(kind, changes, monkeypatch):
    monkeypatch.setattr(demucs_speed, "FRAMES_AT_ONCE", FRAMES_AT_ONCE)
    depth = {} if kind == "hdemucs" else {"depth": 3}
    network = MAKERS[kind](seed=1, **depth, **changes)
    samples = network.valid_length(SAMPLES) if kind == "demucs" else SAMPLES
    if kind == "htdemucs":
        network.use_train_segment = False
    noise = torch.randn(1, 2, samples, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(noise)
        given = speed_up(copy.deepcopy(network))(noise)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(given, expected, atol=2e-6 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_network_that_would_change_is_left_as_it_is(kind, monkeypatch, caplog):
    network = MAKERS[kind](segment=2)

    def spoilt(module):
        for value in module.parameters():
            value.data *= 1.1
        return module

    state = {name: value.clone() for name, value in network.state_dict().items()}
    with caplog.at_level(logging.WARNING, logger="beamsplitter"):
        assert checked_speed_up(network, "demucs:x") is not network
    assert not caplog.records
    monkeypatch.setattr(demucs_speed, "speed_up", spoilt)
    with caplog.at_level(logging.WARNING, logger="beamsplitter"):
        separator = DemucsSeparator("x", network)
    assert separator.module is network
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    (record,) = caplog.records
    assert "demucs:x: the faster" in record.message
    assert type(network).__name__ in record.message


def test_the_check_ends_with_the_length_that_a_network_was_trained_on():
    network = tiny_htdemucs(segment=2)
    assert checked_speed_up(network, "demucs:x").use_train_segment
    assert network.use_train_segment


def test_numbers_that_are_none_are_no_agreement(monkeypatch):
    network = tiny_hdemucs()

    def without_sense(module):
        next(module.parameters()).data.fill_(float("nan"))
        return module

    monkeypatch.setattr(demucs_speed, "speed_up", without_sense)
    assert checked_speed_up(network, "demucs:x") is network
