"""A key/value cache that is allocated once and in which all rows write the same column.

Legend: B rows, H key/value heads, C columns, D head dimension, P prompt length.

Rows are right-aligned: whatever a row's prompt length, its newest token stands in the column that all rows
share. Distances between columns are distances between tokens, so causal and sliding-window masks built from
columns are right. A finished row is replaced by the last live one (one row copied, not the whole cache), and
a new prompt is laid so that it ends at the current column.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotLayer(CacheLayerMixin):  # type: ignore[misc] # transformers is untyped here
    """One layer's keys and values, [B, H, C, D] each; rows [0, live) and columns [low, end) count."""

    is_sliding = False

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        rows, columns = self.window.rows, self.window.columns
        self.keys = _zeros((rows, key_states.shape[1], columns, key_states.shape[3]), key_states)
        self.values = _zeros((rows, value_states.shape[1], columns, value_states.shape[3]), value_states)
        self.is_initialized = True

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token per live row at the current column; return the columns in use."""
        assert self.keys is not None and self.values is not None
        live, low, end = self.window.live, self.window.low, self.window.end
        self.keys[:live, :, end : end + 1] = key_states
        self.values[:live, :, end : end + 1] = value_states
        return self.keys[:live, :, low : end + 1], self.values[:live, :, low : end + 1]

    def lay(
        self, keys: torch.Tensor, values: torch.Tensor, repeats: torch.Tensor, pads: torch.Tensor
    ) -> None:
        """Put prefilled prompts [b, H, P, D] behind the live rows, row i repeated repeats[i] times and moved
        right by the pads[i] columns of padding at its end."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        assert self.keys is not None and self.values is not None
        first, end, length = self.window.live, self.window.end, keys.shape[2]
        if bool(pads.any()):
            places_bP = (torch.arange(length, device=pads.device)[None] - pads[:, None]).clamp(min=0)
            order = places_bP[:, None, :, None].expand_as(keys)
            keys, values = keys.gather(2, order), values.gather(2, order)
        columns = slice(end - length, end)
        for i, count in enumerate(repeats.tolist()):
            self.keys[first : first + count, :, columns] = keys[i]
            self.values[first : first + count, :, columns] = values[i]
            first += count

    def move(self, to: torch.Tensor, origin: torch.Tensor) -> None:
        assert self.keys is not None and self.values is not None
        columns = slice(self.window.low, self.window.end)
        self.keys[to, :, columns] = self.keys[origin, :, columns]
        self.values[to, :, columns] = self.values[origin, :, columns]

    def shift(self, by: int) -> None:
        """Move the used columns left by `by`. The copy is made first: source and target overlap."""
        assert self.keys is not None and self.values is not None
        live, low, end = self.window.live, self.window.low, self.window.end
        for tensor in (self.keys, self.values):
            tensor[:live, :, low - by : end - by] = tensor[:live, :, low:end].clone()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.window.end - self.window.low + query_length, 0

    def get_seq_length(self) -> int:
        return self.window.end - self.window.low

    def get_max_length(self) -> int:
        return self.window.columns


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """On a CPU through calloc, which touches no page before it is used: a cache is rarely filled. Zeros they
    must be: a masked place counts 0 times its value, and that is not 0 for what memory happens to hold."""
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.zeros(shape, dtype=np.float32))
    return like.new_zeros(shape)


class Window:
    """Which part of the allocated rows and columns is in use; shared by all layers."""

    def __init__(self, rows: int, columns: int, end: int) -> None:
        self.rows, self.columns = rows, columns
        self.live = 0
        self.low = self.end = end


class SlotCache(Cache):  # type: ignore[misc]
    """All layers of a SlotLayer kind, driven together."""

    def __init__(self, rows: int, columns: int, end: int) -> None:
        self.window = Window(rows, columns, end)
        self.slots: list[SlotLayer] = []
        super().__init__(layers=self.slots)

    def lay(self, prefilled: Cache, repeats: torch.Tensor, pads: torch.Tensor) -> None:
        if not self.slots:
            # As many as the prefill filled: a model whose last layers reuse earlier keys has fewer.
            self.slots.extend(SlotLayer(self.window) for _ in prefilled.layers)
        for slot, layer in zip(self.slots, prefilled.layers, strict=True):
            slot.lay(layer.keys, layer.values, repeats, pads)
        self.window.live += int(repeats.sum())

    def move(self, to: torch.Tensor, origin: torch.Tensor) -> None:
        for slot in self.slots:
            slot.move(to, origin)

    def shift(self, by: int) -> None:
        for slot in self.slots:
            slot.shift(by)
        self.window.low -= by
        self.window.end -= by
