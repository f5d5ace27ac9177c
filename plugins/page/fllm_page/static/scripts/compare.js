/** "Side by side": two answers to one prompt, with two settings or two models and the same seed. */
(() => {
  "use strict";
  const { html, settings, signal, tabs, useMemo, useState } = fllm;
  const { createTrace } = fllm.trace;
  const { TokenFlow, TokenDetail } = fllm.tokens;
  const { seconds } = fllm.phases;
  const FIELDS = [
    ["temperature", "Temperature", { min: 0, max: 2, step: 0.1 }],
    ["top_p", "Top p", { min: 0, max: 1, step: 0.05 }],
    ["top_k", "Top k", { min: -1, step: 1 }],
    ["min_p", "Min p", { min: 0, max: 1, step: 0.01 }],
    ["repetition_penalty", "Repetition penalty", { min: 0, step: 0.05 }],
    ["max_tokens", "Max tokens", { min: 1, step: 1 }],
  ];
  const SIDES = ["A", "B"];

  const prompt = settings.persist("compare.prompt", "");
  const seed = settings.persist("compare.seed", "1");
  const sides = settings.persist("compare.sides", [{ max_tokens: "200" }, { max_tokens: "200" }]);
  const traces = signal([null, null]);
  const version = signal(0);
  const running = signal(null);
  const touch = fllm.perFrame(() => (version.value += 1));

  function setSide(at, change) {
    sides.value = sides.value.map((side, index) => (index === at ? { ...side, ...change } : side));
  }

  /** Return the body of the request of one side. */
  function bodyOf(side) {
    const body = { messages: [{ role: "user", content: prompt.value }] };
    if (side.system) body.messages.unshift({ role: "system", content: side.system });
    if (side.model) body.model = side.model;
    if (seed.value !== "") body.seed = Number(seed.value);
    for (const [name] of FIELDS) if (side[name] !== undefined && side[name] !== "") body[name] = Number(side[name]);
    return body;
  }

  /** Ask both sides at once. */
  async function start() {
    running.value?.abort();
    const controller = new AbortController();
    running.value = controller;
    traces.value = sides.value.map((side) => createTrace(bodyOf(side)));
    await Promise.all(traces.value.map((trace) => fllm.inside.run(trace, controller.signal, touch)));
    if (running.value === controller) running.value = null;
  }

  /** Return the index of the first token that differs, or -1. A side that only ends earlier differs after its end. */
  function firstDifference(one, other) {
    const [a, b] = [one?.outputs[0]?.tokens ?? [], other?.outputs[0]?.tokens ?? []];
    const length = Math.min(a.length, b.length);
    for (let at = 0; at < length; at += 1) if (a[at].text !== b[at].text) return at;
    return a.length !== b.length && one?.done && other?.done ? length : -1;
  }

  function Tab() {
    version.value;
    const [one, other] = traces.value;
    const difference = firstDifference(one, other);
    const both = one?.done && other?.done;
    const verdict = difference < 0 ? "Both answers are the same." : `The answers differ from token ${difference + 1} on.`;
    const submit = (event) => (event.preventDefault(), prompt.value.trim() && start());
    return html`<div class="panel compare"><header class="panel-head"><h1>Side by side</h1>
      <p class="note">Two answers to one prompt, with the same seed.</p></header>
      <form onSubmit=${submit} class="compare-ask"><label class="grow">Prompt <textarea rows="3" value=${prompt.value}
        onInput=${(event) => (prompt.value = event.target.value)}
          onKeyDown=${(event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && submit(event)}></textarea></label>
        <div class="row end"><label class="inline">Seed <input class="short" inputmode="numeric" pattern="-?[0-9]*"
          value=${seed.value} onInput=${(event) => (seed.value = event.target.value)} /></label>
          ${running.value
            ? html`<button key="stop" type="button" class="button" onClick=${() => running.value?.abort()}>Stop</button>`
            : html`<button key="ask" class="button primary" disabled=${!prompt.value.trim()}>Compare</button>`}</div></form>
      <p class="verdict" role="status">${both && verdict}</p>
      <div class="sides">${SIDES.map(
        (name, at) => html`<${Side} key=${name} at=${at} name=${name} trace=${traces.value[at]}
          difference=${difference} version=${version.value} />`,
      )}</div></div>`;
  }

  function Side({ at, name, trace, difference, version }) {
    const side = sides.value[at];
    const target = 1 - at;
    const models = fllm.server.value?.models ?? [];
    return html`<section class="side" aria-label=${`Side ${name}`}><div class="section-head"><h2>${name}</h2>
        <button type="button" class="button small"
          onClick=${() => setSide(target, side)}>${at ? "←" : ""} Copy settings to ${SIDES[target]} ${at ? "" : "→"}</button></div>
      <div class="settings-grid">
        <label class="whole">Model <select value=${side.model ?? ""}
          onChange=${(event) => setSide(at, { model: event.target.value })}><option value="">the first one</option>
          ${models.map((model) => html`<option value=${model.name}>${model.name}</option>`)}</select></label>
        <label class="whole">System prompt <input value=${side.system ?? ""}
          onInput=${(event) => setSide(at, { system: event.target.value })} /></label>
        ${FIELDS.map(
          ([field, title, limits]) => html`<label>${title} <input type="number" ...${limits} placeholder="default"
            value=${side[field] ?? ""} onInput=${(event) => setSide(at, { [field]: event.target.value })} /></label>`,
        )}
      </div>
      ${trace && html`<${Answer} key=${trace.started} name=${name} trace=${trace} difference=${difference} version=${version} />`}</section>`;
  }

  /** Return the number of tokens of an answer, its speed, and why it ended. */
  function summaryOf({ outputs, done }) {
    const facts = [`${outputs[0]?.tokens.length ?? 0} tokens`];
    if (done) {
      const { queue, prefill, decode } = done.timings;
      facts.push(`first after ${seconds(queue + prefill)}`);
      const { completion } = fllm.inside.usageOf(done.usage);
      if (decode > 0 && completion > 1) facts.push(`${((completion - 1) / decode).toFixed(1)} tokens/s`);
    }
    if (outputs[0]?.finish) facts.push(`ended by ${outputs[0].finish.reason}`);
    return facts.join(", ");
  }

  function Answer({ name, trace, difference, version }) {
    const [active, setActive] = useState(-1);
    const tokens = useMemo(() => trace.outputs[0]?.tokens ?? [], [trace, trace.outputs.length]);
    return html`<div class="side-answer" aria-busy=${String(!trace.done && !trace.error)}>
      ${trace.error && html`<p class="error" role="alert">${trace.error.message}</p>`}
      <${TokenFlow} id=${`side-${name}`} label=${`Answer ${name}`}
        tokens=${tokens} count=${tokens.length} marked=${difference} active=${active} onActive=${setActive} />
      ${active >= 0 && html`<${TokenDetail} token=${tokens[active]} at=${active} />`}
      <p class="note">${summaryOf(trace)}</p>
      ${trace.done && html`<button type="button" class="button small"
        onClick=${() => fllm.inside.show(trace)}>Look inside</button>`}</div>`;
  }

  fllm.compare = { start, firstDifference, traces };
  tabs.add({ id: "compare", title: "Side by side", component: Tab });
})();
