"""The Markdown of ``docs/performance.md``, of whatever was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_MEASURED = "not measured"


def markdown(results: Mapping[str, Any]) -> str:
    """A table of goals, and one of the details; cells without a measurement say so."""
    lines = ["| what | measured | goal |", "|---|---|---|"]
    lines += [f"| {what} | {_text(results, value)} | {goal} |" for what, value, goal in _ROWS]
    machine = results.get("machine", {})
    named = ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)
    lines += ["", f"Machine: {named}."]
    kernels = results.get("timeline", {}).get("compiled", {}).get("kernels", [])
    if kernels:
        lines += [
            "",
            "| kernel of a compiled bf16 step | share | ms | calls |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| `{k['name'][:60]}` | {k['share']:.1%} | {k['ms']:.2f} | {k['calls']:.0f} |"
            for k in kernels[:12]
        ]
    return "\n".join(lines) + "\n"


def _text(results: Mapping[str, Any], value: Any) -> str:
    try:
        return str(value(results))
    except (KeyError, TypeError, ZeroDivisionError):
        return NOT_MEASURED


def _step(results: Mapping[str, Any], name: str) -> float:
    return float(results["training"]["step"][name]["median"])


def _share(results: Mapping[str, Any], name: str) -> float:
    work = results["operations"]["training"] * results["sizes"]["batch"]
    return float(work / _step(results, name) / results["rates"]["matmul_bf16"])


def _times(results: Mapping[str, Any], reference: str, name: str) -> str:
    ours, theirs = _step(results, name), _step(results, reference)
    return f"{ours * 1e3:.1f} ms against {theirs * 1e3:.1f} ms: {theirs / ours:.2f} ×"


def _fed(results: Mapping[str, Any], decoder: str) -> str:
    found = results["fed"][decoder]
    free = sum(found["without_data"]) / 2
    more = found["step"] / free - 1
    return (
        f"{found['step'] * 1e3:.1f} ms against {free * 1e3:.1f} ms: {more:+.1%}, "
        f"{found['images_per_second']:,.0f} images/s, waited {found['waited']:.1%}"
    )


def _sweep(results: Mapping[str, Any], name: str) -> str:
    found = results["evaluation"]
    ours = found[name]["load"] + found[name]["compute"] + found["store_seconds"]
    work = 11 * found["images"] * results["operations"]["forward"]
    share = work / found[name]["compute"] / results["rates"]["matmul_bf16"]
    return (
        f"{ours:.1f} s (decoding once {found['store_seconds']:.1f} s, weights "
        f"{found[name]['load']:.1f} s, passes {found[name]['compute']:.1f} s) against "
        f"{found['papers_fp32']:.0f} s: {found['papers_fp32'] / ours:.1f} ×; passes at {share:.0%}"
    )


def _saft(results: Mapping[str, Any]) -> str:
    ours, dense = results["saft"]["saft"], results["saft"]["dense"]
    time = ours["step"]["median"] / dense["step"]["median"]
    state = ours["state_bytes"] / dense["state_bytes"]
    memory = ours["peak_gib_beyond_model"], dense["peak_gib_beyond_model"]
    return (
        f"{time:.2f} × the time, {state:.2%} of the state, {memory[0]:.2f} of {memory[1]:.2f} GiB"
    )


_ROWS: list[tuple[str, Any, str]] = [
    ("bf16 matrix products", lambda r: f"{r['rates']['matmul_bf16'] / 1e12:.0f} TFLOP/s", ""),
    (
        "TF32, fp32",
        lambda r: (
            f"{r['rates']['matmul_tf32'] / 1e12:.0f}, "
            f"{r['rates']['matmul_fp32'] / 1e12:.0f} TFLOP/s"
        ),
        "",
    ),
    (
        "copies",
        lambda r: (
            f"{r['rates']['copy'] / 1e12:.2f} TB/s on the GPU, "
            f"{r['rates']['upload'] / 1e9:.0f} GB/s to it"
        ),
        "",
    ),
    (
        "training step, papers' fp32 against ours compiled",
        lambda r: _times(r, "papers_fp32", "ours_bf16_compiled"),
        "≥ 4 ×",
    ),
    ("the same, not compiled", lambda r: _times(r, "papers_fp32", "ours_bf16"), ""),
    (
        "papers' loop with TF32 against ours compiled",
        lambda r: _times(r, "papers_tf32", "ours_bf16_compiled"),
        "",
    ),
    (
        "share of the bf16 rate, compiled",
        lambda r: f"{_share(r, 'ours_bf16_compiled'):.1%}",
        "≥ 45 %",
    ),
    ("share of the bf16 rate, not compiled", lambda r: f"{_share(r, 'ours_bf16'):.1%}", ""),
    (
        "first step, compiled",
        lambda r: f"{r['training']['ours_bf16_compiled_first_step']:.0f} s",
        "",
    ),
    ("fed from JPEGs, pil", lambda r: _fed(r, "pil"), "within 3 %"),
    ("fed from JPEGs, turbo", lambda r: _fed(r, "turbo"), "within 3 %"),
    ("11 alphas, compiled", lambda r: _sweep(r, "ours_bf16_compiled"), "≥ 8 ×, ≥ 60 %"),
    ("11 alphas, not compiled", lambda r: _sweep(r, "ours_bf16"), ""),
    ("SAFT against dense AdamW", _saft, "≤ 1.0 ×, 0.1 %, lower"),
    (
        "decoding a core, papers, pil, turbo",
        lambda r: (
            ", ".join(f"{r['decoding'][k]:,.0f}" for k in ("papers", "pil", "turbo")) + " images/s"
        ),
        "turbo ≥ 2.5 ×",
    ),
    (
        "GPU busy in a compiled step",
        lambda r: f"{r['timeline']['training_compiled']['busy']:.1%}",
        "",
    ),
    (
        "largest difference of a logit, bf16",
        lambda r: (
            f"{r['rounding']['bf16']['largest_difference']:.3f} "
            f"of a spread of {r['rounding']['spread']:.2f}"
        ),
        "",
    ),
]
