"""Models for tests, which say only in what they differ from each other."""

from scaling.config import ModelConfig


def small_model(d_model=32, n_heads=1, **changes):
    """Two layers with as many heads of keys as of queries, a feed-forward of four widths, and 256
    symbols.
    """
    shape = {"n_layers": 2, "n_kv_heads": n_heads, "d_head": d_model // n_heads, "vocab_size": 256}
    shape |= {"d_model": d_model, "n_heads": n_heads, "d_ff": 4 * d_model}
    return ModelConfig(**shape | changes)
