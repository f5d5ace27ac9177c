/** "Look inside": the prompt, the tokens, the grammar, the parsers and the timings of one answer. */
(() => {
  "use strict";
  const { html, effect, settings, signal, tabs, useEffect, useMemo, useRef, useState } = fllm;
  const { createTrace, record, probabilityOf, isSpecial } = fllm.trace;
  const { TokenFlow, TokenDetail, percent } = fllm.tokens;
  const { ParseTable, ReportParse } = fllm.parse;
  const { PhaseBar, seconds } = fllm.phases;

  const current = signal(null); // the trace that is shown
  const version = signal(0); // grows while the trace grows
  const missing = signal(""); // the id of a message without a trace
  const running = signal(null); // the AbortController of a request of this tab
  const touch = fllm.perFrame(() => (version.value += 1));

  /** Show a trace in the tab. */
  function show(trace) {
    current.value = trace;
    fllm.view("inside");
  }

  /** Return the id of the message of the chat that the URL names, as in `#inside/ID`, or "". */
  function named() {
    return tabs.current.value === "inside" ? location.hash.split("/")[1] ?? "" : "";
  }

  /** Show the trace of the message that the URL names; `missing` is its id if it has none. */
  function follow() {
    const id = named();
    const trace = fllm.inspections.get(id);
    if (trace) current.value = trace;
    missing.value = trace ? "" : id;
  }

  effect(follow);
  addEventListener("hashchange", follow);

  /** Look inside an answer of the chat. If it has no trace, its request is sent again. */
  function open(node) {
    const trace = fllm.inspections.get(node.id);
    if (trace) return show(trace);
    const body = fllm.request.whole(fllm.runs.current.value, node);
    return ask(body, "The tokens of that answer were not recorded, so its request was sent again. The new answer can differ.");
  }

  /** Send a request and show its answer while it is generated, with a note above it. Return the trace. */
  async function ask(body, note = "") {
    if (tabs.current.value !== "inside") fllm.view("inside");
    missing.value = "";
    running.value?.abort();
    const trace = { ...createTrace(body), note };
    const controller = new AbortController();
    current.value = trace;
    running.value = controller;
    await run(trace, controller.signal, touch);
    if (running.value === controller) running.value = null;
    return trace;
  }

  /** Fill a trace with the answer to its request; an error ends it. */
  async function run(trace, abort, onChange) {
    try {
      for await (const { event, data } of fllm.api.stream("page/chat", { ...trace.request, inspect: true }, { signal: abort })) {
        record(trace, event, data);
        onChange();
      }
    } catch (error) {
      if (error.name !== "AbortError") trace.error = { message: error.message };
    }
    onChange();
  }

  /** Return a number that grows with every trace: those of this tab, and those of the chat. */
  function growth() {
    const others = [...fllm.runs.running.value.values()].map((each) => each.version.value);
    return others.reduce((sum, each) => sum + each, version.value);
  }

  function Tab() {
    const trace = missing.value ? null : current.value;
    const grown = growth();
    return html`<div class="panel inside">
      <header class="panel-head"><h1>Look inside</h1>
        <p class="note">How one answer came about: prompt, tokens, grammar, parsers, times.</p></header>
      <${Composer} />
      ${missing.value && html`<${Missing} id=${missing.value} />`}
      ${trace && html`<${Trace} key=${trace.started} trace=${trace} version=${`${grown}/${trace.outputs.length}/${Boolean(trace.done)}`} />`}
      ${!trace && !missing.value && html`<p class="empty">Ask something here, or choose “Look inside” at an answer of the chat.</p>`}
    </div>`;
  }

  function Missing({ id }) {
    const node = fllm.runs.current.value.nodes[id];
    return html`<div class="empty"><p>The tokens of this answer were not recorded.</p>
      ${node?.request && html`<button type="button" class="button"
        onClick=${() => open(node)}>Send its request again</button>`}</div>`;
  }

  function Composer() {
    const [text, setText] = useState("");
    const submit = (event) => {
      event.preventDefault();
      if (text.trim()) ask(settings.body([{ role: "user", content: text }]));
    };
    return html`<form class="inside-ask row" onSubmit=${submit}>
      <label class="grow"><span class="visually-hidden">Ask something to look inside</span>
        <input placeholder="Ask something to look inside" value=${text} onInput=${(event) => setText(event.target.value)} />
          </label>
      ${running.value ? html`<button key="stop" type="button" class="button"
        onClick=${() => running.value?.abort()}>Stop</button>` : html`<button key="ask" class="button primary" disabled=${!text.trim()}>Ask</button>`}
    </form>`;
  }

  function Trace({ trace, version }) {
    const [index, setIndex] = useState(0);
    const output = trace.outputs[index];
    return html`${trace.note && html`<p class="note" role="status">${trace.note}</p>`}
      ${trace.error && html`<p class="error" role="alert">${trace.error.message}</p>`}
      <${Summary} trace=${trace} output=${output} />
      ${trace.outputs.length > 1 && html`<label>Answer <select value=${index}
        onChange=${(event) => setIndex(Number(event.target.value))}>
        ${trace.outputs.map((_, at) => html`<option value=${at}>${at + 1}</option>`)}</select></label>`}
      ${output && html`<${Generated} key=${index} output=${output} version=${version} />`}
      ${output && html`<section aria-labelledby="parse-title"><div class="section-head"><h2 id="parse-title">Parsers</h2>
        ${trace.done && html`<${ReportParse} trace=${trace} output=${output} />`}</div>
        <${ParseTable} output=${output} version=${version} complete=${Boolean(output.finish)} /></section>`}
      ${trace.prompt && html`<${Prompt} prompt=${trace.prompt} usage=${trace.done?.usage} />`}`;
  }

  function Summary({ trace, output }) {
    const usage = usageOf(trace.done?.usage);
    const timings = trace.done?.timings;
    const facts = [
      ["Model", trace.prompt?.model],
      ["Prompt", usage && `${usage.prompt} tokens`],
      ["From the prefix cache", usage && `${usage.cached} tokens`],
      ["Generated", usage ? `${usage.completion} tokens` : output && `${output.tokens.length} tokens`],
      ["Reasoning", usage?.reasoning ? `${usage.reasoning} tokens` : null],
      ["Speed", timings && usage && timings.decode > 0 && `${((usage.completion - 1) / timings.decode).toFixed(1)} tokens/s`],
      ["End", output?.finish && [output.finish.reason, output.finish.stop_reason].filter((each) => each !== null && each !== undefined).join(": ")],
    ].filter(([, value]) => value || value === 0);
    return html`<section class="summary" aria-label="Summary">
      <dl class="facts">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
      ${timings && html`<${PhaseBar} phases=${timings} total=${timings.total} />
        <p class="note">Request <code>${trace.done.request_id}</code></p>`}
    </section>`;
  }

  /** Return the counts of a usage, of the page's or of Chat's names. */
  function usageOf(usage) {
    if (!usage) return null;
    return {
      prompt: usage.prompt_tokens ?? usage.prompt ?? 0,
      completion: usage.completion_tokens ?? usage.completion ?? 0,
      cached: usage.prompt_tokens_details?.cached_tokens ?? usage.cached_tokens ?? usage.cached ?? 0,
      reasoning: usage.completion_tokens_details?.reasoning_tokens ?? usage.reasoning_tokens ?? usage.reasoning ?? 0,
    };
  }

  function Generated({ output, version }) {
    const [active, setActive] = useState(-1);
    const [peek, setPeek] = useState(-1);
    const { tokens } = output;
    const at = peek >= 0 ? peek : active;
    const forced = useMemo(() => tokens.filter((token) => token.forced).length, [version]);
    const constrained = useMemo(() => tokens.filter((token) => typeof token.allowed === "number").length, [version]);
    return html`<section class="generated" aria-labelledby="tokens-title">
      <div class="section-head"><h2 id="tokens-title">Generated tokens</h2>
        ${tokens.length > 0 && html`<button type="button" class="button"
          onClick=${() => setActive(leastCertain(tokens))}>Least certain</button>`}</div>
      <p class="note" data-testid="grammar">${constrained ? `A grammar decided at ${constrained} of ${tokens.length} tokens; it forced ${forced}.` : "No grammar was used."}</p>
      <${Strip} tokens=${tokens} version=${version} active=${at} onActive=${setActive} />
      <div class="with-detail"><div><${TokenFlow} id="generated" label="Generated tokens"
        tokens=${tokens} count=${tokens.length} active=${active} onActive=${setActive} onPeek=${setPeek} />
          <${Legend} grammar=${constrained > 0} /></div>
        <aside class=${active >= 0 ? "chosen" : ""} aria-label="The selected token">
          <${TokenDetail} token=${tokens[at]} at=${at} /></aside></div>
    </section>`;
  }

  function leastCertain(tokens) {
    let least = 0;
    tokens.forEach((token, at) => {
      if ((probabilityOf(token) ?? 1) < (probabilityOf(tokens[least]) ?? 1)) least = at;
    });
    return least;
  }

  function Legend({ grammar }) {
    const steps = ["over 90 %", "50 to 90 %", "20 to 50 %", "5 to 20 %", "under 5 %"];
    return html`<p class="legend note">
      <span>Probability:</span> ${steps.map((name, step) => html`<span class=${`token p${step}`}>${name}</span> `)}
      ${grammar && html`<span class="token constrained">grammar</span> <span class="token forced">forced</span>`}</p>`;
  }

  /** The probability of all tokens as one small picture. */
  function Strip({ tokens, version, active, onActive }) {
    const ref = useRef(null);
    useEffect(() => draw(ref.current, tokens, active), [version, active, settings.theme.value]);
    const pick = (event) => {
      const box = ref.current.getBoundingClientRect();
      onActive(Math.min(tokens.length - 1, Math.floor(((event.clientX - box.left) / box.width) * tokens.length)));
    };
    return html`<canvas ref=${ref} class="strip" height="36" role="img" onClick=${pick}
      aria-label=${tokens.length ? `Probability of ${tokens.length} tokens; the least certain has ${percent(probabilityOf(tokens[leastCertain(tokens)]))}` : "No tokens yet"}></canvas>`;
  }

  function draw(canvas, tokens, active) {
    const style = getComputedStyle(canvas);
    const ratio = devicePixelRatio || 1;
    const width = (canvas.width = Math.max(1, canvas.clientWidth * ratio));
    const height = (canvas.height = 36 * ratio);
    const context = canvas.getContext("2d");
    const step = width / Math.max(tokens.length, 1);
    tokens.forEach((token, at) => {
      const bar = Math.max(2 * ratio, (probabilityOf(token) ?? 1) * height);
      context.fillStyle = style.getPropertyValue(at === active ? "--strip-active" : token.forced ? "--strip-forced" : "--strip");
      context.fillRect(at * step, height - bar, Math.max(step - (step > 3 * ratio ? ratio : 0), 0.5), bar);
    });
  }

  function Prompt({ prompt, usage }) {
    const [active, setActive] = useState(-1);
    const [peek, setPeek] = useState(-1);
    const cached = usageOf(usage)?.cached ?? 0;
    const at = peek >= 0 ? peek : active;
    const special = useMemo(() => prompt.tokens.filter(isSpecial).length, [prompt]);
    return html`<section class="prompt" aria-labelledby="prompt-title">
      <div class="section-head"><h2 id="prompt-title">Prompt</h2>
        <button type="button" class="button" onClick=${() => fllm.copy(prompt.text)}>Copy text</button></div>
      <p class="note">${prompt.tokens.length} tokens, ${special} of them special.
        ${cached > 0 && html` <span class="token cached">The first ${cached} came from the prefix cache.</span>`}
        ${prompt.template === "request" ? " Rendered by the chat template of the request." : ""}</p>
      <div class="with-detail"><div class="prompt-box" tabindex="-1"><${TokenFlow} id="prompt" label="Tokens of the prompt"
        tokens=${prompt.tokens} count=${prompt.tokens.length} cached=${cached}
        active=${active} onActive=${setActive} onPeek=${setPeek} /></div>
        <aside class=${active >= 0 ? "chosen" : ""} aria-label="The selected token of the prompt">
          <${TokenDetail} shows="id" token=${prompt.tokens[at]} at=${at} cached=${at >= 0 && at < cached} /></aside></div>
    </section>`;
  }

  fllm.inside = { open, show, ask, run, usageOf, current };
  tabs.add({ id: "inside", title: "Look inside", component: Tab });
})();
