"""Throughput and latency against concurrency, as a picture. matplotlib is imported when one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fllm.errors import ConfigError
from fllm_api.bench.figures import OUTPUT_RATE, TPOT_P50, TTFT_P50, Figure
from fllm_api.bench.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (
    (OUTPUT_RATE, "Output tokens per second", "more is better"),
    (TTFT_P50, "Time to first token, ms", "median; less is better"),
    (TPOT_P50, "Time per output token, ms", "median; less is better"),
)
OURS = "#d1495b"
PEERS = ("#2e4057", "#66a182", "#edae49", "#8d96a3", "#7768ae")
INK = "#333333"

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#bbbbbb",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.grid.axis": "y",
    "grid.color": "#e8e8e8",
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "path",  # the same letters everywhere
    "svg.hashsalt": "furiosa-llm",  # the same figures give the same file
}


def check_plot(file: Path) -> None:
    """Raises `ConfigError` where no picture can be drawn there, before anything is measured."""
    if file.suffix not in (".svg", ".png"):
        raise ConfigError(f"--plot {file}: the name must end in .svg or .png")
    if not file.parent.is_dir():
        raise ConfigError(f"--plot {file}: there is no directory {str(file.parent)!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("--plot needs matplotlib: pip install 'furiosa-llm-server[plot]'") from error


def draw(report: Report, file: Path) -> None:
    """Draw a throughput report; the band around a line holds the rounds."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Picture

    with mpl.rc_context(STYLE):
        picture = Picture(figsize=(10, 3.6), layout="constrained", facecolor="white")
        panels: list[Axes] = list(picture.subplots(1, len(PANELS)))
        for axes, (figure, title, remark) in zip(panels, PANELS, strict=True):
            _panel(axes, report, figure)
            axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=20)
            axes.text(0, 1.04, remark, transform=axes.transAxes, fontsize=9, color="#777777")
        lines, names = panels[0].get_legend_handles_labels()
        picture.legend(lines, names, loc="outside lower center", ncols=len(names), frameon=False)
        metadata = {"Date": None} if file.suffix == ".svg" else None
        picture.savefig(file, dpi=160, metadata=metadata)


def _panel(axes: Axes, report: Report, figure: Figure) -> None:
    shown: list[int] = sorted({result.concurrency for result in report.results})
    for place, server in enumerate(report.servers):
        ours = place == 0
        results = [result for result in report.of(server.name) if figure.name in result.medians]
        results.sort(key=lambda result: result.concurrency)
        at = [result.concurrency for result in results]
        color = OURS if ours else PEERS[(place - 1) % len(PEERS)]
        axes.plot(
            at,
            [result.medians[figure.name] for result in results],
            color=color,
            label=server.name,
            linewidth=2.6 if ours else 1.6,
            marker="o",
            markersize=6 if ours else 4,
            zorder=4 if ours else 3,
        )
        rounds = [[each[figure.name] for each in result.rounds if figure.name in each] for result in results]
        axes.fill_between(at, [*map(min, rounds)], [*map(max, rounds)], color=color, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [str(count) for count in shown])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("requests at once")
    axes.set_ylim(bottom=0)
