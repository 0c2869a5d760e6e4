"""The table of commands. Nothing is imported until a command runs, so that ``mmfusion --help`` is instant."""

from typing import NamedTuple


class Command(NamedTuple):
    """A command: ``result = verb(config)``, then ``result.summary()`` is printed.

    Attributes:
        verb: Function to run, as ``module:name`` below ``mmfusion``.
        config: Dataclass of its options, likewise, in the ``config.py`` of the verb's package: light to import.
        help: What the command does, in one line.
    """

    verb: str
    config: str
    help: str


#: Command -> verb and the name of its dataclass, help.
_TABLE = {
    "demo": ("experiments.demo:demo DemoConfig", "Compare image, text and fusion models on small synthetic data."),
    "auto": ("ladder.run:auto AutoConfig", "Train baselines, networks and an ensemble within a time limit."),
    "train": ("training.run:train RunConfig", "Train a model on a table of cases."),
    "evaluate": ("evaluation.run:evaluate EvaluateConfig", "Evaluate a trained model on one split of a data set."),
    "predict": ("inference.run:predict PredictConfig", "Predict a folder of images or a table, and write a CSV."),
    "validate": ("sites.run:validate ValidateConfig", "Evaluate a model at another site and update its probabilities."),
    "embed": ("inference.embedding:embed EmbedConfig", "Write the feature vectors of an image encoder, as bags."),
    "explain": ("explanation.run:explain ExplainConfig", "Explain predictions: heat maps, words, columns, modalities."),
    "compare": (
        "experiments.comparison:compare ExperimentConfig",
        "Train variants of a run, or take finished runs, and test the differences.",
    ),
    "sweep": ("experiments.search:sweep SweepConfig", "Search ranges of settings for the best validation metric."),
    "narrate": ("narrative.run:narrate NarrateConfig", "Write narratives from metadata and retrieved passages."),
    "export": ("exporting.run:export ExportConfig", "Export a trained model to ONNX or torch.export."),
    "soup": ("averaging.run:soup SoupConfig", "Average the weights of several runs of one architecture."),
    "push": ("artifacts.push:push PushConfig", "Upload a saved model to the Hugging Face Hub."),
    "split": ("data.split_table:split SplitConfig", "Draw a stratified split or folds by patient into a file."),
    "audit": ("auditing.run:audit AuditConfig", "Find leaks, duplicates, missing data and rare classes."),
    "app": ("serving.run:app AppConfig", "Open a page in the browser to try trained models on cases."),
    "list": ("cli.info:list_names ListConfig", "List models or parts."),
    "info": ("cli.info:info InfoConfig", "Describe a model or a part."),
}

COMMANDS = {
    name: Command(verb, f"{verb.partition('.')[0]}.config:{config}", text)
    for name, (spec, text) in _TABLE.items()
    for verb, config in [spec.split()]
}
