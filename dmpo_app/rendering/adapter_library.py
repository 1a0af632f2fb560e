"""The published adapters as checked tensors in memory, so that going back and forth between versions reads no disk."""

from __future__ import annotations

from collections import OrderedDict

from dmpo_app.diffusion.adapter_files import AdapterWeights, read_adapter
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.store import Store

MAX_BYTES = 256 << 20


class AdapterLibrary:
    """Reads each version once, hash, format and values checked; keeps the last used ones up to 256 MiB."""

    def __init__(self, store: Store, base: BaseModelRef) -> None:
        self._store = store
        self._base = base
        self._kept: OrderedDict[tuple[int, str], AdapterWeights] = OrderedDict()

    def weights(self, version: int) -> AdapterWeights:
        """The tensors of a published version. Raises NotFound where there is none, AdapterCorrupt for a damaged one."""
        adapter = self._store.adapters.get(self._base, version)
        key = (version, adapter.sha256)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = read_adapter(adapter.folder, adapter.sha256)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(weights.num_bytes for weights in self._kept.values()) > MAX_BYTES:
            self._kept.popitem(last=False)
        return found
