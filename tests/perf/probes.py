"""What a searched linear probe costs: trials on features, against each on images encoded anew.

    python -m tests.perf.probes [--trials 64]

The random trials of WiSE-FT's linear classifiers (App. D.3: rate, weight decay, label smoothing,
batch) of 50 steps each. One pass over the images is counted once here, and once a trial in the
reference, which fits its head by a plain loop on features that a ``DataLoader`` has just decoded
and the tower encoded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import optuna
import torch
from shiftbench.data.batches import global_batch
from shiftbench.data.images import ImageSet
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.search.space import draw
from shiftbench.execution.search.trial import Trials
from shiftbench.execution.setup import Setup
from shiftbench.execution.workspace import Workspace
from shiftbench.methods.search import Values
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from tests.perf.measurement import Measurement, lines
from tests.perf.trials import Decoded

SUITE = """
data: miniature
backbones: [miniature]
tasks: [imagenet]
methods:
  probe:
    method: tuned
    of: linear-probe
    settings: {batch_size: 64}
    space:
      lr: {kind: log-uniform, low: 1e-6, high: 1}
      weight_decay: {kind: log-uniform, low: 1e-4, high: 1}
      label_smoothing: {kind: uniform, low: 0, high: 0.25}
      batch_size: {kind: choice, values: [64, 128, 256]}
    search: {n_trials: 64, inner_steps: 50, sampler: random, scheduler: none, finalists: 0}
"""
STEPS, MEASURED, REENCODED = 50, 8, 2


def measure(trials: int = 64) -> list[Measurement]:
    """Both; of the reference two trials are measured, of ours eight."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "suite.yaml"
        file.write_text(SUITE)
        plan = Plan.build(Suite.load(file))
    setup = Setup("perf", plan.runs, Path("perf"), "miniature", plan.suite.resources, Remarks())
    (run,) = plan.runs.values()
    workspace = Workspace(setup, torch.device("cpu"))
    warm = Trials(workspace, run)

    def ours(values: Values) -> float:
        warm.start(values, seed=0)
        return warm.advance(STEPS).score

    model, preprocessing = workspace.copied(run), workspace.backbone(run).preprocessing
    train, (measured, images) = (
        workspace.data(run).train,
        workspace.ood_val(run, run.search.ood_val),  # type: ignore[union-attr, arg-type]
    )

    def encoded(of: ImageSet) -> Tensor:
        loader = DataLoader(Decoded(of, preprocessing, [(i, i) for i in range(len(of))]), 256)
        with torch.inference_mode():
            return torch.cat([model.features(inputs) for inputs, _ in loader])

    def papers(values: Values) -> None:
        features, held_out = encoded(train).clone(), encoded(images)
        head = torch.nn.Linear(features.shape[1], len(workspace.data(run).classes))
        optimizer = torch.optim.AdamW(
            head.parameters(), lr=float(values["lr"]), weight_decay=float(values["weight_decay"])
        )
        labels = torch.from_numpy(train.labels)
        for step in range(STEPS):
            _, indices = global_batch(len(train), int(values["batch_size"]), 0, step)
            logits = head(features[torch.from_numpy(indices)])
            smoothing = float(values["label_smoothing"])
            loss = cross_entropy(logits, labels[indices], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.inference_mode():
            head(held_out).argmax(dim=1)

    def seconds(work: object, values: Values) -> float:
        begun = time.process_time()
        work(values)  # type: ignore[operator]
        return time.process_time() - begun

    points = [draw(warm.search, seed) for seed in range(MEASURED)]
    ours(points[0])  # which encodes what no earlier run has
    begun = time.process_time()
    encoded(train), encoded(images)
    one_pass = time.process_time() - begun
    each, theirs = [], []
    for i, values in enumerate(points):
        each.append(seconds(ours, values))
        if i < REENCODED:
            theirs.append(seconds(papers, values))
    warm.close()
    note = (
        f"processor time; a pass {one_pass:.2f} s, a trial {median(each):.3f} s, "
        f"{median(theirs):.2f} s in the reference; {measured.name} of OOD validation"
    )
    return [
        Measurement(
            f"{trials} trials of a linear probe",
            one_pass + trials * median(each),
            trials * median(theirs),
            "each on images encoded anew",
            10,
            faster=True,
            note=note,
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    print("\n".join(lines(measure(parser.parse_args().trials))))


if __name__ == "__main__":
    main()
