"""The table of commands. Nothing is imported until a command runs, so that ``mmfusion --help`` is instant."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command: ``result = verb(config)``, then ``result.summary()`` is printed.

    Attributes:
        verb: Function to run, as ``module:name`` below ``mmfusion``.
        config: Dataclass of its options, likewise, in a module that imports no heavy library.
        help: What the command does, in one line.
    """

    verb: str
    config: str
    help: str


COMMANDS = {
    "demo": Command(
        "cli.demo:demo",
        "cli.config:DemoConfig",
        "Make a small data set, train image-only, text-only and fusion models on it, and compare them.",
    ),
    "train": Command("training.run:train", "training.config:RunConfig", "Train a model on a table of cases."),
    "evaluate": Command(
        "evaluation.run:evaluate",
        "evaluation.config:EvaluateConfig",
        "Measure a trained model on one split of a data set.",
    ),
    "predict": Command(
        "inference.run:predict",
        "inference.config:PredictConfig",
        "Predict a folder of images or a table, and write a CSV.",
    ),
    "explain": Command(
        "explanation.run:explain",
        "explanation.config:ExplainConfig",
        "Show where a trained model looks, which words it reads, and how much image and text count.",
    ),
    "compare": Command(
        "experiments.comparison:compare",
        "experiments.config:ExperimentConfig",
        "Train runs that differ in one thing, over several seeds, and say what the difference is worth.",
    ),
    "sweep": Command(
        "experiments.search:sweep",
        "experiments.config:SweepConfig",
        "Search ranges of settings for the best validation metric.",
    ),
    "narrate": Command(
        "narrative.run:narrate",
        "narrative.config:NarrateConfig",
        "Write a narrative for each row: a sentence from metadata, and passages retrieved for it.",
    ),
    "export": Command(
        "exporting.run:export",
        "exporting.config:ExportConfig",
        "Export a trained model to ONNX or torch.export, and compare the result with the model.",
    ),
    "soup": Command(
        "averaging.run:soup",
        "averaging.config:SoupConfig",
        "Average the weights of several runs of one architecture into one model.",
    ),
    "push": Command(
        "artifacts.push:push",
        "artifacts.config:PushConfig",
        "Push a saved model to the Hugging Face Hub, in one commit.",
    ),
    "split": Command(
        "data.split_table:split",
        "data.config:SplitConfig",
        "Split a data set by patient or lesion, stratified by class, and keep the split in a file.",
    ),
    "audit": Command(
        "auditing.run:audit",
        "auditing.config:AuditConfig",
        "Look for leaks, duplicates, gaps and small classes that would make metrics on a data set untrue.",
    ),
    "list": Command("cli.list:list_names", "cli.config:ListConfig", "List models, or the parts they are made of."),
    "info": Command("cli.info:info", "cli.config:InfoConfig", "Show what a model or a part is made of."),
}
