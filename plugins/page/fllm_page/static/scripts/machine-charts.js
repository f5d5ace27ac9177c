/** Small live charts: one number of the server now, and its last minutes. */
(() => {
  "use strict";
  const { html, useState } = fllm;
  const [WIDTH, HEIGHT] = [300, 80]; // of the drawing, which is stretched to the chart's width
  const MIN_SECONDS = 60;

  /** Return the end of an axis: a round number that is at least `high`, and whose half is round too. */
  function endOf(high) {
    if (!(high > 0)) return 1;
    const power = 10 ** Math.floor(Math.log10(high));
    return power * [1, 2, 4, 6, 10].find((each) => each * power >= high * 0.999);
  }

  /** Return the path of a line; it has a gap where a value is missing. */
  function lineOf(values, x, y) {
    let isOpen = false;
    const steps = values.map((value, at) => {
      if (value === null || value === undefined) return (isOpen = false), "";
      const step = `${isOpen ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      isOpen = true;
      return step;
    });
    return steps.join("");
  }

  /**
   * A chart. `times` are seconds, `series` is `[{name, values}]` with null for no value, `format` makes text of
   * a value. The text above the chart, and its label, say the values now or under the pointer.
   */
  function Chart({ title, times, series, format, least = 0 }) {
    const [cursor, setCursor] = useState(null);
    const last = times.length - 1;
    const span = last >= 0 ? Math.max(times[last] - times[0], MIN_SECONDS) : MIN_SECONDS;
    const end = endOf(Math.max(least, ...series.flatMap(({ values }) => values.map((value) => value ?? 0))));
    const x = (at) => WIDTH * (1 - (times[last] - times[at]) / span);
    const y = (value) => HEIGHT * (1 - value / end);
    const at = cursor !== null ? Math.min(cursor, last) : last;
    const ago = last >= 0 ? Math.round(times[last] - times[at]) : 0;
    const show = (value) => (value === null || value === undefined ? "–" : format(value));
    const label = series.map(({ name, values }) => `${name} ${show(values[last])}`).join(", ");
    const first = lineOf(series[0].values, x, y);
    const isWhole = first.lastIndexOf("M") === 0; // a line with gaps has no area
    const start = series[0].values.findIndex((value) => value !== null);
    const point = (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      const time = times[last] - span * (1 - (event.clientX - box.left) / box.width);
      const found = times.findIndex((each) => each >= time);
      setCursor(found < 0 ? last : found);
    };
    return html`<figure class="chart"><figcaption>
      <span>${title}</span> <span class="note">${ago ? `${ago} s ago` : ""}</span></figcaption>
      <p class="chart-values">${series.map(({ name, values }, index) => html`<span><strong>${show(values[at])}</strong>
        ${series.length > 1 && html`<span class="note"><i class=${`line-key series-${index + 1}`}>
          </i>${name}</span>`}</span>`)}</p>
      <div class="plot"><div class="ticks" aria-hidden="true"><span>${format(end)}</span><span>${format(end / 2)}</span>
        <span>${format(0)}</span></div>
        <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${`${title}: ${label}`}
          onPointerMove=${point} onPointerLeave=${() => setCursor(null)}>
          ${[0, 0.5, 1].map((part) => html`<path class="grid" d=${`M0 ${HEIGHT * part}H${WIDTH}`} />`)}
          ${isWhole && html`<path class="area" d=${`${first}V${HEIGHT}H${x(start).toFixed(1)}Z`} />`}
          ${series.map(({ values }, index) => html`<path class=${`line series-${index + 1}`} d=${lineOf(values, x, y)} />`)}
          ${cursor !== null && html`<path class="cursor" d=${`M${x(at).toFixed(1)} 0V${HEIGHT}`} />`}</svg></div></figure>`;
  }

  fllm.Chart = Chart;
})();
