"""The front door for Python: `from dmpo_app import DMPOTrainer, DMPOConfig, load_preferences, losses`."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import dmpo_app
from dmpo_app import Callback, DMPOConfig, DMPOTrainer, StudioError, TrainingResult, load_preferences, losses
from dmpo_app.api import Policy
from dmpo_app.errors import BadInputError, SetupError, UnknownFamilyError
from dmpo_app.settings import RoundSettings
from dmpo_app.training.loop.steps import StepDone
from tests.exchange.readers.preference_files import image_bytes, mixed_rows, pick_a_pic_row, write_pick_a_pic
from tests.model_fixtures import NUM_THREADS, case, case_folder, fixed_threads, folder, tiny_model
from tests.studio_process import PROJECT_ROOT
from tests.tiny_models.cases import Case, one_a_family

__all__ = ["case", "case_folder", "fixed_threads", "folder", "tiny_model"]

QUICK: dict[str, Any] = {"num_steps": 6, "batch_pairs": 3, "evaluate_every": 3, "slots_per_pair": 4}
QUICK |= {"held_out_share": 0.4, "seed": 1, "device": "cpu", "dtype": "float32", "encode_batch": 2}


PROMPTS = ["a red cat", "a blue cat"]


def config_for(output: Path, **changes: Any) -> DMPOConfig:
    return DMPOConfig(output_dir=output, **{**QUICK, **changes})


def seeded_image(seed: int) -> Image.Image:
    return Image.open(io.BytesIO(image_bytes(seed, file_format="PNG")))


def rows(count: int = 10) -> list[dict[str, Any]]:
    return [
        {"prompt": f"a {('red', 'blue', 'green', 'pink', 'grey')[index % 5]} cat", "chosen": seeded_image(2 * index)}
        | {"rejected": seeded_image(2 * index + 1)}
        for index in range(count)
    ]


def weights(result: TrainingResult) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(result.adapter_path / "pytorch_lora_weights.safetensors")
    return tensors


def assert_same_weights(first: TrainingResult, second: TrainingResult) -> None:
    assert weights(first).keys() == weights(second).keys()
    assert all(torch.equal(weights(first)[name], tensor) for name, tensor in weights(second).items())


def python(code: str, **environment: str) -> str:
    """The output of a Python process of its own, in an environment without the studio's variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DMPO_")}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, env=clean | environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_importing_the_package_takes_no_time_and_no_torch() -> None:
    code = """
import sys, time
start = time.process_time()
import dmpo_app
seconds = time.process_time() - start
assert "DMPOTrainer" in dir(dmpo_app)
heavy = {"torch", "diffusers", "gradio", "pydantic", "numpy"} & set(sys.modules)
print(seconds < 0.05, heavy or "light")
"""
    assert python(code) == "True light"


def test_every_public_name_is_there_and_others_are_an_attribute_error() -> None:
    assert all(getattr(dmpo_app, name) is not None for name in dmpo_app.__all__)
    with pytest.raises(AttributeError, match="no attribute 'DPOTrainer'"):
        dmpo_app.DPOTrainer  # noqa: B018


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """The result of ten rows under the usual settings, uncut."""
    torch.set_num_threads(NUM_THREADS)  # a test's own fixture comes later
    trainer = DMPOTrainer(tiny_model, rows(), config_for(tmp_path_factory.mktemp("trained") / "out"))
    with pytest.raises(BadInputError, match="no result yet"):
        _ = trainer.result
    result = trainer.train()
    assert result is trainer.result
    return result


def test_four_lines_train_an_adapter_that_plain_diffusers_loads(tiny_model: Path, trained: TrainingResult) -> None:
    result = trained
    assert result.evaluation is not None
    assert result.evaluation.num_pairs + result.metrics["train_pairs"] == result.counts.pairs == 10
    assert result.evaluation.loss == result.metrics["held_out_loss"]
    assert result.step in (3, 6)
    pipeline = DiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(result.adapter_path)
    assert pipeline.get_active_adapters()


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    return write_pick_a_pic(tmp_path / "pick-a-pic.parquet", [pick_a_pic_row(index) for index in range(6)])


