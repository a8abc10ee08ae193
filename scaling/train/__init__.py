"""The half of the line that trains: configuration in, measurements out. The only folder that imports jax, flax and optax."""
