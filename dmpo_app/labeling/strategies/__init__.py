"""Which pair an annotator is shown next: orders of candidates behind one protocol, `domain.Strategy`.

A strategy is a file here and a line in `registry`.
"""

from dmpo_app.labeling.strategies.registry import STRATEGIES, offering_of

__all__ = ["STRATEGIES", "offering_of"]
