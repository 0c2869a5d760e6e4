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
    "train": Command("cli._pending:train", "training.config:RunConfig", "Train a model on a table of cases."),
    "evaluate": Command(
        "cli._pending:evaluate", "cli._pending:EvaluateConfig", "Measure a trained model on one split of a data set."
    ),
    "predict": Command(
        "cli._pending:predict", "cli._pending:PredictConfig", "Predict a folder of images or a table, and write a CSV."
    ),
    "explain": Command(
        "cli._pending:explain",
        "cli._pending:ExplainConfig",
        "Show where a trained model looks, which words it reads, and how much image and text count.",
    ),
    "compare": Command(
        "cli._pending:compare",
        "experiments.config:StudyConfig",
        "Train runs that differ in one thing, over several seeds, and say what the difference is worth.",
    ),
    "sweep": Command(
        "cli._pending:sweep",
        "experiments.config:SweepConfig",
        "Search ranges of settings for the best validation metric.",
    ),
    "narrate": Command(
        "narrative.run:narrate",
        "narrative.config:NarrateConfig",
        "Write a narrative for each row: a sentence from metadata, and passages retrieved for it.",
    ),
    "export": Command(
        "cli._pending:export",
        "cli._pending:ExportConfig",
        "Export a trained model to ONNX or torch.export, and compare the result with the model.",
    ),
    "soup": Command(
        "cli._pending:soup",
        "cli._pending:SoupConfig",
        "Average the weights of several runs of one architecture into one model.",
    ),
    "push": Command(
        "cli._pending:push", "cli._pending:PushConfig", "Push a saved model to the Hugging Face Hub, in one commit."
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
