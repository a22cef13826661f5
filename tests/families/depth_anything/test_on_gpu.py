"""What a GPU does instead of the host: resizing, normalising, replaying recorded networks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dav2.families.depth_anything import on_gpu
from dav2.families.depth_anything.encoder import SelfAttention
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.on_gpu import SEEN, SHAPES, SMALL_BATCH, Replayed, _Graph, preprocess_there
from dav2.families.depth_anything.preprocess import preprocess
from tests.data.builders import photograph

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("size", [(216, 288), (90, 131), (84, 84), (140, 80), (33, 50)])
def test_an_image_is_prepared_as_on_the_host(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for rgb in (photograph(1, *size), noise, noise[:, ::-1]):
        expected, found = preprocess(rgb, 84), preprocess_there(rgb, 84, 14, CPU)
        assert found.dtype == torch.float32 and tuple(found.shape) == expected.shape
        assert np.abs(found.numpy() - expected).max() < 1e-3


def test_what_is_no_image_is_refused_there_too() -> None:
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="an image must"):
            preprocess_there(wrong, 84, 14, CPU)


class Recorder:
    """Records as CUDA does, on a processor: fixed memory for what goes in and comes out."""

    def __init__(self) -> None:
        self.recorded: list[tuple[int, ...]] = []

    def __call__(self, network: Callable[[Tensor], Tensor], example: Tensor) -> _Graph:
        self.recorded.append(tuple(example.shape))
        given, again = example.clone(), weakref.ref(network)  # type: ignore[type-var]
        answer = network(given)

        def replay() -> None:
            found = again()
            assert found is not None
            answer.copy_(found(given))

        return _Graph(given, answer, replay)


@torch.no_grad()
def test_a_small_batch_whose_shape_comes_again_is_recorded_once_and_stays_right() -> None:
    recorder, network = Recorder(), nn.Conv2d(3, 1, 3)
    replayed = Replayed(recorder)
    batches = [torch.randn(1, 3, 8, 8) for _ in range(6)]
    answers = [replayed(network, batch) for batch in batches]
    assert recorder.recorded == [(1, 3, 8, 8)]
    assert all(torch.equal(answer, network(batch)) for answer, batch in zip(answers, batches, strict=True))
    network.weight.mul_(2)  # in place, as an optimiser writes: the graph reads the new values
    assert torch.equal(replayed(network, batches[0]), network(batches[0])) and len(recorder.recorded) == 1
    network.weight = nn.Parameter(torch.randn_like(network.weight))
    for _ in range(SEEN + 1):
        assert torch.equal(replayed(network, batches[0]), network(batches[0]))
    assert len(recorder.recorded) == 2 and len(replayed._graphs) == 1


@torch.no_grad()
def test_large_batches_are_not_recorded_and_few_shapes_are_kept() -> None:
    recorder, network = Recorder(), nn.Conv2d(3, 1, 3)
    replayed = Replayed(recorder)
    for _ in range(SEEN + 2):
        replayed(network, torch.randn(SMALL_BATCH + 1, 3, 8, 8))
    assert not recorder.recorded
    for side in range(8, 8 + SHAPES + 2):
        for _ in range(SEEN + 1):
            batch = torch.randn(1, 3, side, side)
            assert torch.equal(replayed(network, batch), network(batch))
    assert len(recorder.recorded) == SHAPES + 2 and len(replayed._graphs) == SHAPES


@torch.no_grad()
def test_a_network_that_cannot_be_recorded_goes_on_without() -> None:
    def refuse(network: Callable[[Tensor], Tensor], example: Tensor) -> _Graph:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    network, batch = nn.Conv2d(3, 1, 3), torch.randn(1, 3, 8, 8)
    replayed = Replayed(refuse)
    for _ in range(SEEN + 3):
        assert torch.equal(replayed(network, batch), network(batch))
    assert replayed.refused == "operation not permitted when stream is capturing"


def test_a_model_is_not_kept_alive_by_its_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replayed.__init__, "__defaults__", (Recorder(),))
    model = build("vitn").eval()
    with torch.inference_mode():
        for _ in range(SEEN + 2):
            on_gpu.predict_there(model, torch.randn(1, 3, 56, 56))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_attention_is_the_same_without_its_copy() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(24, 2, qkv_bias=True).eval()
    x = torch.randn(2, 11, 24)
    q, k, v = attention.by_head(attention.qkv(x)).unbind(0)
    assert not q.is_contiguous()
    plain = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 11, 24)
    with torch.no_grad():
        torch.testing.assert_close(attention(x), attention.proj(plain), rtol=1e-5, atol=1e-6)


@needs_cuda
def test_a_gpu_predicts_what_a_processor_does_by_graph_and_without() -> None:
    torch.manual_seed(0)
    model = build("vitn").eval()
    rgb = photograph(2, 120, 160)
    expected = model.infer_image(rgb)
    model.cuda()
    torch.backends.cudnn.allow_tf32 = False
    for _ in range(SEEN + 2):
        found = model.infer_image(rgb)
        assert np.abs(found - expected).max() < 2e-3 * expected.max()
    assert not on_gpu._REPLAYED[model].refused and on_gpu._REPLAYED[model]._graphs
