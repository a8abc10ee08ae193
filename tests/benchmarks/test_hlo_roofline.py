"""The roofline of compiled programs, on a program small enough to count by hand."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import hlo, hlo_roofline
from scaling.accounting import DEVICES, Device

pytestmark = pytest.mark.slow

TEXT = """\
HloModule jit_run, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused_slice (p: f32[8,100], i: s32[]) -> f32[1,100] {
  %p = f32[8,100]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %part = f32[1,100]{1,0} dynamic-slice(%p, %i, %zero), dynamic_slice_sizes={1,100}
  ROOT %negated = f32[1,100]{1,0} negate(%part)
}

%body (state: (s32[], f32[8,100])) -> (s32[], f32[8,100]) {
  %state = (s32[], f32[8,100]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%state), index=0
  %x = f32[8,100]{1,0} get-tuple-element(%state), index=1
  %slice = f32[1,100]{1,0} fusion(%x, %n), kind=kLoop, calls=%fused_slice
  ROOT %next = (s32[], f32[8,100]{1,0}) tuple(%n, %x)
}

%condition (state: (s32[], f32[8,100])) -> pred[] {
  %state = (s32[], f32[8,100]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%state), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%n, %limit), direction=LT
}

ENTRY %main (a: bf16[16,32], b: bf16[32,64], s: (s32[], f32[8,100])) -> f32[16,64] {
  %a = bf16[16,32]{1,0} parameter(0)
  %b = bf16[32,64]{1,0} parameter(1)
  %s = (s32[], f32[8,100]{1,0}) parameter(2)
  %loop = (s32[], f32[8,100]{1,0}) while(%s), condition=%condition, body=%body
  %product = f32[16,64]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %all = f32[16,64]{1,0} all-reduce(%product), replica_groups={{0,1,2,3}}, to_apply=%add
}
"""


def operations():
    return {each.op: each for each in hlo_roofline.operations(hlo.Module(TEXT), 4)}


def test_a_product_reads_its_operands_and_writes_its_result():
    product = operations()["dot"]
    assert product.flops == 2 * 16 * 32 * 64
    assert product.traffic == 2 * (16 * 32 + 32 * 64) + 4 * 16 * 64
    assert product.products[0].dtypes == ("bf16", "bf16")


def test_a_fusion_reads_the_slice_alone_as_often_as_its_loop_turns():
    fusion = operations()["fusion"]
    assert fusion.times == 5
    assert fusion.traffic == 4 + 400 + 400  # the index, the slice, the result


def test_an_all_reduce_sends_its_array_twice_but_for_a_devices_share():
    assert operations()["all-reduce"].link_bytes == 2 * 3 / 4 * 4 * 16 * 64


def test_the_roofline_takes_the_slower_of_arithmetic_and_traffic():
    slow = Device(flops_per_second=65536.0, bytes_per_second=1e12, memory_bytes=1e9, kind="")
    assert hlo_roofline.roofline(TEXT, slow, 4).seconds == pytest.approx(1.0, rel=1e-6)
    narrow = Device(flops_per_second=1e15, bytes_per_second=9216.0, memory_bytes=1e9, kind="")
    traffic = hlo_roofline.roofline(TEXT, narrow, 4).traffic
    assert hlo_roofline.roofline(TEXT, narrow, 4).seconds == pytest.approx(traffic / 9216.0)


def test_the_products_of_a_real_program_are_counted():
    """Three layers in a scan: the loop's count is read from the compiled text."""
    w = jnp.ones((3, 64, 64))

    def run(x, w):
        return jax.lax.scan(lambda x, layer: (jnp.tanh(x @ layer), None), x, w)[0]

    text = jax.jit(run).lower(jnp.ones((32, 64)), w).compile().as_text()
    flops = hlo_roofline.roofline(text, DEVICES["h100"]).flops
    assert flops in (0.0, 3 * 2.0 * 32 * 64 * 64)  # 0: XLA calls a library for the product


OVERLAPPED = """\
HloModule jit_run, is_scheduled=true

%starts (part: bf16[4,8]) -> (bf16[4,8], bf16[16,8]) {
  %part = bf16[4,8]{1,0} parameter(0)
  %whole = bf16[16,8]{1,0} all-gather(%part), replica_groups=mesh['x'=4,'y'=2] {'x'}
  ROOT %c = (bf16[4,8], bf16[16,8]) custom-call(%whole), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion (part: bf16[4,8], a: f32[32,32]) -> (f32[32,32], bf16[4,8], bf16[16,8]) {
  %part = bf16[4,8]{1,0} parameter(0)
  %a = f32[32,32]{1,0} parameter(1)
  %negated = f32[32,32]{1,0} negate(%a)
  %whole = bf16[16,8]{1,0} all-gather(%part), replica_groups=mesh['x'=4,'y'=2] {'x'}
  ROOT %all = (f32[32,32], bf16[4,8], bf16[16,8]) tuple(%negated, %part, %whole)
}

ENTRY %main (part: bf16[4,8], a: f32[32,32]) -> (f32[32,32], bf16[4,8], bf16[16,8]) {
  %part = bf16[4,8]{1,0} parameter(0)
  %a = f32[32,32]{1,0} parameter(1)
  %start = (bf16[4,8], bf16[16,8]) fusion(%part), kind=kCustom, calls=%starts
  ROOT %step = (f32[32,32], bf16[4,8], bf16[16,8]) fusion(%part, %a), calls=%async_collective_fusion
}
"""


def test_a_collective_that_runs_along_with_products_counts_where_it_starts():
    start, step = hlo_roofline.operations(hlo.Module(OVERLAPPED), 8)
    assert (start.op, start.link_bytes) == ("all-gather", 3 * 64)  # to the other three of its group
    assert start.traffic == 64 + 256
    assert step.link_bytes == 0
    assert step.traffic == 64 + 2 * 4096  # what it passes on costs nothing
