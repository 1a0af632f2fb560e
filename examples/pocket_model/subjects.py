"""The ten subjects, each with its shadow.

Every subject wears the scene's colour on most of its area, has a dark outline against any background,
and something small that is alive: an eye, a lit window, a flame.
"""

from collections.abc import Callable

from examples.pocket_model import living, things
from examples.pocket_model.brush import Brush
from examples.pocket_model.canvas import Colour, oval


def paint_subject(brush: Brush, subject: str, colour: Colour) -> None:
    """Paint one subject and its shadow on the ground."""
    painters: dict[str, Callable[[Brush, Colour], None]] = {
        "cat": living.cat,
        "house": things.house,
        "tree": living.tree,
        "car": things.car,
        "boat": things.boat,
        "bird": living.bird,
        "fish": living.fish,
        "flower": living.flower,
        "mushroom": living.mushroom,
        "rocket": things.rocket,
    }
    width = {"flower": 0.16, "bird": 0.24, "fish": 0.3, "rocket": 0.26, "tree": 0.34}.get(subject, 0.46)
    for spread, alpha in ((1.15, 0.16), (0.9, 0.2)):
        shadow = oval(
            brush.x + 0.04 * brush.scale, brush.y + 0.01, width * spread * brush.scale, 0.075 * spread * brush.scale
        )
        brush.canvas.shape(shadow, (16, 16, 50), alpha=alpha)
    painters[subject](brush, colour)
