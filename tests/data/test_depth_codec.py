"""Depth and disparity survive storage within the documented error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dav2.data.store.depth_codec import (
    CODEC_BITS,
    FARTHEST,
    NEAREST,
    decode_disparity,
    decode_disparity_codes,
    decode_metric,
    encode_codes,
    encode_disparity,
    encode_metric_codes,
    metric_codes,
    metric_table,
    outside_range,
)
from dav2.data.store.packing import CodecError

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=12)
DEPTHS = st.one_of(st.floats(np.float32(1e-3), np.float32(1e4), width=32), st.just(float("inf")), st.just(float("nan")))


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, SHAPES, elements=DEPTHS))
def test_metric_depth_comes_back_within_two_hundredths_of_a_percent(depth):
    back = decode_metric(encode_metric_codes(metric_codes(depth)))
    finite = np.isfinite(depth)
    assert (np.abs(back[finite] - depth[finite]) <= 2e-4 * depth[finite]).all()
    assert np.array_equal(np.isposinf(depth), np.isposinf(back))
    assert np.array_equal(np.isnan(depth), np.isnan(back))


def test_worst_rounding_over_the_whole_range_is_half_a_step():
    depth = np.exp(np.linspace(np.log(NEAREST), np.log(FARTHEST), 500_000)).astype(np.float32)[None]
    back = metric_table()[metric_codes(depth)]
    assert 1.2e-4 < np.max(np.abs(back / depth - 1)) < 1.25e-4


def test_codes_follow_the_documented_formula():
    table = metric_table()
    codes = np.arange(1, 65535)
    assert np.allclose(table[1:65535], 1e-3 * np.exp((codes - 1) * np.log(1e7) / 65533), rtol=1e-6)
    assert np.isnan(table[0]) and np.isposinf(table[65535])


def test_every_code_decodes_to_a_depth_that_encodes_to_the_same_code():
    codes = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(metric_codes(metric_table()[codes]), codes)


def test_finite_depth_outside_the_range_goes_to_its_ends_and_is_counted():
    depth = np.array([[1e-5, 1e6, 1.0, np.inf]], np.float32)
    back = decode_metric(encode_metric_codes(metric_codes(depth)))
    assert back[0, :3] == pytest.approx([1e-3, 1e4, 1.0], rel=2e-4)
    assert outside_range(depth) == pytest.approx(2 / 3)


@pytest.mark.parametrize("codec", CODEC_BITS)
@pytest.mark.parametrize("end", [0, 1])
def test_disparity_comes_back_within_half_a_step(codec, end):
    bits = CODEC_BITS[codec][end]
    disparity = np.random.default_rng(bits).normal(size=(37, 53)).astype(np.float32)
    data, meta = encode_disparity(disparity, bits, codec)
    span = disparity.max() - disparity.min()
    assert np.abs(decode_disparity(data, meta) - disparity).max() <= span * (0.5 / (2**bits - 1) + 1e-6)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, SHAPES, elements=st.floats(-1e6, 1e6, width=32)))
@example(np.array([[6.20236e-40, 0.0]], np.float32))
def test_sixteen_bit_disparity_of_any_range_comes_back(disparity):
    data, meta = encode_disparity(disparity)
    span = float(disparity.max()) - float(disparity.min())
    ulp = np.spacing(np.abs(disparity).max())
    assert np.abs(decode_disparity(data, meta) - disparity).max() <= span / 2**16 + 2 * ulp


def test_a_constant_map_comes_back_exactly():
    disparity = np.full((5, 7), 0.3, np.float32)
    assert np.array_equal(decode_disparity(*encode_disparity(disparity, 12, "jxl12")), disparity)


@pytest.mark.parametrize("codec", CODEC_BITS)
def test_cut_off_bytes_are_refused(codec):
    data, meta = encode_disparity(np.random.default_rng(0).random((64, 64)).astype(np.float32), 12, codec)
    with pytest.raises(CodecError):
        decode_disparity(data[: len(data) // 2], meta)


@pytest.mark.parametrize(
    ("bits", "codec", "words"),
    [(17, "png16", "8 to 16 bits"), (16, "jpegls12", "8 to 12 bits"), (12, "webp", "no label codec 'webp'")],
)
def test_codecs_and_depths_that_do_not_exist_are_named(bits, codec, words):
    with pytest.raises(CodecError, match=words):
        encode_disparity(np.ones((4, 4), np.float32), bits, codec)


def test_gaps_in_a_label_are_refused():
    with pytest.raises(CodecError, match="finite"):
        encode_disparity(np.array([[1.0, np.nan]], np.float32))


def test_a_header_that_claims_a_giant_picture_is_refused_before_decoding():
    data = bytearray(encode_codes(np.ones((4, 4), np.uint16)))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    with pytest.raises(CodecError, match="claims 100000 × 100000"):
        decode_disparity_codes(bytes(data), "png16", 16)
    stored = bytearray(encode_metric_codes(metric_codes(np.ones((4, 4), np.float32))))
    stored[8:16] = (100_000).to_bytes(4, "little") * 2
    with pytest.raises(CodecError, match="claims 100000 × 100000"):
        decode_metric(bytes(stored))


def test_an_eight_bit_picture_is_not_taken_for_a_label():
    with pytest.raises(CodecError, match="16-bit grey"):
        decode_disparity_codes(encode_codes(np.ones((4, 4), np.uint8)), "png16", 16)


@pytest.mark.parametrize("damage", ["cut", "longer", "flipped", "other size", "taller", "not depth", "empty"])
def test_damaged_depth_is_refused(damage):
    depth = np.random.default_rng(0).uniform(1, 9, (40, 60)).astype(np.float32)
    stored = encode_metric_codes(metric_codes(depth))
    data = bytearray(stored)
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage in ("other size", "taller"):
        data[8:12] = (39 if damage == "other size" else 41).to_bytes(4, "little")
    changed = {"cut": stored[:-5], "longer": stored + b"x", "not depth": encode_codes(np.ones((4, 4), np.uint16)),
               "empty": b""}.get(damage, bytes(data))  # fmt: skip
    with pytest.raises(CodecError, match=r"damaged|another format"):
        decode_metric(changed)
