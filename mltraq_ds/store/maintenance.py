"""Maintenance: find damage, remove garbage, rebuild the index, tell a copy from its original."""

from __future__ import annotations

from mltraq_ds.store.rebuilding import rebuild_index
from mltraq_ds.store.report import Finding, RebuildReport, Report, SweepReport

__all__ = ["Finding", "RebuildReport", "Report", "SweepReport", "rebuild_index"]
