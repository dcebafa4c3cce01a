"""Maintenance: find damage, remove garbage, rebuild the index, tell a copy from its original."""

from __future__ import annotations

from mltraq_ds.store.checking import check
from mltraq_ds.store.identity import renew_store_id
from mltraq_ds.store.rebuilding import rebuild_index
from mltraq_ds.store.report import Finding, RebuildReport, Report, SweepReport
from mltraq_ds.store.sweeping import sweep

__all__ = ["Finding", "RebuildReport", "Report", "SweepReport", "check", "rebuild_index", "renew_store_id", "sweep"]