def test_a_file_a_dataset_rows_and_pairs_are_the_same_preferences(parquet: Path) -> None:
    from_file = load_preferences(parquet)
    pairs = list(from_file)
    assert len(pairs) == 6
    assert repr(from_file) == f"<Preferences of {parquet}, format pick-a-pic>"
    table = datasets.load_dataset("parquet", data_files=str(parquet), split="train", cache_dir=str(parquet.parent))
    in_memory = [pick_a_pic_row(index) for index in range(6)]
    for source in (
        str(parquet),
        table,
        datasets.DatasetDict(train=table),
        table.to_iterable_dataset(),
        in_memory,
        (row for row in in_memory),
        pairs,
        from_file,
    ):
        assert list(load_preferences(source)) == pairs, source


def test_images_in_rows_are_whatever_python_has_at_hand(tmp_path: Path) -> None:
    chosen, rejected = seeded_image(0), seeded_image(1)
    chosen.save(tmp_path / "chosen.png")
    files = {"chosen": tmp_path / "chosen.png", "rejected": image_bytes(1, file_format="PNG")}
    arrays = {"chosen": np.asarray(chosen), "rejected": rejected.convert("CMYK").convert("RGB")}
    texts = {"chosen": "chosen.png", "rejected": {"bytes": image_bytes(1, file_format="PNG")}}
    outside = {"chosen": str(PROJECT_ROOT / "docs/images/label.png"), "rejected": rejected}
    table = [{"prompt": "a cat", **row} for row in (files, arrays, texts, outside)]
    pairs = load_preferences(table, image_folder=tmp_path)
    decoded = [np.asarray(Image.open(io.BytesIO(pair.image_a))) for pair in pairs]
    assert len(decoded) == 3  # a text that leads out of the folder is no image
    assert all(np.array_equal(image, np.asarray(chosen)) for image in decoded)


def test_rows_in_memory_are_told_apart_by_their_content() -> None:
    assert load_preferences(rows()).source.fingerprint == load_preferences(rows()).source.fingerprint
    assert load_preferences(rows()).source.fingerprint != load_preferences(rows()[::-1]).source.fingerprint


@one_a_family
def test_a_loaded_pipeline_is_trained_like_its_folder_and_given_back_as_it_was(
    case: Case, folder: Path, tmp_path: Path
) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.vae.train()
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    before = {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in parts.items()}
    facts = [_facts(part) for part in parts.values()]
    scheduler = pipeline.scheduler
    changes = {"resolution": case.resolution, "num_steps": 2, "held_out_share": 0.0}
    result = DMPOTrainer(pipeline, rows(4), config_for(tmp_path / "loaded", **changes)).train()
    assert pipeline.scheduler is scheduler
    assert [_facts(part) for part in parts.values()] == facts
    for name, part in parts.items():
        after = part.state_dict()
        assert list(after) == list(before[name])
        assert all(torch.equal(after[key], value) for key, value in before[name].items())
    assert_same_weights(result, DMPOTrainer(folder, rows(4), config_for(tmp_path / "folder", **changes)).train())


def _facts(part: torch.nn.Module) -> list[Any]:
    modules = [
        (name, module.training, getattr(module, "gradient_checkpointing", None))
        for name, module in part.named_modules()
    ]
    return [*modules, *((name, parameter.requires_grad) for name, parameter in part.named_parameters())]


def test_a_pipeline_that_cannot_be_trained_as_it_is_gets_a_sentence(
    tiny_model: Path, trained: TrainingResult, tmp_path: Path
) -> None:
    pipeline = DiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True)
    pipeline.load_lora_weights(trained.adapter_path)
    with pytest.raises(SetupError, match=r"carries LoRA adapters.*unload_lora_weights"):
        DMPOTrainer(pipeline, rows(), config_for(tmp_path / "out"))
    pipeline.unload_lora_weights()
    pipeline.vae._hf_hook = object()
    with pytest.raises(SetupError, match=r"offload.*remove_all_hooks"):
        DMPOTrainer(pipeline, rows(), config_for(tmp_path / "out"))
    with pytest.raises(UnknownFamilyError, match=r"a Tensor cannot be trained; supported are StableDiffusionPipeline"):
        DMPOTrainer(torch.zeros(1), rows(), config_for(tmp_path / "out"))


