/** Raw text beside the events that the parsers made of it, and the report of a wrong parse. */
(() => {
  "use strict";
  const { html, useMemo, useState } = fllm;
  const { alignSteps, divideRaw, eventsOf } = fllm.trace;
  const NAMES = { text: "text", reasoning: "reasoning", tool_start: "tool call", tool_arguments: "arguments" };
  const ROWS = 60; // rows shown at first
  const PROMPT_END = 64; // characters of the prompt in a sample

  /** The table of raw text and events. */
  function ParseTable({ output, version, complete }) {
    const rows = useMemo(() => alignSteps(output.steps), [output, version]);
    const [limit, setLimit] = useState(ROWS);
    if (!rows.length) return html`<p class="note">Nothing was generated yet.</p>`;
    return html`<div class="scroll"><table class="parse">
      <caption class="visually-hidden">Raw text, and the events that the parsers made of it</caption>
      <thead><tr><th scope="col">Raw text of the model</th><th scope="col">Events</th></tr></thead>
      <tbody>${rows.slice(0, limit).map((row) => html`<tr>
        <td><pre class="raw">${divideRaw(row, complete).map((part) => (part.kept ? part.text : html`<span class="consumed">${part.text}</span>`))}</pre></td>
        <td>${row.events.length ? row.events.map((event) => html`<${Event} event=${event} />`) : html`<p class="note">${complete ? "no event" : "held back"}</p>`}</td>
      </tr>`)}</tbody></table></div>
      ${rows.length > limit && html`<button type="button" class="button" onClick=${() => setLimit(limit * 4)}>Show more of ${rows.length} rows</button>`}
      <p class="note">Underlined with dots: text that a parser consumed.</p>`;
  }

  function Event({ event }) {
    return html`<div class=${`event event-${event.type}`}>
      <p class="event-head"><span class="badge">${NAMES[event.type] ?? event.type}</span>
        ${event.type === "tool_start" && html`<code>${event.name}</code>`}
        <span class="note">${event.parser ? `by ${event.parser}` : "no parser"}${event.call === null || event.call === undefined ? "" : `, call ${event.call + 1}`}</span></p>
      ${event.text && html`<pre>${event.text}</pre>`}</div>`;
  }

  /** Return the parsers that took part: `[{parser, kind}]`. */
  function parsersOf(trace) {
    const found = [];
    if (trace.prompt?.reasoning_parser) found.push({ parser: trace.prompt.reasoning_parser, kind: "reasoning" });
    if (trace.prompt?.tool_call_parser) found.push({ parser: trace.prompt.tool_call_parser, kind: "tool-call" });
    return found;
  }

  /** Return an event in the format of samples: only the fields that its type has. */
  function toSampleEvent({ type, text, call, name, id }) {
    if (type === "tool_start") return { type, index: call, name, ...(id ? { id } : {}) };
    return type === "tool_arguments" ? { type, index: call, text } : { type, text };
  }

  /**
   * Return a sample of a parser, in the format of `furiosa-llm plugins parse --samples`. With two parsers, what
   * the first one left for the second is not known: the text is then that of the steps without reasoning, and
   * the sample records no events.
   */
  function createSample(trace, output, { parser, kind }) {
    const alone = parsersOf(trace).length === 1;
    const left = (row) => alone || kind === "reasoning" || row.events.some((event) => event.type !== "reasoning");
    const rows = alignSteps(output.steps).filter(left);
    const sample = { parser, kind, text: rows.map((row) => row.raw).join("") };
    if (alone) sample.events = eventsOf(output).map(toSampleEvent);
    if (trace.request.tools) sample.tools = trace.request.tools;
    if (trace.request.chat_template_kwargs) sample.chat_template_kwargs = trace.request.chat_template_kwargs;
    if (kind === "reasoning") sample.prompt_end = trace.prompt.text.slice(-PROMPT_END);
    return { ...sample, model: trace.prompt.model };
  }

  /** Return the text of a sample with words replaced everywhere. */
  function redact(text, words, replacement) {
    const escape = (value) => JSON.stringify(value).slice(1, -1);
    return words ? text.split(escape(words)).join(escape(replacement)) : text;
  }

  function checkSample(text) {
    try {
      const sample = JSON.parse(text);
      return typeof sample.text === "string" && typeof sample.parser === "string" ? null : "A sample has a parser and a text.";
    } catch (error) {
      return `This is not JSON: ${error.message}`;
    }
  }

  /** The button "Report this parse" and its dialog, which shows the sample before it is saved. */
  function ReportParse({ trace, output }) {
    const [isOpen, setOpen] = useState(false);
    const parsers = parsersOf(trace);
    if (!parsers.length) return html`<p class="note">No parser read this answer: its text is the answer as it is.</p>`;
    return html`<button type="button" class="button" onClick=${() => setOpen(true)}>Report this parse</button>
      ${isOpen && html`<${Report} samples=${parsers.map((each) => createSample(trace, output, each))} onClose=${() => setOpen(false)} />`}`;
  }

  function Report({ samples, onClose }) {
    const [chosen, setChosen] = useState(samples.length - 1);
    const [text, setText] = useState(JSON.stringify(samples[chosen], null, 2));
    const [words, setWords] = useState("");
    const [replacement, setReplacement] = useState("[redacted]");
    const choose = (index) => {
      setChosen(index);
      setText(JSON.stringify(samples[index], null, 2));
    };
    const problem = checkSample(text);
    const save = () => {
      const sample = JSON.parse(text);
      fllm.download(`${sample.parser.replace(/[^\w.-]+/g, "_")}-sample.jsonl`, `${JSON.stringify(sample)}\n`);
      onClose();
    };
    return html`<${fllm.Dialog} title="Report this parse" onClose=${onClose}><div class="report">
      <p>This is a test case for the author of the parser: the answer, and the tools of the request. Remove what is private. It is saved as a file, and sent nowhere.</p>
      ${samples.length > 1 && html`<label>Parser <select value=${chosen} onChange=${(event) => choose(Number(event.target.value))}>
        ${samples.map((each, index) => html`<option value=${index}>${each.parser} (${each.kind})</option>`)}</select></label>`}
      <label>Sample <textarea class="sample" rows="14" spellcheck="false" value=${text} onInput=${(event) => setText(event.target.value)}></textarea></label>
      ${problem && html`<p class="error" role="alert">${problem}</p>`}
      <div class="row"><label class="grow">Replace <input value=${words} onInput=${(event) => setWords(event.target.value)} /></label>
        <label class="grow">with <input value=${replacement} onInput=${(event) => setReplacement(event.target.value)} /></label>
        <button type="button" class="button" disabled=${!words} onClick=${() => setText(redact(text, words, replacement))}>Replace everywhere</button></div>
      <div class="row end"><button type="button" class="button primary" disabled=${Boolean(problem)} onClick=${save}>Save the sample</button></div></div><//>`;
  }

  fllm.parse = { ParseTable, ReportParse, createSample, redact };
})();
