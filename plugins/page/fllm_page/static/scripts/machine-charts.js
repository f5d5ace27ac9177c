/** Small live charts: one number of the server now, and its last minutes. */
(() => {
  "use strict";
  const { html, settings, useEffect, useRef, useState } = fllm;
  const HEIGHT = 96;
  const COLORS = ["--series-1", "--series-2"];

  /** Return the options of uPlot for series with these names; colours come from the styles. */
  function optionsOf(element, names, format, onCursor) {
    const style = getComputedStyle(element);
    const color = (name) => style.getPropertyValue(name).trim();
    const line = { stroke: color("--line"), width: 1 };
    const axis = { stroke: color("--soft"), grid: line, ticks: { show: false }, font: `11px ${style.fontFamily}` };
    return {
      width: element.clientWidth || 300,
      height: HEIGHT,
      padding: [6, 2, 8, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [
        { ...axis, show: false },
        { ...axis, size: 44, space: 30, values: (_, ticks) => ticks.map((tick) => format(tick)) },
      ],
      series: [
        {},
        ...names.map((name, at) => ({
          label: name,
          stroke: color(COLORS[at]),
          width: 2,
          dash: at ? [4, 3] : undefined,
          fill: at ? undefined : color("--series-fill"),
          points: { show: false },
          spanGaps: false,
        })),
      ],
      hooks: { setCursor: [(plot) => onCursor(plot.cursor.idx ?? null)] },
    };
  }

  /**
   * A chart. `times` are seconds, `series` is `[{name, values}]` with null for no value, `format` makes text of
   * a value. The text above the chart, and its label, say the values now or under the pointer.
   */
  function Chart({ title, times, series, format }) {
    const ref = useRef(null);
    const plot = useRef(null);
    const [cursor, setCursor] = useState(null);
    const names = series.map((each) => each.name).join();
    const theme = settings.theme.value;
    useEffect(() => {
      const make = () => {
        plot.current?.destroy();
        plot.current = new uPlot(optionsOf(ref.current, series.map((each) => each.name), format, setCursor), [[], ...series.map(() => [])], ref.current);
        plot.current.setData([times, ...series.map((each) => each.values)]);
      };
      make();
      const resize = new ResizeObserver(() => ref.current.clientWidth && plot.current.setSize({ width: ref.current.clientWidth, height: HEIGHT }));
      resize.observe(ref.current);
      const scheme = matchMedia("(prefers-color-scheme: dark)");
      scheme.addEventListener("change", make);
      return () => {
        resize.disconnect();
        scheme.removeEventListener("change", make);
        plot.current.destroy();
        plot.current = null;
      };
    }, [names, theme]);
    useEffect(() => plot.current?.setData([times, ...series.map((each) => each.values)]), [times]);
    const at = cursor !== null && cursor < times.length ? cursor : times.length - 1;
    const ago = times.length ? Math.round(times.at(-1) - times[at]) : 0;
    const show = (value) => (value === null || value === undefined ? "–" : format(value));
    const label = series.map(({ name, values }) => `${name} ${show(values.at(-1))}`).join(", ");
    return html`<figure class="chart"><figcaption><span>${title}</span> <span class="note">${ago ? `${ago} s ago` : ""}</span></figcaption>
      <p class="chart-values">${series.map(({ name, values }, index) => html`<span><strong>${show(values[at])}</strong>
        ${series.length > 1 && html`<span class="note"><i class=${`line-key series-${index + 1}`}></i>${name}</span>`}</span>`)}</p>
      <div ref=${ref} role="img" aria-label=${`${title}: ${label}`}></div></figure>`;
  }

  fllm.Chart = Chart;
})();