class Recording(Callback):
    def __init__(self) -> None:
        self.events: list[Any] = []
        self.images: list[list[Image.Image]] = []

    def on_encoded(self, counts: Any) -> None:
        self.events.append(("encoded", counts.pairs))

    def on_start(self, policy: Policy) -> None:
        self.events.append(("start", policy.step, policy.num_steps))

    def on_step(self, step: StepDone, policy: Policy) -> None:
        assert step.step == policy.step
        self.events.append(step.step)

    def on_evaluation(self, step: StepDone, policy: Policy) -> None:
        self.events.append(("evaluation", step.step))

    def on_checkpoint(self, step: int, policy: Policy) -> None:
        self.events.append(("checkpoint", step))

    def on_end(self, result: TrainingResult) -> None:
        self.events.append(("end", result.adapter_path.name))


def test_callbacks_are_told_of_everything_in_order(tiny_model: Path, tmp_path: Path) -> None:
    recording = Recording()
    result = DMPOTrainer(tiny_model, rows(4), config_for(tmp_path / "out"), callbacks=[recording]).train()
    assert recording.events == [
        *(("encoded", 2), ("encoded", 4), ("encoded", 4), ("start", 0, 6)),
        *(1, 2, 3, ("evaluation", 3), 4, 5, 6, ("evaluation", 6), ("checkpoint", 6)),
        ("end", result.adapter_path.name),
    ]


def test_a_callback_renders_validation_images_with_the_policy_and_leaves_the_training_alone(
    tiny_model: Path, tmp_path: Path
) -> None:
    class Rendering(Callback):
        images: list[list[Image.Image]] = []  # noqa: RUF012

        def on_start(self, policy: Policy) -> None:
            self.images.append(policy.render(PROMPTS, seed=3, num_steps=2))
            self.policy = policy

        def on_evaluation(self, step: StepDone, policy: Policy) -> None:
            self.on_start(policy)

    changes = {"learning_rate": 0.05, "ema_decay": 0.5, "limits": {"adapter_rms": None, "min_chosen_gain": None}}
    rendering = Rendering()
    plain = DMPOTrainer(tiny_model, rows(6), config_for(tmp_path / "plain", **changes)).train()
    watched = DMPOTrainer(tiny_model, rows(6), config_for(tmp_path / "out", **changes), callbacks=[rendering]).train()
    assert_same_weights(plain, watched)
    base, *later = [[np.asarray(image, dtype=int) for image in images] for images in rendering.images]
    pipeline = DiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    usual = {"num_inference_steps": 2, "guidance_scale": 7.5}
    stock = [np.asarray(image, dtype=int) for image in pipeline(PROMPTS, generator=generators, **usual).images]
    assert max(np.abs(image - other).max() for image, other in zip(base, stock, strict=True)) <= 1
    assert len(later) == 2
    assert all(np.abs(images[0] - base[0]).max() > 1 for images in later)
    with pytest.raises(BadInputError, match="for callbacks"):
        rendering.policy.render(["a cat"])


def test_a_callback_that_stops_the_training_gets_the_best_adapter_so_far(tiny_model: Path, tmp_path: Path) -> None:
    class StopAtFour(Callback):
        def on_step(self, step: StepDone, policy: Policy) -> None:
            if step.step == 4:
                policy.stop()

    result = DMPOTrainer(
        tiny_model, rows(), config_for(tmp_path / "out", num_steps=50), callbacks=[StopAtFour()]
    ).train()
    assert result.step in (3, 4)
    assert result.evaluation is not None
    without_held_out = config_for(tmp_path / "other", num_steps=50, held_out_share=0.0)
    assert DMPOTrainer(tiny_model, rows(), without_held_out, callbacks=[StopAtFour()]).train().step == 4


