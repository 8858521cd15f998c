"""The rows of a gate log that are not on disk yet: a preallocated buffer, rounded to float16 where asked. No torch."""

from __future__ import annotations

import numpy as np

from apt_core.errors import bad_value
from apt_core.shard_header import shard_parts

RECORD_DTYPES = ("float32", "float16")
_SMALLEST, _LARGEST = np.float16(2**-24), np.float16(1 - 2**-11)
"""the float16 numbers next to 0 and 1"""


def check_recording(record_every: int, record_dtype: str) -> None:
    """Refuses settings of a recorder that cannot be used.

    Raises:
        AptValueError: naming the setting.
    """
    if type(record_every) is not int or record_every < 1:
        raise bad_value("record_every", record_every, "a whole number of steps, 1 or larger")
    if record_dtype not in RECORD_DTYPES:
        raise bad_value("record_dtype", record_dtype, " or ".join(RECORD_DTYPES))


def as_float16(gates: np.ndarray) -> np.ndarray:
    """Rounds to float16, but what lies within (0, 1) stays within (0, 1): a gate that is almost open is not open."""
    with np.errstate(all="ignore"):
        rounded = gates.astype(np.float16)
    within = (gates > 0) & (gates < 1)
    return np.where(within, np.clip(rounded, _SMALLEST, _LARGEST), rounded)


class Tail:
    """Rows of one shard in memory. Rows before ``count`` never change until the shard is sealed and written."""

    def __init__(self, capacity: int, shape: tuple[int, int], dtype: str) -> None:
        shapes = {"token_gate": shape, "token_gate_std": shape, "layer_scale": shape[:1]}
        self.arrays = {"step": np.empty(capacity, np.int64)}
        self.arrays |= {name: np.empty((capacity, *part), np.float32) for name, part in shapes.items()}
        self.capacity = capacity
        self._rounded = None
        if dtype == "float16":
            self._rounded = {
                name: np.empty((capacity, *shape), np.float16) for name in ("token_gate", "token_gate_std")
            }
        self.reuse(0)

    def reuse(self, previous_step: int) -> None:
        """Empties the buffer for the shard that follows ``previous_step``."""
        self.previous_step = previous_step
        self.count = self.written = 0

    def parts(
        self, count: int, prefix_lengths: tuple[int, ...], record_every: int
    ) -> tuple[str, list[bytes | memoryview]]:
        """File name and content of the first ``count`` rows."""
        columns = {name: array[:count] for name, array in self.arrays.items()}
        for name, rounded in (self._rounded or {}).items():
            rounded[self.written : count] = as_float16(columns[name][self.written :])
            columns[name] = rounded[:count]
        name = f"gates-{columns['step'][0]:08d}.safetensors"
        return name, shard_parts(columns, prefix_lengths, record_every, self.previous_step)
