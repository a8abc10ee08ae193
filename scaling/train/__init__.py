"""Training: configuration in, measurements out. Only this folder imports jax, flax and optax.

jax reads its settings from the environment when it is imported. Those that say where and how a
process runs stay; any other JAX_* variable could change the numbers, and is removed before.
"""

import os

_KEPT_SETTINGS = """
PLATFORM COMPILATION_CACHE PERSISTENT_CACHE ENABLE_COMPILATION_CACHE RAISE_PERSISTENT_CACHE LOG
EXPLAIN TRACEBACK DUMP CUDA_VISIBLE ROCM_VISIBLE COORDINATOR NUM_PROCESSES PROCESS_ID LOCAL_DEVICE
NUM_CPU_DEVICES CPU_ CROSS_HOST FORCE_DCN PJRT_CLIENT DISTRIBUTED SHARE_BINARY CHECK_PROXY
DEBUG_NANS DEBUG_INFS DEBUG_LOG ENABLE_PREEMPTION
"""
for _name in list(os.environ):
    if _name.startswith("JAX_") and not _name[4:].startswith(tuple(_KEPT_SETTINGS.split())):
        del os.environ[_name]