def test_a_loop_that_is_left_goes_on_in_the_same_trainer_or_another_to_the_same_adapter(
    tiny_model: Path, trained: TrainingResult, tmp_path: Path
) -> None:
    config = config_for(tmp_path / "pieces")
    trainer = DMPOTrainer(tiny_model, rows(), config)
    for step in trainer.steps():
        assert step.num_steps == 6
        if step.step == 2:
            break
    assert [step.step for step, _ in zip(trainer.steps(), range(2), strict=False)] == [3, 4]
    with pytest.raises(BadInputError, match=r"pieces exists already; choose another, or set resume=True"):
        DMPOTrainer(tiny_model, rows(), config)
    resumed = DMPOTrainer(tiny_model, rows(), replace(config, resume=True))
    assert_same_weights(trained, resumed.train())
    assert list(resumed.steps()) == []


def test_leaving_the_loop_at_the_last_step_has_a_result_too(tiny_model: Path, tmp_path: Path) -> None:
    trainer = DMPOTrainer(tiny_model, rows(4), config_for(tmp_path / "out"))
    for step in trainer.steps():
        if step.is_last:
            break
    assert trainer.result.adapter_path.is_dir()


def test_a_callback_that_fails_ends_the_training_with_a_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    class Failing(Callback):
        def on_step(self, step: StepDone, policy: Policy) -> None:
            raise ZeroDivisionError(f"at step {step.step}")

    pipeline = DiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True)
    trainer = DMPOTrainer(pipeline, rows(), config_for(tmp_path / "out"), callbacks=[Failing()])
    with pytest.raises(ZeroDivisionError, match="at step 1"):
        trainer.train()
    with pytest.raises(ZeroDivisionError, match="at step 2"):
        trainer.train()
    assert not getattr(pipeline.unet, "peft_config", None)


@pytest.fixture
def own_objectives() -> Iterator[None]:
    before = set(losses.OBJECTIVES)
    yield
    for name in set(losses.OBJECTIVES) - before:
        losses.unregister(name)


@pytest.mark.usefixtures("own_objectives")
def test_an_objective_of_ones_own_is_trained_with_by_its_name(
    tiny_model: Path, trained: TrainingResult, tmp_path: Path
) -> None:
    def hinge(margin: Tensor, target: Tensor, *, width: float = 1.0) -> Tensor:
        return (width - margin * torch.sign(target - 0.5)).clamp(min=0)

    losses.register("hinge", hinge)
    config = config_for(tmp_path / "hinge", objective="hinge", objective_options={"width": 2.0})
    result = DMPOTrainer(tiny_model, rows(), config).train()
    manifest = json.loads((result.adapter_path / "manifest.json").read_text())
    assert manifest["config"]["settings"]["objective"] == "hinge"
    assert any(not torch.equal(weights(trained)[name], tensor) for name, tensor in weights(result).items())
    with pytest.raises(SetupError, match="hinge has no option 'breadth'; it has: width"):
        DMPOTrainer(tiny_model, rows(), replace(config, objective_options={"breadth": 2.0}))


def test_no_environment_variable_and_no_settings_file_has_a_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = DMPOConfig(num_steps=7).to_settings("model")
    (tmp_path / "dmpo.toml").write_text("min_votes = 2\n[round]\nrank = 3\nnonsense = 1\n")
    monkeypatch.chdir(tmp_path)
    for name, value in {"ROUND__RANK": "64", "NONSENSE": "1", "HOME": "/nowhere", "RENDER__DTYPE": "float16"}.items():
        monkeypatch.setenv(f"DMPO_{name}", value)
    assert DMPOConfig(num_steps=7).to_settings("model") == expected
    assert (expected.round.num_steps, expected.round.rank, expected.base_model) == (7, 8, "model")


