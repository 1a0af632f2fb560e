"""`python -m dmpo_app.pocket train|export`: make the pocket model anew, or export what a running training has."""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from dmpo_app.pocket.train import Plan, export, train


def main() -> None:
    """Read the command line and do what it says."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(prog="python -m dmpo_app.pocket", description=__doc__)
    parser.add_argument("command", choices=("train", "export"))
    parser.add_argument("--work", type=Path, default=Path("data/studio/pocket-training"), help="checkpoints and caches")
    parser.add_argument("--out", type=Path, default=Path("data/pocket"), help="where the finished pipeline goes")
    parser.add_argument("--steps", type=int, help="length of the denoiser's schedule")
    parser.add_argument("--autoencoder-steps", type=int, help="length of the autoencoder's schedule")
    arguments = parser.parse_args()
    plan = Plan()
    if arguments.steps is not None:
        plan = replace(plan, denoiser=replace(plan.denoiser, steps=arguments.steps))
    if arguments.autoencoder_steps is not None:
        plan = replace(plan, autoencoder=replace(plan.autoencoder, steps=arguments.autoencoder_steps))
    if arguments.command == "train":
        train(arguments.work, arguments.out, plan)
    else:
        export(arguments.work, arguments.out)


if __name__ == "__main__":
    main()
