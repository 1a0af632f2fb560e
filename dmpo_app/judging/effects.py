"""Statistics of a version's effects: measures that moved beyond chance, their sizes, and a sentence that says it.

Both versions made an image of every prompt and seed, so differences are paired. Seeds of a prompt are not independent:
the test is of the prompts' means. If a version moves nothing, the sign of a prompt's differences is as likely the one
as the other; flipping the signs of whole prompts, of all measures at once, gives what chance can do. The largest
statistic over the measures is what a measure has to beat (Westfall and Young 1993, step down): of all measures together
something is said by chance in at most 5 % of comparisons, and measures that say the same cost little.

Shapes:  P prompts;  S seeds of each;  K measures;  F flips of signs.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dmpo_app.domain.effects import Effect, EffectMeasure, EffectUnit, PromptChange, VersionEffects

Floats = NDArray[np.float64]

FAMILY_LEVEL = 0.05
"""The chance of calling anything moved where nothing has."""
MIN_PROMPTS = 6
"""With fewer, even the same direction on every prompt is not rare enough to be told from chance."""
MAX_FLIPS = 4096
"""All flips up to 13 prompts (the first sign is free), random ones above."""
NUM_CHANGED_PROMPTS = 4
_MAX_ALSO = 3
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class ImageChanges:
    """Pixel differences (P, S) between two versions' images, as a share of the range, and the ids of both (P, S)."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    shares: Floats
    image_ids: NDArray[np.int64]
    other_image_ids: NDArray[np.int64]


def measure_effects(
    measures: Sequence[EffectMeasure], values: Floats, other_values: Floats, changes: ImageChanges, *, other_name: str
) -> VersionEffects:
    """Compare values (P, S, K) of a version's images with those of another version, called `other_name`."""
    num_prompts, num_seeds, _ = values.shape
    prompt_means = (values - other_values).mean(1)
    p_values = sign_flip_p_values(prompt_means)
    effects = [
        _effect(measure, values[..., k] - other_values[..., k], other_values[..., k], float(p_values[k]))
        for k, measure in enumerate(measures)
    ]
    ordered = tuple(sorted(effects, key=_rank))
    mean_change = 100 * float(changes.shares.mean())
    num_images = num_prompts * num_seeds
    said = _say(ordered, num_images, num_prompts, mean_change)
    return VersionEffects(
        ordered, _changed_most(changes), num_images, num_prompts, mean_change, f"Compared with {other_name}: {said}."
    )


def _rank(effect: Effect) -> tuple[float, int, float]:
    """The surest first; of equally sure ones those that more images agree with, then the larger."""
    return (effect.p_value, -effect.num_agreeing, -abs(effect.deviations))


def sign_flip_p_values(prompt_means: Floats) -> Floats:
    """Adjusted p-values (K,) of the prompts' mean differences (P, K), family-wise over the measures.

    The statistic is a monotone function of Student's t. Signs are flipped in all ways for up to 13 prompts, which is
    exact, else in 4,095 random ways beside the one observed.
    """
    statistics = _consistency(prompt_means)
    order = np.argsort(-statistics, kind="stable")
    flipped = _flip_statistics(prompt_means[:, order], _signs(len(prompt_means)))
    shares = np.empty(len(order))
    # The largest statistic of each flip over the measures that are not surer than this one.
    largest = np.zeros(flipped.shape[1])
    for rank in reversed(range(len(order))):
        np.maximum(largest, flipped[rank], out=largest)
        shares[rank] = (largest >= statistics[order[rank]] - _TOLERANCE).mean()
    p_values = np.empty(len(order))
    p_values[order] = np.maximum.accumulate(shares)
    return p_values


def _consistency(prompt_means: Floats) -> Floats:
    """Consistency over the prompts, (K,) in [0, 1]: |sum| / sqrt(P * sum of squares); it grows with Student's |t|."""
    return _flip_statistics(prompt_means, np.ones((1, len(prompt_means)))).ravel()


def _flip_statistics(prompt_means: Floats, signs: Floats) -> Floats:
    """The statistics (K, F) under flips (F, P)."""
    norms = np.sqrt(len(prompt_means) * (prompt_means**2).sum(0))
    scaled = prompt_means / np.where(norms > 0, norms, 1.0)
    statistics: Floats = np.abs(scaled.T @ signs.T)
    return statistics


