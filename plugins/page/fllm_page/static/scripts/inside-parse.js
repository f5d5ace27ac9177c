/** Raw text beside the events that the parsers made of it, and the report of a wrong parse. */
(() => {
  "use strict";
  const { html, api, useMemo, useState } = fllm;
  const { alignSteps, divideRaw, rawOf } = fllm.trace;
  const NAMES = { text: "text", reasoning: "reasoning", tool_start: "tool call", tool_arguments: "arguments" };
  const ROWS = 60; // rows shown at first

  /** The table of raw text and events. */
  function ParseTable({ output, version, complete }) {
    const rows = useMemo(() => alignSteps(output.steps), [output, version]);
    const [limit, setLimit] = useState(ROWS);
    if (!rows.length) return html`<p class="note">Nothing was generated yet.</p>`;
    return html`<div class="scroll" tabindex="0" role="group" aria-labelledby="parse-title"><table class="parse">
      <caption class="visually-hidden">Raw text, and the events that the parsers made of it</caption>
      <thead><tr><th scope="col">Raw text of the model</th><th scope="col">Events</th></tr></thead>
      <tbody>${rows.slice(0, limit).map((row) => html`<tr>
        <td><pre class="raw">${divideRaw(row, complete).map((part) => (part.kept ? part.text : html`<span class="consumed">${part.text}</span>`))}</pre></td>
        <td>${row.events.length ? row.events.map((event) => html`<${Event} event=${event} />`) : html`<p class="note">${complete ? "no event" : "held back"}</p>`}</td>
      </tr>`)}</tbody></table></div>
      ${rows.length > limit && html`<button type="button" class="button"
        onClick=${() => setLimit(limit * 4)}>Show more of ${rows.length} rows</button>`}
      <p class="note">Underlined with dots: text that a parser consumed.</p>`;
  }

  function Event({ event }) {
    return html`<div class=${`event event-${event.type}`}>
      <p class="event-head"><span class="badge">${NAMES[event.type] ?? event.type}</span>
        ${event.type === "tool_start" && html`<code>${event.name}</code>`}
        <span class="note">${event.parser ? `by ${event.parser}` : "no parser"}${event.call === null || event.call === undefined ? "" : `, call ${event.call + 1}`}</span></p>
      ${event.text && html`<pre>${event.text}</pre>`}</div>`;
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
    const [samples, setSamples] = useState(null);
    const [problem, setProblem] = useState("");
    const open = async () => {
      try {
        const response = await api.post("page/samples", { ...trace.request, text: rawOf(output) });
        const found = (await response.json()).samples;
        setProblem(found.length ? "" : "The model wrote nothing.");
        setSamples(found);
      } catch (error) {
        setProblem(error.message);
      }
    };
    return html`<button type="button" class="button" onClick=${open}>Report this parse</button>
      ${problem && html`<p class="error" role="alert">${problem}</p>`}
      ${samples?.length > 0 && html`<${Report} samples=${samples} onClose=${() => setSamples(null)} />`}`;
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
      ${samples.length > 1 && html`<label>Parser <select value=${chosen}
        onChange=${(event) => choose(Number(event.target.value))}>
        ${samples.map((each, index) => html`<option value=${index}>${each.parser} (${each.kind})</option>`)}</select>
          </label>`}
      <label>Sample <textarea class="sample" rows="14" spellcheck="false" value=${text}
        onInput=${(event) => setText(event.target.value)}></textarea></label>
      ${problem && html`<p class="error" role="alert">${problem}</p>`}
      <div class="row"><label class="grow">Replace <input value=${words}
        onInput=${(event) => setWords(event.target.value)} /></label>
        <label class="grow">with <input value=${replacement} onInput=${(event) => setReplacement(event.target.value)} />
          </label>
        <button type="button" class="button" disabled=${!words}
          onClick=${() => setText(redact(text, words, replacement))}>Replace everywhere</button></div>
      <div class="row end"><button type="button" class="button primary" disabled=${Boolean(problem)}
        onClick=${save}>Save the sample</button></div></div><//>`;
  }

  fllm.parse = { ParseTable, ReportParse };
})();
