"""The functions that TRL implements too, against TRL: its trainers' loss, fed with the log-probabilities we choose.

A sequence of two tokens, the second of which is the completion, has one log-probability. With

    log pi = -0.5 e   and   log pi_ref = -0.5 r

TRL's beta times its difference of log ratios is the margin u of the errors e and r.
"""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from trl.trainer.dpo_trainer import DPOTrainer

from dmpo_app.objective import OBJECTIVES, PairTerms

BETA = 0.7


class Spoken(nn.Module):
    """Answers with fixed log-probabilities, (2B, 1): chosen, then rejected."""

    def __init__(self, log_probs: Tensor) -> None:
        super().__init__()
        self.log_probs = log_probs

    def forward(self, **_: Any) -> SimpleNamespace:
        column = self.log_probs[:, None]
        flags = torch.ones_like(column, dtype=torch.bool)
        return SimpleNamespace(log_probs=column, entropy=column, mean_logits=column, is_top1=flags)


def trl_loss(terms: PairTerms, loss_type: str, *, label_smoothing: float = 0.0) -> Tensor:
    """TRL's loss of one pair whose chosen image is a."""
    model = Spoken(-0.5 * torch.cat([terms.policy_a, terms.policy_b]))
    trainer = SimpleNamespace(
        model=model,
        accelerator=Accelerator(cpu=True),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=BETA,
        label_smoothing=label_smoothing,
        use_weighting=False,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.zeros(2, 2, dtype=torch.long),
        "attention_mask": torch.ones(2, 2, dtype=torch.long),
        "completion_mask": torch.tensor([[0, 1], [0, 1]]),
        "ref_chosen_logps": -0.5 * terms.reference_a,
        "ref_rejected_logps": -0.5 * terms.reference_b,
    }
    return cast(Tensor, DPOTrainer._compute_loss(trainer, model, inputs, False))


@pytest.mark.parametrize("u", [-6.0, -0.5, 0.0, 0.5, 3.0])
@pytest.mark.parametrize(("name", "loss_type", "alpha"), [("dmpo", "exo_pair", 0.05), ("dpo", "sigmoid", 0.0)])
def test_the_loss_and_its_slope_are_trls(name: str, loss_type: str, alpha: float, u: float) -> None:
    ours, theirs = one_pair(u), one_pair(u)
    loss = OBJECTIVES[name].loss(ours, beta=BETA).sum()
    wanted = trl_loss(theirs, loss_type, label_smoothing=alpha)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    slopes = [torch.autograd.grad(value, t.policy_a)[0] for value, t in ((loss, ours), (wanted, theirs))]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("u", [-2.0, 0.0, 0.3, 2.0])
def test_ipo_is_trls_over_the_square_of_its_temperature(u: float) -> None:
    pair = one_pair(u)
    torch.testing.assert_close(OBJECTIVES["ipo"].loss(pair, beta=BETA).sum(), BETA**2 * trl_loss(pair, "ipo"))


def one_pair(u: float) -> PairTerms:
    """A pair with that margin, in float32; image a is preferred with 0.95."""
    policy_a = torch.tensor([0.3 - 2 * u / BETA], requires_grad=True)
    return PairTerms(policy_a, torch.tensor([0.2]), torch.tensor([0.3]), torch.tensor([0.2]), torch.tensor([0.95]))
