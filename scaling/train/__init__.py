"""Training: configuration in, measurements out. Only this folder imports jax, flax and optax."""