def test_what_is_not_configured_is_as_in_rounds() -> None:
    assert DMPOConfig().round_settings() == RoundSettings()
    assert not {"num_steps", "held_out_share", "evaluate_every"} & DMPOConfig().round_settings().model_fields_set
    assert DMPOConfig(optimizer="prodigy").round_settings().learning_rate == 1
    assert DMPOConfig(limits={"adapter_rms": None}).round_settings().limits.adapter_rms is None
    named = {field.name for field in fields(DMPOConfig)}
    text = (PROJECT_ROOT / "docs" / "python.md").read_text()
    assert [name for name in sorted(named) if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rank": 0}, r"DMPOConfig: rank=0: .*greater than or equal to 1"),
        ({"learning_rate": -1, "optimizer": "sgd"}, r"learning_rate=-1: .*; optimizer='sgd': .*adamw"),
        ({"limits": {"grad_nrm": 1.0}}, r"limits.grad_nrm=1.0"),
        ({"max_pairs": 0}, "max_pairs=0: expected 1 or more"),
        ({"checkpoint_seconds": 0}, "checkpoint_seconds=0"),
        ({"dtype": "float8"}, "dtype='float8'"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused_with_the_field(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        DMPOConfig(**changes)


@pytest.mark.parametrize(
    ("preferences", "sentence"),
    [
        (lambda folder: [], "a list of rows holds no pairs"),
        (lambda folder: datasets.Dataset.from_list([]), "the data set holds no pairs"),
        (lambda folder: [{"prompt": "a", "chosen": b""}], r"lacks 'rejected' for the nearest format, chosen-rejected"),
        (lambda folder: [{"text": "a"}], r"a list of rows has the columns text; known formats are"),
        (lambda folder: datasets.Dataset.from_list([{"caption": "a", "label_0": 1}]), r"lacks 'label_1'.*pick-a-pic"),
        (
            lambda folder: datasets.DatasetDict(test=datasets.Dataset.from_list([{"a": 1}])),
            "no split 'train'; it has test",
        ),
        (lambda folder: ["a", "b"], r"a row of a list of rows is a str, expected a dict"),
        (lambda folder: {"prompt": "a"}, "cannot be loaded from a dict"),
        (lambda folder: 3, "cannot be loaded from a int"),
        (lambda folder: folder / "missing.parquet", r"there is no data set at .*missing.parquet"),
    ],
)
def test_preferences_that_are_none_get_a_sentence(
    preferences: Callable[[Path], Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(StudioError, match=sentence):
        load_preferences(preferences(tmp_path))


def test_rows_without_one_usable_pair_say_why_each_was_left_out(tiny_model: Path, tmp_path: Path) -> None:
    unusable = [{"prompt": "", "chosen": b"a", "rejected": b"b"}, {"prompt": "a", "chosen": b"a", "rejected": b"b"}]
    with pytest.raises(
        BadInputError, match=r"no pair to learn from.*2 rows were read.*1 x broken image, 1 x no prompt"
    ):
        DMPOTrainer(tiny_model, unusable, config_for(tmp_path / "out")).train()


def test_a_model_an_objective_or_a_folder_that_cannot_be_used_gets_a_sentence_at_once(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    for model, changes, sentence in (
        (tiny_model, {"objective": "ppo"}, r"'ppo' is no objective; there are dmpo, dpo"),
        (tiny_model, {"objective_options": {"order": 1.0}}, r"dmpo has no option 'order'; it has: none"),
        (tmp_path / "nothing", {}, r"nothing does not exist; set the model to a folder"),
        (tiny_model, {"output_dir": tmp_path / "file"}, "file is a file; choose another"),
        (tiny_model, {"output_dir": tmp_path / "full"}, r"full exists already.*resume=True"),
        (tiny_model, {"output_dir": tmp_path / "full", "resume": True}, "holds no training to resume"),
    ):
        with pytest.raises(StudioError, match=sentence):
            DMPOTrainer(model, rows(2), config_for(tmp_path / "out") if not changes else DMPOConfig(**QUICK | changes))
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_errors_of_training_name_arguments_and_not_variables(tiny_model: Path, tmp_path: Path) -> None:
    trainer = DMPOTrainer(tiny_model, rows(), config_for(tmp_path / "out", target_modules=("no_such_layer",)))
    with pytest.raises(StudioError, match=r"no_such_layer; check target_modules$"):
        trainer.train()


def test_a_limited_number_of_pairs_is_read_and_unusable_ones_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    quick = {"num_steps": 1, "held_out_share": 0.0}
    result = DMPOTrainer(tiny_model, mixed_rows(), config_for(tmp_path / "all", **quick)).train()
    assert (result.counts.rows, result.counts.pairs) == (12, 9)
    limited = DMPOTrainer(tiny_model, mixed_rows(), config_for(tmp_path / "three", max_pairs=3, **quick)).train()
    assert limited.counts.pairs == 3
