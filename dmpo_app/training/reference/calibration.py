"""Calibration of beta, the margin's scale, from the spread of the base model's errors on the two images of a pair.

An error of predicted noise, of predicted velocity and of a predicted flow are different quantities, and so are those of
two models that predict the same. What carries over is the relative size: by how much of its usual difference between
two images the policy must change its errors to be sure of a pair.
"""

from collections.abc import Sequence

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.lineage import BaseModelRef, TrainingVote
from dmpo_app.errors import RoundFailedError
from dmpo_app.objective import get_objective
from dmpo_app.settings import RoundSettings
from dmpo_app.training.data.dataset import RoundFiles, build_dataset
from dmpo_app.training.data.training_examples import Example, evaluation_slots
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache, numerics_key, reference_folder

MARGIN_SPREAD = 18.0
"""Nats of log odds to which the usual difference of the base model's errors is scaled, for the margins that are
reported and judged by. Measured: it gives 503 on the pocket model, which predicts velocity, where 500 was found by
trial, and 1,824 on an earlier one that predicted noise, where the literature's 2,000 was good. A change of one per cent
of the difference moves u by 0.18."""
MAX_PAIRS = 64
"""Beta is calibrated on the first pairs of a lineage; once there are this many it stays the same."""


def calibrate_betas(settings: RoundSettings, errors: PairErrors) -> RoundSettings:
    """Fill in the betas that the settings leave open, from the base model's errors on these pairs.

    Raises RoundFailedError when the errors do not differ at all, SetupError for an objective that does not exist.
    """
    objective = get_objective(settings.objective, settings.objective_options)
    if settings.beta is not None and settings.margin_beta is not None:
        return settings
    spread = error_spread(errors, num_slots=settings.slots_per_pair, micro_pairs=settings.batch_pairs)
    beta = settings.beta or compute_beta(settings.beta_scale * (objective.start_spread or MARGIN_SPREAD), spread)
    # An objective that aims at the target's log odds has the margins that are reported; others' are their own affair.
    own = settings.beta if objective.soft else None
    margin_beta = settings.margin_beta or own or compute_beta(MARGIN_SPREAD, spread)
    return settings.model_copy(update={"beta": beta, "margin_beta": margin_beta})


def calibrate_settings(
    store: RoundFiles, base: BaseModelRef, denoiser: Denoiser, settings: RoundSettings, votes: Sequence[TrainingVote]
) -> RoundSettings:
    """Calibrate the betas that are not set for a round on `votes`. Raises RoundFailedError, StorageFullError.

    Expects the denoiser without an adapter. The errors computed for it are cached for the round.
    """
    dataset = build_dataset(_votes_on_first_pairs(votes), store.files, alpha=settings.alpha)
    key = numerics_key(denoiser, dataset, settings, base_fingerprint=base.fingerprint, micro_pairs=settings.batch_pairs)
    cache = ReferenceCache.load(reference_folder(store.home), key)
    num_cached = len(cache)
    errors = PairErrors.from_settings(denoiser, dataset, cache, settings)
    calibrated = calibrate_betas(settings, errors)
    if len(cache) > num_cached:
        cache.save(reference_folder(store.home), key)
    return calibrated


def _votes_on_first_pairs(votes: Sequence[TrainingVote]) -> list[TrainingVote]:
    first_pair_ids = set(sorted({vote.pair_id for vote in votes})[:MAX_PAIRS])
    return [vote for vote in votes if vote.pair_id in first_pair_ids]


def compute_beta(margin_spread: float, error_spread: float) -> float:
    """Compute the beta at which a usual difference of errors gives the spread: 0.5 beta |r_a - r_b| = margin_spread.

    Three significant digits, so that it can be read and set by hand.
    """
    return float(f"{2 * margin_spread / error_spread:.3g}")


def error_spread(errors: PairErrors, *, num_slots: int, micro_pairs: int) -> float:
    """The spread of the base model's errors: mean |r_a - r_b| over the first 64 pairs, four noise levels of each."""
    count = min(MAX_PAIRS, len(errors.dataset))
    examples = [Example(pair, slot) for pair in range(count) for slot in evaluation_slots(num_slots)]
    errors.compute_references(examples, batch_pairs=micro_pairs)
    errors_a, errors_b = errors.reference_errors(examples).unbind(1)
    spread = float((errors_a - errors_b).abs().mean())
    if spread == 0:
        raise RoundFailedError(
            "the base model's errors are the same on both images of every pair, so beta cannot be found from them; "
            "are the images of the pairs different? Otherwise set DMPO_ROUND__BETA"
        )
    return spread
