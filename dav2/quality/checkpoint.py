"""One run of Great Expectations: tables and suites in, results and Data Docs out.

The context is ephemeral: nothing but the Data Docs is written, and they go into the folder that is given. Nothing is
sent anywhere.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.data_context import EphemeralDataContext
    from great_expectations.expectations.expectation import Expectation

from dav2.quality.tables import QualityError

# Naming the failing rows inside the Data Docs costs about 50 µs per failure and expectation.
ROWS_NAMED_IN_DOCS = 100_000


@dataclass(frozen=True)
class Table:
    """A table to validate; ``name_column`` tells its rows apart (``key``, ``source``)."""

    name: str
    rows: pd.DataFrame
    name_column: str
    expectations: list[Expectation]


def import_great_expectations() -> ModuleType:
    """Import the library with its analytics off; takes seconds, so nothing else may import it at module level."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    return great_expectations


def run(tables: list[Table], docs: Path, run_name: str) -> dict[str, list[ExpectationValidationResult]]:
    """Validate ``tables`` and write their Data Docs to ``docs``.

    Returns:
        The results of each table by its name, in the order of its expectations' kinds as the library runs them.

    Raises:
        QualityError: an expectation has no result. The library drops expectations it cannot resolve and lets the
            rest pass, so the counts are compared here.
    """
    gx = import_great_expectations()
    context = _context(docs)
    results = {}
    for table in tables:
        outcome = _validate(gx, context, table, run_name)
        if len(outcome) != len(table.expectations):
            raise QualityError(
                f"suite '{table.name}' has {len(table.expectations)} expectations but {len(outcome)} results; "
                "the gate does not pass on checks that were not made"
            )
        results[table.name] = outcome
    context.build_data_docs()
    return results


def _context(docs: Path) -> EphemeralDataContext:
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={"docs": site},
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _validate(
    gx: ModuleType, context: EphemeralDataContext, table: Table, run_name: str
) -> list[ExpectationValidationResult]:
    asset = context.data_sources.add_or_update_pandas("manifests").add_dataframe_asset(table.name)
    batch = asset.add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(name=table.name, expectations=table.expectations)
    definition = gx.ValidationDefinition(name=table.name, data=batch, suite=context.suites.add(suite))
    result_format: dict[str, object] = {"result_format": "SUMMARY", "partial_unexpected_count": 20}
    if len(table.rows) <= ROWS_NAMED_IN_DOCS:
        result_format["unexpected_index_column_names"] = [table.name_column]
    checkpoint = gx.Checkpoint(
        name=table.name,
        validation_definitions=[context.validation_definitions.add(definition)],
        result_format=result_format,
    )
    outcome = context.checkpoints.add(checkpoint).run(
        batch_parameters={"dataframe": table.rows}, run_id=gx.RunIdentifier(run_name=run_name)
    )
    (validation,) = outcome.run_results.values()
    return list(validation.results)
