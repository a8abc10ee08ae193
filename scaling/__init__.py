"""`scaling`: train sweeps over model size and tokens, fit scaling laws, predict the compute-optimal model."""

__version__ = "0.1.0"
