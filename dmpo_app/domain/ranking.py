"""Sets of three or four images of one prompt, and orders of them.

A set is a pair with further images: a and b, then c and d. Orders are kept as the letters of the images, "cab"; people
see and answer places, 0 the first that is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from dmpo_app.domain.vote import Choice, Outcome
from dmpo_app.errors import BadInput

LETTERS = "abcd"
PAIR_SIZE = 2
MAX_SET = len(LETTERS)


def order_of_places(order: Sequence[int], arrangement: str) -> str:
    """The images by letter, best first, from the places they were shown at.

    Raises BadInput unless every place is named once.
    """
    size = len(arrangement)
    if sorted(order) != list(range(size)):
        raise BadInput(
            f"an order of {size} images names each of the places 0 to {size - 1} once, best first; this one is "
            f"{list(order)}"
        )
    return "".join(arrangement[place] for place in order)


def places_of_order(ranking: str, arrangement: str) -> tuple[int, ...]:
    """The places, best first, at which the images of an order were shown."""
    return tuple(arrangement.index(letter) for letter in ranking)


def better_of_first_two(ranking: str) -> Outcome:
    """Which of images a and b an order puts first: the one comparison that a ranking counts as where pairs do."""
    return Outcome.A if ranking.index("a") < ranking.index("b") else Outcome.B


def side_of(outcome: Outcome, *, a_on_left: bool) -> Choice:
    """The side that image a or b stood on."""
    return Choice.LEFT if (outcome is Outcome.A) == a_on_left else Choice.RIGHT
