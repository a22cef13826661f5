"""From a failed expectation to a sentence: what was asked, how many frames fail, which setting, which keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult

SHOWN_KEYS = 20


@dataclass(frozen=True)
class Finding:
    """One expectation that does not hold.

    Attributes:
        severity: ``critical`` or ``warning``.
        message: the whole sentence.
        keys: keys of failing frames (or names of sources), at most ``SHOWN_KEYS``.
    """

    severity: str
    message: str
    keys: tuple[str, ...]


def finding(result: ExpectationValidationResult, table: pd.DataFrame, name_column: str) -> Finding:
    """Describe a failed result on ``table``, whose rows are named by ``name_column`` (``key`` or ``source``)."""
    config = result.expectation_config
    assert config is not None
    settings = (config.meta or {}).get("settings", [])
    severity = str(getattr(config.severity, "value", config.severity) or "critical")
    trouble = _exception(result)
    rows: object = [] if trouble else failing_rows(config.type, config.kwargs, result.result, table)
    keys = tuple(str(key) for key in table.loc[rows, name_column].head(SHOWN_KEYS))
    parts = [claim(config.type, config.kwargs), trouble or _extent(config.kwargs, result.result)]
    if settings:
        parts.append(f"set by {' and '.join(settings)} in params.yaml")
    message = "; ".join(parts)
    if keys:
        message += ": " + ", ".join(keys)
        message += " …" if (result.result.get("unexpected_count") or 0) > len(keys) else ""
    return Finding(severity, message, keys)


class Arguments(TypedDict, total=False):
    """What an expectation is given, as Great Expectations names it."""

    column: str
    column_A: str
    column_B: str
    min_value: float | None
    max_value: float | None
    strict_min: bool
    mostly: float
    regex: str
    value_set: list[object]
    row_condition: object


class Result(TypedDict, total=False):
    """What Great Expectations found: how many rows fail, of how many, some of their values, or one for the column."""

    unexpected_count: int
    element_count: int
    observed_value: object
    partial_unexpected_list: list[object] | None


def claim(kind: str, arguments: Arguments) -> str:
    """What an expectation of this kind asks, in one clause."""
    column = arguments.get("column", "")
    clauses = {
        "expect_table_row_count_to_be_between": "number of rows" + _bounds(arguments),
        "expect_column_values_to_be_between": column + _bounds(arguments),
        "expect_column_value_lengths_to_be_between": f"length of {column}" + _bounds(arguments),
        "expect_column_unique_value_count_to_be_between": f"number of different {column}s" + _bounds(arguments),
        "expect_column_values_to_be_unique": f"{column} must be unique",
        "expect_column_values_to_not_be_null": f"{column} must be there",
        "expect_column_values_to_be_null": f"{column} must be empty",
        "expect_column_values_to_match_regex": f"{column} must match {arguments.get('regex')}",
        "expect_column_values_to_be_in_set": f"{column} must be one of {arguments.get('value_set')}",
        "expect_column_pair_values_a_to_be_greater_than_b": (
            f"{arguments.get('column_A')} must be at least {arguments.get('column_B')}"
        ),
    }
    condition = arguments.get("row_condition")
    return clauses[kind] + (f" where {_condition(condition)}" if condition is not None else "")


def failing_rows(kind: str, arguments: Arguments, result: Result, table: pd.DataFrame) -> pd.Index:
    """Rows of ``table`` that hold one of the unexpected values that the result lists.

    Expectations on values depend on nothing but the value, so every row with a listed value fails. Asking Great
    Expectations for the row of each failure instead costs about 50 µs a row: minutes on a million rows.
    """
    if kind == "expect_column_values_to_not_be_null":
        return table.index[table[arguments["column"]].isna()][:SHOWN_KEYS]
    listed = result.get("partial_unexpected_list") or []
    if not listed:
        return table.index[:0]
    if "column" in arguments:
        mask = table[arguments["column"]].isin(listed)
    else:
        first, second = table[arguments["column_A"]], table[arguments["column_B"]]
        pairs = [pair for pair in listed if isinstance(pair, tuple | list)]
        mask = first.isin([pair[0] for pair in pairs]) & second.isin([pair[1] for pair in pairs])
    return table.index[mask][:SHOWN_KEYS]


def _bounds(arguments: Arguments) -> str:
    least, most = arguments.get("min_value"), arguments.get("max_value")
    strict = arguments.get("strict_min", False)
    parts = [f"{'>' if strict else '≥'} {least:g}"] if least is not None else []
    parts += [f"≤ {most:g}"] if most is not None else []
    return " must be " + " and ".join(parts)


def _condition(condition: Any) -> str:
    """``reader == hypersim`` from a Great Expectations condition."""
    data = condition if isinstance(condition, dict) else condition.dict()
    return f"{data['column']['name']} {data['operator']} {data['parameter']}"


def _extent(arguments: Arguments, result: Result) -> str:
    if "unexpected_count" not in result:
        return f"it is {result.get('observed_value')}"
    count, total = result["unexpected_count"], result["element_count"]
    share = count / total if total else 0.0
    allowed = 1.0 - arguments.get("mostly", 1.0)
    return f"{count} of {total} fail ({share:.1%}, allowed {allowed:.1%})"


def _exception(result: ExpectationValidationResult) -> str:
    """Message of the exception that kept an expectation from being computed, if any (a missing column, mostly)."""
    info = result.exception_info or {}
    entries = [info] if "raised_exception" in info else list(info.values())
    messages = [str(entry["exception_message"]) for entry in entries if entry.get("raised_exception")]
    return "it could not be computed: " + messages[0].strip() if messages else ""
