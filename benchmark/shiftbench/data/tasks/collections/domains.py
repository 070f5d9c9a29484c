"""Leave one domain out, on the five data sets of DomainBed (arXiv 2007.01434).

A task for every domain: trained on the others, which are one set here, and tested on the whole of
it. As in DomainBed 80 % of every class are trained on; half of the rest is ID validation, by which
DomainBed chooses its models ("training-domain validation set"), half ID test, which it has not.
"""

from __future__ import annotations

from shiftbench.data.prompts import FROM_DATA, SPACED
from shiftbench.data.sources.builtin.domains import LAYOUTS, Domains, Name
from shiftbench.data.tasks.definition import EvaluationSet, Task

TITLE = "Domain generalisation: one domain left out"


def _spelled(domain: str) -> str:
    """The name of a domain in a task's name: ``Real World`` is ``real-world``."""
    return domain.lower().replace(" ", "-").replace("_", "-")


def _left_out(dataset: Name, domain: str) -> Task:
    others = tuple(name for name in LAYOUTS[dataset].counts if name != domain)

    def part(start: float, end: float) -> Domains:
        return Domains(dataset=dataset, domains=others, part=(start, end))

    return Task(
        name=f"{dataset}-{_spelled(domain)}",
        classes=FROM_DATA,
        templates=SPACED,
        train=part(0, 0.8),
        id_val=part(0.8, 0.9),
        id_test=EvaluationSet(source=part(0.9, 1)),
        shifts={
            _spelled(domain): EvaluationSet(source=Domains(dataset=dataset, domains=(domain,)))
        },
    )


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _left_out(dataset, domain)
        for dataset, layout in LAYOUTS.items()
        for domain in layout.counts
    )
}
