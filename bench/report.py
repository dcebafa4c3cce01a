"""Report: what was measured, as JSON, as a table and as a plot, with the machine and the date."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.row import OURS, Row
from bench.rows import ROWS
from bench.runner import Figure, Figures, targets_of

__all__ = ["write_report"]

_LIBRARIES = (
    "mltraq-ds", "numpy", "pandas", "pyarrow", "sqlalchemy", "joblib", "safetensors", "h5py", "zarr", "mltraq",
    "mlflow",
)  # fmt: skip


def write_report(figures: Sequence[Figures], folder: Path | None) -> str:
    """Return the tables; with a folder also write ``benchmarks.json``, ``table.inc``, ``plot.png``."""
    about = machine()
    text = "\n".join([_about_text(about), "", *_target_table(figures), "", *_figure_tables(figures)])
    if folder is None:
        return text
    folder.mkdir(parents=True, exist_ok=True)
    figures = _with_earlier(figures, folder / "benchmarks.json")
    text = "\n".join([_about_text(about), "", *_target_table(figures), "", *_figure_tables(figures)])
    rows = [_as_json(each) for each in figures]
    (folder / "benchmarks.json").write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    (folder / "table.inc").write_text(text + "\n")
    plot(figures, folder / "plot.png")
    return text


def _with_earlier(figures: Sequence[Figures], path: Path) -> list[Figures]:
    """Return the figures and, of rows not measured now, those of an earlier run: all of them take an hour."""
    found = {each.row.name: each for each in figures}
    earlier = json.loads(path.read_text())["rows"] if path.exists() else []
    for row in ROWS:
        for kept in earlier:
            if kept["name"] == row.name and row.name not in found:
                found[row.name] = _from_json(row, kept)
    return [found[row.name] for row in ROWS if row.name in found]


def _from_json(row: Row, kept: dict[str, Any]) -> Figures:
    figures = Figures(row, kept["size"], skipped=kept["skipped"])
    for found in kept["figures"]:
        figures.found[found["label"], found["contestant"]] = Figure(
            seconds=found["seconds"],
            rss_bytes=[found["extra_rss_bytes"]],
            anonymous_bytes=found["extra_anonymous_bytes"],
            disk_bytes=found["disk_bytes"],
        )
    return figures


def machine() -> dict[str, Any]:
    """Describe the machine, without its name and its paths."""
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "libraries": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _about_text(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    return (
        f"Measured on {about['date']}: {about['processor']}, {about['cores']} cores, "
        f"{about['memory_gib']} GiB of memory, {about['system']}, Python {about['python']}; {versions}."
    )


def _target_table(figures: Sequence[Figures]) -> list[str]:
    lines = ["| work | figure | of | wanted | reached | |", "|---|---|---|---|---|---|"]
    for each, target, reached in targets_of(figures):
        limit = target.factor if target.reference else target.seconds
        if reached is None:
            shown, verdict = "–", "not measured"
        else:
            shown = f"{reached:.2f} ×" if target.reference else _time(reached)
            verdict = "met" if reached <= limit else "missed"
        lines.append(
            f"| {each.row.title} | {target.label} | {target.contestant} | {target.text()} | {shown} | {verdict} |"
        )
    return lines


def _figure_tables(figures: Sequence[Figures]) -> list[str]:
    lines: list[str] = []
    for each in figures:
        lines += [f"### {each.row.title}", ""]
        labels = list(dict.fromkeys(label for label, _ in each.found))
        for label in labels:
            reference = each.reference(label)
            lines += [
                f"| {label} | median | spread | ratio | extra memory | of it anonymous | on disk |",
                "|---|--:|--:|--:|--:|--:|--:|",
            ]
            named = [(name, figure) for (of, name), figure in each.found.items() if of == label and figure.seconds]
            for name, figure in sorted(named, key=lambda pair: pair[1].median):
                found = figure.as_json(reference)
                ratio = "" if found["ratio"] is None else f"{found['ratio']:.2f}"
                lines.append(
                    f"| {f'**{name}**' if name.startswith(OURS) else name} | {_time(found['median_s'])} | "
                    f"{_time(found['min_s'])} – {_time(found['max_s'])} | {ratio} | "
                    f"{_bytes(found['extra_rss_bytes'])} | {_bytes(found['extra_anonymous_bytes'])} | "
                    f"{_bytes(found['disk_bytes'])} |"
                )
            lines.append("")
        lines += [f"Left out: {reason}.\n" for reason in each.skipped.values()]
    return lines


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 0.01 else f"{seconds * 1000:,.0f} ms"


def _bytes(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 1024:,.0f} KiB"


def _as_json(each: Figures) -> dict[str, Any]:
    found = [
        {"label": label, "contestant": name, **figure.as_json(each.reference(label))}
        for (label, name), figure in each.found.items()
        if figure.seconds
    ]
    targets = [
        {
            "label": target.label,
            "contestant": target.contestant,
            "wanted": target.text(),
            "reached": each.reached(target),
        }
        for target in each.row.targets
    ]
    return {
        "name": each.row.name,
        "title": each.row.title,
        "size": dict(each.size),
        "figures": found,
        "targets": targets,
        "skipped": each.skipped,
    }


def plot(figures: Sequence[Figures], path: Path) -> None:
    """Draw one panel for each label of each row; nothing without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("agg")
    from matplotlib import pyplot

    panels = [panel for each in figures for panel in _panels(each)]
    if not panels:
        return
    columns = 3
    lines = -(-len(panels) // columns)
    canvas, axes = pyplot.subplots(lines, columns, figsize=(15, 2.6 * lines), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (title, named) in zip(axes.flat, panels, strict=False):
        _draw(axis, title, named)
    canvas.tight_layout()
    canvas.savefig(path, dpi=80, metadata={"Software": None})
    pyplot.close(canvas)


def _panels(each: Figures) -> list[tuple[str, list[tuple[str, Figure]]]]:
    """Return title and contestants, slowest first, of each label for which there is something to compare with."""
    panels = []
    for label in dict.fromkeys(label for label, _ in each.found):
        named = [(name, figure) for (of, name), figure in each.found.items() if of == label and figure.seconds]
        if len(named) > 1:
            panels.append((f"{each.row.name}: {label}", sorted(named, key=lambda pair: -pair[1].median)))
    return panels


def _draw(axis: Any, title: str, named: Sequence[tuple[str, Figure]]) -> None:
    """Draw a dot for each median and a line for the spread; a logarithmic bar would have no honest beginning."""
    for place, (name, figure) in enumerate(named):
        colour = "tab:orange" if name.startswith((OURS, "beside")) else "tab:gray"
        axis.plot([min(figure.seconds), max(figure.seconds)], [place, place], color=colour, linewidth=2, alpha=0.5)
        axis.plot([figure.median], [place], "o", color=colour, markersize=7)
        axis.annotate(
            _time(figure.median),
            (figure.median, place),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            annotation_clip=False,
        )
    shown = [second for _, figure in named for second in figure.seconds]
    axis.set_xscale("log")
    axis.set_xlim(min(shown) / 2, max(shown) * 2)
    axis.set_ylim(-0.6, len(named) - 0.2)
    axis.set_yticks(range(len(named)), [name for name, _ in named])
    axis.xaxis.set_minor_formatter("")
    axis.xaxis.set_major_formatter(lambda second, _: f"{second * 1000:g} ms")
    axis.grid(axis="x", which="major", alpha=0.3)
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=8)
