"""`python -m examples.pocket_model train|export|classifier|prompts`: remake the model and the files that ship in data/.

train: the model;  export: the model as a running training has it;  classifier: the attribute classifier, from the
renders of a training;  prompts: the two prompt files.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from examples.pocket_model.classifier_training import ClassifierPlan, train_classifier
from examples.pocket_model.prompts import write_prompts
from examples.pocket_model.train import Plan, export, train


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.pocket_model", description=__doc__)
    parser.add_argument("command", choices=("train", "export", "classifier", "prompts"))
    parser.add_argument("--work", type=Path, default=Path("data/studio/pocket-training"), help="checkpoints and caches")
    parser.add_argument("--out", type=Path, help="default: the place in data/ from which the result ships")
    parser.add_argument("--steps", type=int, help="length of the denoiser's schedule")
    parser.add_argument("--autoencoder-steps", type=int, help="length of the autoencoder's schedule")
    return parser.parse_args()


def main() -> None:
    """Run the command of the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    arguments = parse_arguments()
    plan = Plan()
    if arguments.steps is not None:
        plan = replace(plan, denoiser=replace(plan.denoiser, steps=arguments.steps))
    if arguments.autoencoder_steps is not None:
        plan = replace(plan, autoencoder=replace(plan.autoencoder, steps=arguments.autoencoder_steps))
    if arguments.command == "train":
        train(arguments.work, arguments.out or Path("data/pocket"), plan)
    elif arguments.command == "export":
        export(arguments.work, arguments.out or Path("data/pocket"))
    elif arguments.command == "prompts":
        write_prompts(arguments.out or Path("data/prompts"))
    else:
        paths = sorted((arguments.work / "renders").glob("*.npy"))
        out = arguments.out or Path("data/classifiers/attributes.safetensors")
        logging.info("%s", train_classifier(paths, out, scenes_seed=plan.seed, plan=ClassifierPlan()))


if __name__ == "__main__":
    main()
