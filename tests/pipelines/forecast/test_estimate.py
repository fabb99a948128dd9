"""The estimator: exact where all is seen, fair where it is not, and its intervals hold."""

from __future__ import annotations

import numpy as np
import pytest

from framebank.features.decoding.probe import Probe
from framebank.features.video import VideoRef
from framebank.pipelines.forecast.estimate import Estimate, draw, forecast, priced, probing_order


def refs_of(sizes: list[int]) -> list[VideoRef]:
    return [VideoRef(f"v{i}", f"/clips/v{i}", size, "1") for i, size in enumerate(sizes)]


def good(rows: int, **fields: float) -> Probe:
    return Probe(rows, rows, 25 * rows, rows / 2, "h264", 1000, 0.25 * rows, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 19, 20, 45, 399, 400])
def test_few_clips_are_all_drawn_and_the_totals_are_exact(count: int) -> None:
    refs = refs_of([1000 + 7 * i for i in range(count)])
    strata = draw(refs, most=400)
    order = probing_order(strata)
    assert sorted(ref.video_id for ref in order) == sorted(ref.video_id for ref in refs)
    probes = {ref.video_id: good(i + 1) for i, ref in enumerate(refs)}
    probes["v0"] = Probe(error_class="corrupt")
    found = forecast(strata, probes)
    rows = sum(i + 1 for i in range(1, count))
    assert found.exact and found.probed == count and found.classes == {"corrupt": 1}
    assert found.totals["rows"] == Estimate(rows, rows, rows)
    assert found.totals["quarantined"] == Estimate(1, 1, 1)
    assert found.totals["done"] == Estimate(count - 1, count - 1, count - 1)
    assert found.totals["decode_s"].value == pytest.approx(0.25 * rows)


def test_the_same_input_gives_the_same_sample_in_whatever_order_it_comes() -> None:
    refs = refs_of([int(s) for s in np.random.default_rng(0).integers(1, 10**6, 3000)])
    one = [ref.video_id for ref in probing_order(draw(refs))]
    other = [ref.video_id for ref in probing_order(draw(refs[::-1]))]
    assert one == other and len(set(one)) == len(one) == 400


def test_a_sample_is_fair_and_its_interval_holds_the_truth() -> None:
    """Of 95 % intervals over 30 made inputs nearly all must hold."""
    random = np.random.default_rng(1)
    held, errors = 0, []
    for trial in range(30):
        seconds = random.lognormal(3, 1, 3000)
        sizes = (seconds * random.lognormal(12, 0.6, 3000)).astype(int) + 1
        bad = random.random(3000) < 0.05
        rows = np.where(bad, 0, (2 * seconds).astype(int) + 1)
        refs = [VideoRef(f"{trial}-{i}", "/x", int(size), "1") for i, size in enumerate(sizes)]
        number = {ref.video_id: i for i, ref in enumerate(refs)}
        strata = draw(refs)
        probes = {
            ref.video_id: Probe(error_class="corrupt")
            if bad[number[ref.video_id]]
            else good(int(rows[number[ref.video_id]]))
            for ref in probing_order(strata)
        }
        estimate = forecast(strata, probes).totals["rows"]
        held += estimate.low <= rows.sum() <= estimate.high
        errors.append(estimate.value / rows.sum() - 1)
    assert held >= 26
    assert abs(np.mean(errors)) < 0.02 and np.std(errors) < 0.05


def test_a_rule_that_gives_every_clip_the_same_does_not_follow_the_bytes() -> None:
    refs = refs_of([int(s) for s in np.random.default_rng(2).lognormal(12, 2, 10_000)])
    strata = draw(refs)
    found = forecast(strata, {ref.video_id: good(8) for ref in probing_order(strata)})
    assert found.totals["rows"].value == pytest.approx(80_000)
    assert found.totals["rows"].high == pytest.approx(80_000)
    assert not found.exact


def test_none_seen_in_a_sample_is_not_none_at_all() -> None:
    strata = draw(refs_of([1000] * 4000))
    found = forecast(strata, {ref.video_id: good(2) for ref in probing_order(strata)})
    assert found.totals["quarantined"] == Estimate(0, 0, 3 * 4000 / 400)


def test_probing_that_stops_half_way_leaves_a_share_of_every_stratum() -> None:
    refs = refs_of([int(s) for s in np.random.default_rng(3).lognormal(12, 1, 2000)])
    strata = draw(refs)
    half = {ref.video_id for ref in probing_order(strata)[:200]}
    for stratum in strata:
        seen = sum(ref.video_id in half for ref in stratum.drawn)
        assert abs(seen - len(stratum.drawn) / 2) <= 1


def test_what_does_not_fit_is_judged_by_its_bytes() -> None:
    refs = refs_of([1000] * 30 + [60_000])
    strata = draw(refs, fits=lambda ref: ref.size_bytes < 3000)
    order = probing_order(strata)
    assert len(order) == 30
    found = forecast(strata, {ref.video_id: good(2) for ref in order})
    assert found.totals["rows"].value == pytest.approx(60 + 120)
    assert not found.exact


def test_decoding_that_was_not_measured_has_the_price_of_its_codec() -> None:
    probes = {
        "a": Probe(1, 1, 100, 4, "h264", 1000, 1.0),
        "b": Probe(1, 1, 100, 4, "h264", 2000, None),
        "c": Probe(1, 1, 100, 4, "vp9", 1000, 3.0),
        "d": Probe(1, 1, 10, 4, "av1", 1000, None),
        "e": Probe(error_class="corrupt"),
    }
    filled = priced(probes)
    assert filled["b"].decode_s == pytest.approx(2.0)
    assert filled["d"].decode_s == pytest.approx(0.2)
    assert filled["e"].decode_s == 0 and filled["a"] is probes["a"]


def test_no_clips_and_no_probes_are_no_error() -> None:
    assert forecast(draw([]), {}).totals == {}
    assert forecast(draw(refs_of([5, 6])), {}).totals == {}
