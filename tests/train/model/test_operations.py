"""Programs for accelerators compute what the CPU's do: here on a CPU, without device kernels."""

import jax
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from scaling.config import Execution, MuP, OptimConfig
from scaling.train import optim
from scaling.train.program import ProgramKey
from scaling.train.step import initial_state, make_grad_fn, train_program
from tests.models import small_model

pytestmark = pytest.mark.slow

SEQ_LEN, BATCH = 32, 4
CPU = Execution(layers="unrolled", attention="own", kind="cpu")
GPU = CPU.model_copy(update={"kind": "gpu"})
VARIANTS = {
    "plain": {},
    "llama": {"ffn": "swiglu", "n_kv_heads": 2, "tie_embeddings": True},
    "gpt": {"norm": "layernorm", "bias": True, "pos": "learned", "qk_norm": False},
    "alibi": {"pos": "alibi", "ffn": "relu2", "n_kv_heads": 1, "transfer": MuP(base_width=16)},
}


def key_of(execution, precision="float32", **model):
    cfg = small_model(32, 4, d_ff=64, vocab_size=64, **model)
    return ProgramKey(cfg, SEQ_LEN, execution, precision, "wsd")


def tokens_of(n_steps=1):
    rng = np.random.default_rng(0)
    return (rng.zipf(1.3, (n_steps, BATCH, SEQ_LEN + 1)) % 64).astype(np.int32)


def loss_and_gradient(key):
    params = initial_state(key, 0).params
    grads, loss = jax.jit(make_grad_fn(key))(params, tokens_of()[0], np.float32(1e-4))
    return float(loss), np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])


@pytest.mark.parametrize(
    ("variant", "how"),
    [
        *((variant, {}) for variant in VARIANTS),
        ("plain", {"remat": "block"}),
        ("plain", {"loss_chunk": 16}),
    ],
    ids=str,
)
def test_in_float32_a_gpu_program_has_the_loss_and_gradient_of_the_cpus(variant, how):
    loss, grad = loss_and_gradient(key_of(CPU, **VARIANTS[variant]))
    gpu = key_of(GPU.model_copy(update=how), **VARIANTS[variant])
    gpu_loss, gpu_grad = loss_and_gradient(gpu)
    assert gpu_loss == pytest.approx(loss, abs=1e-5)
    np.testing.assert_allclose(gpu_grad, grad, atol=2e-6 * np.abs(grad).max() * 10)


def test_bfloat16_between_products_costs_no_more_accuracy_than_in_products_alone():
    """The gradient's error against float32, relative to its norm: 0.3 % either way."""
    _, exact = loss_and_gradient(key_of(CPU))
    errors = {}
    for execution in (CPU, GPU):
        _, grad = loss_and_gradient(key_of(execution, "bfloat16"))
        errors[execution.kind] = np.linalg.norm(grad - exact) / np.linalg.norm(exact)
    assert errors["gpu"] < 0.02
    assert errors["gpu"] < 2.0 * errors["cpu"]


def test_training_in_bfloat16_follows_float32():
    """Held to the same batches for 60 steps, a GPU program's losses stay within 0.02 nats."""
    curves = {}
    for precision, execution in (("float32", CPU), ("bfloat16", GPU)):
        key = key_of(execution, precision)
        hyper = optim.hyper(OptimConfig(lr=1e-2, warmup_steps=5), 60)
        program = train_program(key)
        _, losses, _ = program(initial_state(key, 0), hyper, tokens_of(60), 60)
        curves[precision] = np.asarray(losses)
    assert curves["float32"][-10:].mean() < curves["float32"][0] - 0.5
    np.testing.assert_allclose(curves["bfloat16"], curves["float32"], atol=0.02)


def test_rematerialisation_keeps_the_result_of_fused_attention(monkeypatch):
    """With cuDNN's kernel its forward pass stands once in the program, not twice."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    execution = GPU.model_copy(update={"remat": "block", "attention": "fused"})
    key = key_of(execution, "bfloat16")
    params = jax.eval_shape(lambda: initial_state(key, 0)).params
    program = jax.make_jaxpr(make_grad_fn(key))(params, tokens_of()[0], np.float32(0.0))
    assert str(program).count("dot_product_attention_fwd") == key.model.n_layers
