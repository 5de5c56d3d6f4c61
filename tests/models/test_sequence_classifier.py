"""Networks of classifiers: what is padded, and what else is in a batch, makes no difference."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from beamsplitter.models.classifiers.sequence_classifier import SequenceClassifier
from beamsplitter.models.classifiers.settings import EncoderSettings, classifier_settings

BINS, LABELS = 5, 3
NETWORKS = [
    {"encoder": encoder, "pooling": pooling, **others}
    for encoder, others in [
        ("lstm", {}),
        ("lstm", {"bidirectional": True, "num_layers": 2, "initial_state": "learned"}),
        ("gru", {"bidirectional": True, "initial_state": "learned"}),
        ("cnn", {"num_layers": 3}),
        ("transformer", {"num_layers": 2}),
    ]
    for pooling in ("mean", "last", "attention")
]
every_network = pytest.mark.parametrize(
    "values", NETWORKS, ids=lambda values: "-".join(map(str, values.values()))
)


def network(values: dict[str, Any], seed: int = 0) -> SequenceClassifier:
    """Ready to use, with random weights, and states that are not zero where they are learned."""
    torch.manual_seed(seed)
    made = SequenceClassifier(
        EncoderSettings(hidden_size=8, **values),
        BINS,
        LABELS,
        torch.randn(BINS),
        torch.rand(BINS) + 0.5,
    )
    for name, parameter in made.named_parameters():
        if "initial" in name and parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    return made.eval()


def excerpt(frames: int, seed: int) -> Tensor:
    return 3 * torch.randn(frames, BINS, generator=torch.Generator().manual_seed(seed))


def logits(
    model: SequenceClassifier, excerpts: list[Tensor], padding: float = 0.0, more: int = 0
) -> Tensor:
    """Of a batch, filled up with a number."""
    longest = max(map(len, excerpts)) + more
    batch = torch.full((len(excerpts), longest, BINS), padding)
    for row, frames in zip(batch, excerpts, strict=True):
        row[: len(frames)] = frames
    with torch.inference_mode():
        return model(batch, torch.tensor([*map(len, excerpts)]))


@every_network
@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    more=st.integers(0, 9),
    padding=st.sampled_from([0.0, 1e4]),
    order=st.randoms(use_true_random=False),
)
def test_neither_padding_nor_others_make_a_difference(
    values: dict[str, Any], lengths: list[int], more: int, padding: float, order: Any
) -> None:
    model = network(values)
    excerpts = [excerpt(length, seed) for seed, length in enumerate(lengths)]
    alone = torch.cat([logits(model, [each]) for each in excerpts])
    torch.testing.assert_close(logits(model, excerpts, padding, more), alone, rtol=0, atol=2e-5)
    places = [*range(len(excerpts))]
    order.shuffle(places)
    shuffled = logits(model, [excerpts[place] for place in places], padding, more)
    torch.testing.assert_close(shuffled, alone[places], rtol=0, atol=2e-5)


@every_network
def test_frames_of_an_excerpt_do_make_one(values: dict[str, Any]) -> None:
    """What the test above would not see: a network that hears nothing."""
    model = network(values)
    first, second = excerpt(30, 0), excerpt(30, 1)
    # In the middle: convolutions may leave out what is last.
    changed = torch.cat([first[:10], second[10:20], first[20:]])
    assert (logits(model, [first]) - logits(model, [changed])).abs().max() > 1e-4


@every_network
def test_it_gives_the_same_each_time(values: dict[str, Any]) -> None:
    """The seed of this began with a random state, also in use."""
    model = network({"dropout": 0.5, **values})
    frames = [excerpt(20, 0)]
    assert torch.equal(logits(model, frames), logits(model, frames))


@every_network
def test_all_weights_learn(values: dict[str, Any]) -> None:
    model = network(values).train()
    excerpts = torch.stack([excerpt(30, 0), excerpt(30, 1)])
    model(excerpts, torch.tensor([30, 20])).square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_states_are_zero_unless_they_are_learned() -> None:
    for encoder, state in itertools.product(("lstm", "gru"), ("zero", "learned")):
        made = network({"encoder": encoder, "initial_state": state}).train()
        before = made.encoder.initial.detach().clone()
        step = torch.optim.SGD((p for p in made.parameters() if p.requires_grad), lr=1.0)
        made(excerpt(9, 0)[None], torch.tensor([9])).sum().backward()
        step.step()
        assert torch.equal(made.encoder.initial, before) == (state == "zero")
        assert bool(before.any()) == (state == "learned")


def test_frames_are_normalised() -> None:
    """By mean and deviation: a network of others, given frames that they are normal of."""
    made = network({"encoder": "gru"})
    same = network({"encoder": "gru"})
    same.mean, same.deviation = torch.zeros(BINS), torch.ones(BINS)
    frames = excerpt(12, 0)
    expected = logits(same, [(frames - made.mean) / made.deviation])
    torch.testing.assert_close(logits(made, [frames]), expected)


@pytest.mark.parametrize(
    ("values", "fact"),
    [
        ({"encoder": "cnn", "bidirectional": True}, "bidirectional: cnn"),
        ({"encoder": "transformer", "initial_state": "learned"}, "initial_state: transformer"),
        ({"encoder": "transformer", "hidden_size": 12}, "hidden_size: .* 8"),
        ({"validation_share": 0.5, "test_share": 0.5}, "nothing to train on"),
        ({"encoder": "rnn"}, "encoder: .*'lstm'"),
        ({"hiden_size": 1}, "hiden_size"),
    ],
)
def test_wrong_settings_are_told(values: dict[str, Any], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        classifier_settings(values)
