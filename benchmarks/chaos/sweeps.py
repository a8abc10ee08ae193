"""The sweeps that are killed: small, with trunks and branches, several sizes and a learning-rate
axis.
"""

SHARED = """
name = "chaos"

[recipe]
n_layers = 1
size_tolerance = 1.0

[base]
batch_size = 8

[base.task]
kind = "synthetic"
n_facts = 64
n_symbols = 16
seq_len = 30

[evals]
points = 3
tokens = 3000
"""
POINTS_SWEEP = f"""{SHARED}
[design]
kind = "grid"
sizes = ["2k", "6k"]
tokens = ["20k", "40k"]
"""
TRAINED_SWEEP = f"""{SHARED}
[design]
kind = "grid"
sizes = ["3k", "6k"]
tokens = ["1M", "3M"]
"""
SHORT_SWEEP = f"""{SHARED}
[design]
kind = "grid"
sizes = ["6k"]
tokens = ["600k", "2M"]
"""
FILES_SWEEP = f"""{SHARED}
[design]
kind = "grid"
sizes = ["2k", "6k", "20k"]
tokens = ["20k", "40k", "80k"]
"""
