/** The phases of a request as bars: queue, prefill, decode. */
(() => {
  "use strict";
  const { html } = fllm;
  const PHASES = ["queue", "prefill", "decode"];

  /** Return a duration for people. */
  function seconds(value) {
    if (value === null || value === undefined) return "–";
    if (value < 0.0005) return "0 ms";
    return value < 1 ? `${Math.round(1000 * value)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`;
  }

  /** Bars of the phases; `start` and `span` place them on a shared axis in seconds. */
  function Bars({ phases, start = 0, span }) {
    let position = start;
    return html`<svg class="phases" width="100%" height="10" aria-hidden="true">${PHASES.map((name) => {
      const length = Math.max(0, phases[name] ?? 0);
      const x = position;
      position += length;
      const width = `${Math.max(0.4, (100 * length) / span)}%`;
      return length > 0 && html`<rect class=${`phase-${name}`} x=${`${(100 * x) / span}%`} width=${width} height="10" rx="2" />`;
    })}</svg>`;
  }

  /** Bars of one request, with a legend that has the durations. */
  function PhaseBar({ phases, total }) {
    const span = Math.max(total ?? 0, PHASES.reduce((sum, name) => sum + (phases[name] ?? 0), 0)) || 1;
    return html`<div class="phase-bar"><${Bars} phases=${phases} span=${span} />
      <p class="phase-legend">${PHASES.map((name) => html`<span><i class=${`swatch phase-${name}`}>
        </i>${name} ${seconds(phases[name])}</span>`)}
        <span>total ${seconds(total)}</span></p></div>`;
  }

  fllm.phases = { PHASES, Bars, PhaseBar, seconds };
})();
