"""Writes data/embedded/demo/benign_test_results.json: what the demo's first detector flags in the demo's prompts.

Takes the package that `make demo` trains first, gives the file as a harness writes it: prompts over 100 characters cut
and followed by "...". Run it when the seeds, the prompts or the quick recipe change.
"""

import argparse
import json
from pathlib import Path

from crywolf.data import read_corpus
from crywolf.data.embedded import benign_prompts_path, fps_path
from crywolf.export import load_detector
from crywolf.train import BENIGN_TEST, evaluate, suite_of, write_harness

CUT = 100


def main() -> None:
    """Score the prompts and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, default=Path("crywolf-demo/run/base/package"))
    parser.add_argument("--out", type=Path, default=fps_path())
    arguments = parser.parse_args()
    detector = load_detector(str(arguments.package))
    prompts = read_corpus(benign_prompts_path(), label="BENIGN").frame
    suites = [suite_of(BENIGN_TEST, prompts)]
    measured = evaluate(
        detector.score, threshold=detector.threshold, suites=suites, threats=detector.threats, name="demo"
    )
    write_harness(measured, arguments.out, force=True)
    document = json.loads(arguments.out.read_text(encoding="utf-8"))
    for entry in document["fp_details"]:
        entry["prompt"] = cut(entry["prompt"])
    arguments.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{arguments.out}: {measured.fp_rate().k:,} false positives of {len(prompts):,} prompts")


def cut(prompt: str) -> str:
    """Return a prompt as a harness shows it."""
    return prompt if len(prompt) <= CUT else prompt[:CUT] + "..."


if __name__ == "__main__":
    main()
