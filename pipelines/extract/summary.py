"""What `framebank extract` says of a run that has ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from framebank.features.extraction.balance import Balance
from framebank.features.network.own_files import is_own
from framebank.features.spec import PICTURE_DTYPES
from framebank.pipelines.extract.targets import Target

# A cache and the summary of the run that filled it.
Ended = tuple[Target, dict[str, Any]]


def result_of(ended: Sequence[Ended]) -> dict[str, Any]:
    """Return the summary of the only cache, or those of several by name."""
    (first, summary), *more = ended
    return {target.name: one for target, one in ended} if more or first.name else summary


def summary_lines(target: Target, summary: Mapping[str, Any], *, check: str) -> Iterator[str]:
    """Yield the lines for people; `check`: how clips were to be checked."""
    if target.name:
        yield f"{target.name}:"
    done, quarantined = summary["already_done"], summary["already_quarantined"]
    if "frames" not in summary:
        yield (
            f"nothing to do: of {summary['inputs']} videos {done} are done and {quarantined} "
            "quarantined; nothing was decoded or written"
        )
        return
    yield (
        f"{summary['inputs']} videos: {summary['done']} done, {summary['quarantined']} quarantined,"
        f" {done + quarantined} from earlier runs"
    )
    yield (
        f"{summary['frames']} frames, {summary['bytes'] / 2**20:.1f} MiB in {summary['shards']} "
        f"shards of {target.cache}"
    )
    if summary["random_weights"]:
        yield f"  made with RANDOM weights ({summary['spec']['weights']})"
    if settled := summary["precision"]:
        yield f"  computed in {settled['precision']} ({settled['why']})"
    for name, count in summary["quarantined_by_class"].items():
        yield f"  quarantined as {name}: {count}"
    if summary["partial"]:
        yield f"  {summary['partial']} stored in part (--allow-partial)"
    if summary["capped"]:
        yield f"  {summary['capped']} cut off by --max-frames"
    if check == "sampled":
        yield (
            f"  {summary['sampled']} decoded, and so checked, only where rows needed it; the others"
            " wholly (--check sampled)"
        )
    yield from _balance_lines(summary, check=check)


def _balance_lines(summary: Mapping[str, Any], *, check: str) -> Iterator[str]:
    balance = Balance.from_json(summary["balance"])
    if balance.seen:
        yield f"  {balance.seen} of {balance.pictures} pictures seen before, not computed again"
    if balance.bound():
        yield f"  {balance.line()}; what would help: {balance.advice(tried=_tried(summary, check))}"


def _tried(summary: Mapping[str, Any], check: str) -> set[str]:
    """Return what of `Balance.advice` was done, or is not to be had."""
    spec, tried = summary["spec"], {f"--check {check}"}
    is_settled = summary["precision"] or spec["precision"] != "float32"  # measured, or chosen
    if is_settled or is_own(spec["backbone"]) or spec["dtype"] in PICTURE_DTYPES:
        tried.add("--precision bfloat16")
    if spec["dtype"] in PICTURE_DTYPES:  # there is no network
        tried |= {"a smaller --backbone", "a GPU"}
    return tried
