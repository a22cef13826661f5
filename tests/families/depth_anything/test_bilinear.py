"""The enlargement whose gradient is two matrix products: the same values and gradients as torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dav2.families.depth_anything.bilinear import bilinear, bilinear_gradient, hat_functions
from dav2.families.depth_anything.dpt import enlarge

SHAPES = [((2, 3, 5, 7), (10, 14)), ((1, 2, 12, 9), (21, 16)), ((1, 1, 4, 4), (4, 4)), ((2, 2, 1, 6), (3, 11)),
          ((1, 3, 8, 6), (5, 3)), ((1, 2, 3, 3), (1, 1))]  # fmt: skip
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def reference(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def ordered(tensor: Tensor, channels_last: bool) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize(("shape", "size"), SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_values_and_gradients_are_those_of_interpolate(shape: tuple, size: tuple, channels_last: bool) -> None:
    torch.manual_seed(0)
    x = ordered(torch.randn(shape, dtype=torch.float64), channels_last).requires_grad_()
    y = bilinear(x, size)
    assert torch.equal(y, reference(x, size)) and y.stride() == reference(x, size).stride()
    weight = ordered(torch.randn_like(y), channels_last)
    (ours,) = torch.autograd.grad(y, x, weight)
    (theirs,) = torch.autograd.grad(reference(x, size), x, weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(lambda t: bilinear(t, size), x)


def test_a_large_map_in_float32_is_nearer_to_the_exact_gradient_than_torchs_own() -> None:
    torch.manual_seed(0)
    x = torch.zeros(1, 4, 74, 74, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 4, 148, 148)
    (exact,) = torch.autograd.grad(reference(x, (148, 148)), x, weight.double())
    (theirs,) = torch.autograd.grad(reference(y := x.detach().float().requires_grad_(), (148, 148)), y, weight)
    ours = bilinear_gradient(weight, 74, 74)
    assert (ours - exact).abs().max() <= (theirs - exact).abs().max()


def test_hat_functions_are_interpolate_along_one_axis() -> None:
    for count, size in ((24, 48), (37, 74), (1, 5), (9, 4)):
        found = hat_functions(count, size, torch.device("cpu"), torch.float64)
        expected = reference(torch.eye(count, dtype=torch.float64)[None, None], (size, count))[0, 0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.sum(dim=1), torch.ones(size, dtype=torch.float64))


def test_bfloat16_sums_in_float32() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 9, 9, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = bilinear(x, (18, 18))
    weight = torch.randn(y.shape).to(y.dtype)
    (ours,) = torch.autograd.grad(y, x, weight)
    exact = bilinear_gradient(weight.double(), 9, 9)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), exact, rtol=2**-8, atol=1e-6)


def test_it_is_traced_whole_and_exported() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 7, requires_grad=True)
    traced = torch.compile(lambda t: bilinear(t * 2, (10, 14)), fullgraph=True, backend="aot_eager")
    (ours,) = torch.autograd.grad(traced(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(reference(x * 2, (10, 14)).square().sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

    class Enlarged(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return enlarge(image, (10, 14))

    exported = torch.export.export(Enlarged(), (x.detach(),))
    assert torch.equal(exported.module()(x.detach()), reference(x, (10, 14)))


def test_autocast_survives_it_when_compiled() -> None:
    torch.manual_seed(0)
    x, kernel = torch.randn(1, 2, 5, 7, requires_grad=True), torch.randn(2, 2, 1, 1)

    def network(resize, t: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return F.conv2d(F.relu(resize(F.conv2d(t, kernel), (10, 14))), kernel)

    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = compiled(bilinear, x), network(reference, x)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    gradients = [torch.autograd.grad(y.float().square().sum(), x)[0] for y in (ours, theirs)]
    assert (gradients[0] - gradients[1]).norm() < 0.01 * gradients[1].norm()


def test_processors_keep_torchs_own_gradient() -> None:
    y = enlarge(torch.randn(1, 2, 4, 4, requires_grad=True), (8, 8))
    assert type(y.grad_fn).__name__ == "UpsampleBilinear2DBackward0"


@needs_cuda
def test_on_a_gpu_the_gradient_repeats_and_is_interpolates() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 32, 74, 74, device="cuda").to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(4, 32, 148, 148, device="cuda").to(memory_format=torch.channels_last)
    found = [torch.autograd.grad(enlarge(x, (148, 148)), x, weight)[0] for _ in range(5)]
    assert all(torch.equal(one, found[0]) for one in found)
    (theirs,) = torch.autograd.grad(reference(x, (148, 148)), x, weight)
    torch.testing.assert_close(found[0], theirs, rtol=1e-4, atol=1e-4)
