"""Compare our arithmetic with official code and print the largest differences.

    python -m tests.parity [--checkouts FOLDER]

FOLDER holds checkouts named ``wise-ft`` (mlfoundations), ``FLYP`` (locuslab), ``auto-ft`` (cchoi1),
``mergekit`` (arcee-ai), ``LiNeS`` (wang-kee), ``MergeLM`` (yule-BUAA), ``TPGM`` (PotatoTian),
``CaRot`` (MLAI-Yonsei), ``TRACER`` (HesamAsad), ``CLIPood`` (thuml), ``CLIP-LoRA`` (MaxZanella),
``FTP`` and ``Selective-Projection-Decay`` (GT-RIPL), ``ldifs_code`` (omegafragger),
``robust-finetuning`` (Coxy7), ``VRF`` (BeierZhu), ``dawin`` (naver-ai), ``CLAP`` (jusiro), ``LP++``
(FereshteShakeri, FewShot-CLIP-Strong-Baseline), ``Tip-Adapter`` (gaopengcuhk), ``CoOp``
(KaiyangZhou), ``PromptSRC`` (muzairkhattak) and ``wilds`` (p-lambda); what is not there is skipped
with a line that says so. The metrics of the installed ``wilds`` package are compared always. Exit
code 1 if a difference is more than rounding.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from tests.parity.comparisons import COMPARISONS
from tests.parity.differences import Difference
from tests.parity.heads import HEADS
from tests.parity.holding import HOLDING
from tests.parity.merging import MERGES
from tests.parity.prompts import PROMPTS
from tests.parity.trainings import TRAININGS
from tests.parity.wilds_metrics import of_checkout, wilds_metrics

ALL = (*COMPARISONS, *MERGES, *TRAININGS, *HOLDING, *HEADS, *PROMPTS)


def compare(checkouts: Path | None) -> Iterator[tuple[str, Difference] | str]:
    """The differences beside the name of what was compared with, and lines for what was not."""
    for difference in wilds_metrics():
        yield f"wilds {version('wilds')}, installed", difference
    for checkout, group in groupby(ALL, lambda comparison: comparison[0]):
        if (missing := _missing(checkouts, checkout)) is not None:
            subjects = (function.__name__.replace("_", " ") for *_, function in group)
            yield f"skipped: {checkout} ({', '.join(subjects)}): {missing}"
            continue
        for _, packages, function in group:
            for difference in function(checkouts / checkout / packages):
                yield checkout, difference
    if (missing := _missing(checkouts, "wilds")) is not None:
        yield f"skipped: wilds (metrics of a checkout): {missing}"
        return
    for difference in wilds_metrics(of_checkout(checkouts / "wilds")):
        yield "wilds", difference


def _missing(checkouts: Path | None, name: str) -> str | None:
    if checkouts is None:
        return "no --checkouts FOLDER"
    return None if (checkouts / name).is_dir() else f"no folder {checkouts / name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print; 0 if everything compared agrees."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("--checkouts", type=Path, metavar="FOLDER", help="of official checkouts")
    row = "{:24}  {:52}  {:>12}  {:>10}  {}"
    print(row.format("official", "compared", "largest diff", "of at most", ""))
    agree = True
    for found in compare(parser.parse_args(arguments).checkouts):
        if isinstance(found, str):
            print(found)
            continue
        official, difference = found
        agree &= difference.agrees
        largest, scale = f"{difference.largest:.2e}", f"{difference.scale:.4g}"
        verdict = "" if difference.agrees else "DIFFERS"
        print(row.format(official, difference.subject, largest, scale, verdict).rstrip())
    return 0 if agree else 1


if __name__ == "__main__":
    raise SystemExit(main())