@lru_cache(maxsize=8)
def _signs(num_prompts: int) -> Floats:
    """Flips (F, P) of the prompts' signs, no flip first."""
    if 2 ** (num_prompts - 1) <= MAX_FLIPS:
        rest = np.array(list(itertools.product((1.0, -1.0), repeat=num_prompts - 1))).reshape(-1, num_prompts - 1)
        return np.concatenate([np.ones((len(rest), 1)), rest], axis=1)
    signs = np.random.default_rng(num_prompts).choice((1.0, -1.0), size=(MAX_FLIPS, num_prompts))
    signs[0] = 1.0
    return signs


def _effect(measure: EffectMeasure, differences: Floats, other: Floats, p_value: float) -> Effect:
    """Describe one measure's differences (P, S) from the other version's values (P, S)."""
    mean = float(differences.mean())
    deviation = float(other.std())
    scale, unit = _scale(measure, other)
    margin = _half_interval(differences.mean(1))
    return Effect(
        measure=measure.name,
        words=measure.more if mean >= 0 else measure.less,
        moved=p_value <= FAMILY_LEVEL and len(differences) >= MIN_PROMPTS,
        p_value=p_value,
        num_agreeing=int((differences * np.sign(mean) > 0).sum()),
        size=mean * scale,
        low=(mean - margin) * scale,
        high=(mean + margin) * scale,
        unit=unit,
        deviations=mean / deviation if deviation > 0 else 0.0,
    )


def _scale(measure: EffectMeasure, other: Floats) -> tuple[float, EffectUnit]:
    """The factor from a difference to an effect's size, and its unit; a share of nothing is told in deviations."""
    if measure.unit == "points":
        return 100.0, "points"
    if measure.unit == "percent" and abs(other.mean()) > _TOLERANCE:
        return 100.0 / abs(float(other.mean())), "percent"
    deviation = float(other.std())
    return (1.0 / deviation if deviation > 0 else 0.0), "deviations"


def _half_interval(prompt_means: Floats) -> float:
    """Half the width of the 95 % interval of a mean over prompts, by Student's t."""
    from scipy.special import stdtrit  # here, since the page is up sooner without it

    num_prompts = len(prompt_means)
    if num_prompts < 2:
        return 0.0
    return float(stdtrit(num_prompts - 1, 0.975) * prompt_means.std(ddof=1) / np.sqrt(num_prompts))


def _changed_most(changes: ImageChanges) -> tuple[PromptChange, ...]:
    by_prompt = changes.shares.mean(1)
    chosen = np.argsort(-by_prompt, kind="stable")[:NUM_CHANGED_PROMPTS]
    seeds = changes.shares.argmax(1)
    return tuple(
        PromptChange(
            prompt=changes.prompts[row],
            change=100 * float(by_prompt[row]),
            seed=changes.seeds[seeds[row]],
            image_id=int(changes.image_ids[row, seeds[row]]),
            other_image_id=int(changes.other_image_ids[row, seeds[row]]),
        )
        for row in chosen.tolist()
    )


def _say(effects: Sequence[Effect], num_images: int, num_prompts: int, mean_change: float) -> str:
    """Say the effects in words, the surest first."""
    if mean_change == 0:
        return f"all {num_images} images are the same"
    on_average = f"the images changed by {_number(mean_change)} % on average"
    if num_prompts < MIN_PROMPTS:
        prompts = "prompt" if num_prompts == 1 else "prompts"
        return f"{num_prompts} held-out {prompts} are too few to tell an effect from chance; {on_average}"
    moved = [effect for effect in effects if effect.moved]
    if not moved:
        return f"no measure moved beyond chance ({len(effects)} measures, {num_prompts} prompts); {on_average}"
    first, *others = moved
    parts = [f"{first.words} in {first.num_agreeing} of {num_images} images, {_size(first)}"]
    if others:
        also = [f"{effect.words} ({effect.num_agreeing}, {_size(effect)})" for effect in others[:_MAX_ALSO]]
        if len(others) > _MAX_ALSO:
            also.append(f"{len(others) - _MAX_ALSO} more")
        parts.append(f"also {_enumerate(also)}")
    parts.append("nothing else beyond chance" if len(moved) < len(effects) else on_average)
    return "; ".join(parts)


def _enumerate(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _size(effect: Effect) -> str:
    number = _number(abs(effect.size))
    match effect.unit:
        case "percent":
            return f"by {number} %"
        case "points":
            return f"by {number} of 100 points"
        case "deviations":
            return f"by {number} of the usual difference between images"


def _number(value: float) -> str:
    """A number of two digits or more."""
    if value >= 9.95:
        return f"{value:,.0f}"
    if value >= 0.995:
        return f"{value:.1f}"
    return f"{value:.2g}" if value >= 0.01 else "less than 0.01"
