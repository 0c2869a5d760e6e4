"""Do retrieved passages help? Train on HAM10000 with three texts: the template, and passages from BM25 or TF-IDF.

    python examples/narratives.py --data PATH

PATH contains `metadata.csv` and `images/`. Everything else is equal, including the split; further options are passed to
`mmfusion train`. The passages depend only on age, sex and site: they add words, but no facts about the patient.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).with_name("ham10000.yaml")
TEMPLATE = "{age}-year-old {sex}, lesion on the {localization}"
KNOWLEDGE = ["--narrative.knowledge", "dermatology"]
TEXTS = {
    "template": [],
    "bm25": [*KNOWLEDGE, "--narrative.retriever", "bm25"],
    "tfidf": [*KNOWLEDGE, "--narrative.retriever", "tfidf"],
}
FIGURES = ("accuracy", "balanced_accuracy", "macro_auroc")


def mmfusion(*arguments: object) -> None:
    failed = subprocess.run([sys.executable, "-m", "mmfusion", *map(str, arguments)]).returncode
    if failed:  # the command has printed the reason
        sys.exit(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the data set")
    parser.add_argument("--output", default="runs/narratives", help="folder of the texts and the runs")
    parser.add_argument("--model", default="text_bert_tiny", help="any model that reads text")
    options, overrides = parser.parse_known_args()

    rows = {}
    for name, arguments in TEXTS.items():
        data, run = Path(options.output, name, "data"), Path(options.output, name, "run")
        reading = ["--dataset.table", "metadata.csv", "--dataset.group_column", "lesion_id"]
        writing = ["--narrative.template", TEMPLATE, "--narrative.max_tokens", 60, *arguments]
        mmfusion("narrate", "--data", options.data, "--output", data, *reading, *writing)
        images = Path(options.data, "images").resolve()
        texts = ["--dataset.format", "report", "--dataset.image_root", images, "--dataset.text_template", "null"]
        texts += ["--dataset.table", "null", "--dataset.group_column", "group", "--processor.max_length", 96]
        training = ["--config", CONFIG, "--model.name", options.model, *texts, *overrides]
        mmfusion("train", "--data", data, "--output", run, *training)
        rows[name] = json.loads((run / "metrics.json").read_text())

    print(f"\n{'test':<10}" + "".join(f"{figure:>20}" for figure in FIGURES))
    for name, metrics in rows.items():
        print(f"{name:<10}" + "".join(f"{metrics[figure]:>20.3f}" for figure in FIGURES))


if __name__ == "__main__":
    main()
