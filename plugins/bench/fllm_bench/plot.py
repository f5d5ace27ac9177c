"""Plot throughput and latency against concurrency. matplotlib is imported only to draw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fllm.errors import ConfigError
from fllm.extras import require_extra
from fllm_bench.metrics import OUTPUT_RATE, TPOT_P50, TTFT_P50, Metric
from fllm_bench.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (
    (OUTPUT_RATE, "Output tokens per second", "more is better"),
    (TTFT_P50, "Time to first token, ms", "median; less is better"),
    (TPOT_P50, "Time per output token, ms", "median; less is better"),
)
FIRST_COLOR = "#d1495b"
OTHER_COLORS = ("#2e4057", "#66a182", "#edae49", "#8d96a3", "#7768ae", "#4f9dbf", "#a0703c", "#c58bb0")
TEXT_COLOR = "#333333"

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": TEXT_COLOR,
    "axes.edgecolor": "#bbbbbb",
    "axes.labelcolor": TEXT_COLOR,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.grid.axis": "y",
    "grid.color": "#e8e8e8",
    "xtick.color": TEXT_COLOR,
    "ytick.color": TEXT_COLOR,
    "svg.fonttype": "path",  # looks the same with any fonts installed
    "svg.hashsalt": "furiosa-llm",  # the same report gives the same file
}


def check_plot(file: Path) -> None:
    """Raise `ConfigError` if no plot can be written to ``file``; call it before measuring."""
    if file.suffix not in (".svg", ".png"):
        raise ConfigError(f"--plot {file}: the name must end in .svg or .png")
    if not file.parent.is_dir():
        raise ConfigError(f"--plot {file}: the directory {str(file.parent)!r} does not exist")
    require_extra("plot", "--plot needs matplotlib")


def draw_plot(report: Report, file: Path) -> None:
    """Write a plot of a throughput report; the band around a line spans the rounds."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.6), layout="constrained", facecolor="white")
        panels: list[Axes] = list(figure.subplots(1, len(PANELS)))
        for axes, (metric, title, subtitle) in zip(panels, PANELS, strict=True):
            _draw_panel(axes, report, metric)
            axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=20)
            axes.text(0, 1.04, subtitle, transform=axes.transAxes, fontsize=9, color="#777777")
        lines, names = panels[0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), 5), frameon=False)
        metadata = {"Date": None} if file.suffix == ".svg" else None
        figure.savefig(file, dpi=160, metadata=metadata)


def _draw_panel(axes: Axes, report: Report, metric: Metric) -> None:
    concurrencies: list[int] = sorted({result.concurrency for result in report.results})
    for index, target in enumerate(report.targets):
        first = index == 0
        results = [result for result in report.results_of(target.name) if metric.name in result.medians]
        results.sort(key=lambda result: result.concurrency)
        x = [result.concurrency for result in results]
        color = FIRST_COLOR if first else OTHER_COLORS[(index - 1) % len(OTHER_COLORS)]
        axes.plot(
            x,
            [result.medians[metric.name] for result in results],
            color=color,
            label=target.name,
            linewidth=2.6 if first else 1.6,
            marker="o",
            markersize=6 if first else 4,
            zorder=4 if first else 3,
        )
        rounds = [[each[metric.name] for each in result.rounds if metric.name in each] for result in results]
        axes.fill_between(x, [*map(min, rounds)], [*map(max, rounds)], color=color, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(concurrencies, [str(each) for each in concurrencies])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("requests at once")
    axes.set_ylim(bottom=0)
