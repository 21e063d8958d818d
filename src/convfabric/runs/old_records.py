"""Records of runs from before they were typed, as this version writes them."""

from collections.abc import Callable
from typing import Any

from convfabric.errors import ArchiveError

Fields = dict[str, Any]


def modernised(before: Fields, where: str) -> Fields:
    """The fields of a record without a format number; ArchiveError where one is missing or of another kind.

    >>> modernised({"asked": "no ceiling"}, "record.json")
    {}
    """
    parts: dict[str, Callable[[Fields], Fields]] = {
        "data": _data,
        "fabric": lambda old: _network(old["fabric"]),
        "network": lambda old: _network(old["network"]),
        "cut": _cut,
        "tuning": _tuning,
        "exported": _exported,
        "exits": _exits,
    }
    needs = {"cut": "cut", "tuning": "network", "exits": "anytime"}
    try:
        found = {name: part(before) for name, part in parts.items() if before.get(needs.get(name, name))}
        plan = {"plan": before["fabric"]["plan"]} if "plan" in (before.get("fabric") or {}) else {}
    except (KeyError, TypeError, AttributeError) as fault:
        raise ArchiveError(f"{where}: a record of an earlier version without {fault}.") from None
    return found | plan


def _data(old: Fields) -> Fields:
    data = dict(old["data"])
    return data | {"scored_split": data.pop("verdict")}


def _network(old: Fields) -> Fields:
    names = ("edges", "parameters", "macs", "activation_bytes", "peak_bytes", "score", "val_score", "seconds")
    return {name: old[name] for name in names}


def _cut(old: Fields) -> Fields:
    kept = {name: old["cut"][name] for name in ("predicted_ms", "prediction_error")}
    return {**kept, "requested": old["asked"], "ceilings": old["budget"], "worth": old["worth"]}


def _tuning(old: Fields) -> Fields:
    network = old["network"]
    return {
        "after_pruning": network["as_cut"],
        "after_recalibration": network["refreshed"],
        "fine_tuned": network.get("finetuned", True),
    }


def _exported(old: Fields) -> Fields:
    exported, latency = old["exported"], dict(old["exported"]["latency"])
    latency["interquartile_range_ms"] = latency.pop("spread_ms")
    latency["fastest_block_ms"] = latency.pop("quickest_ms", latency["median_ms"])
    return {name: exported[name] for name in ("largest_difference", "onnx_bytes")} | {"latency": latency}


def _exits(old: Fields) -> Fields:
    anytime = old["anytime"]
    rows = [row | {"score": row["miou"] if "miou" in row else row["accuracy"]} for row in anytime["exits"]]
    each = [{name: row[name] for name in ("name", "score", "macs")} for row in rows]
    return {
        "split": anytime["split"],
        "each": each,
        "budgeted": anytime.get("budgeted") or [],
        "recommended": anytime.get("recommended"),
    }
