/** The options of a conversation: model, system prompt, sampling, tools, JSON schema. New ones start with the last. */
(() => {
  "use strict";
  const { html, icon, settings, runs, request, useState, capabilitiesOf, modelOf } = fllm;
  const initial = settings.persist("options", {});
  const SAVE_AFTER = 500; // milliseconds after the last key
  let saving = 0;
  const shown = settings.persist("options-shown", false);
  if (innerWidth <= 900) shown.value = false;

  /** Set one option of the conversation that is shown. */
  function set(name, value) {
    const conversation = runs.current.value;
    const options = { ...conversation.options, [name]: value };
    initial.value = options;
    const changed = { ...conversation, options };
    runs.current.value = changed;
    clearTimeout(saving);
    saving = setTimeout(() => Object.keys(changed.nodes).length && runs.save(changed.id, (each) => ({ ...each, options })), SAVE_AFTER);
  }

  /** A box for JSON, with the error in what it holds. `check` throws that error. */
  function JsonBox({ name, label, hint, check, value }) {
    const [error, setError] = useState("");
    const test = (text) => {
      try {
        check(text);
        setError("");
      } catch (problem) {
        setError(problem.message);
      }
    };
    return html`<label class="field">${label}
      <textarea rows="5" class="mono" spellcheck=${false} placeholder=${hint} value=${value ?? ""}
        aria-invalid=${String(Boolean(error))} aria-describedby=${`${name}-error`}
        onInput=${(event) => set(name, event.target.value)} onChange=${(event) => test(event.target.value)} /></label>
      <p class="error note" id=${`${name}-error`}>${error}</p>`;
  }

  function checked(name) {
    return (text) => void request.bodyFrom({ [name]: text });
  }

  function ToolChoice({ options }) {
    let names = [];
    try {
      names = (request.toolsFrom(options.tools) ?? []).map((each) => each.function.name);
    } catch {
      // The box shows the error.
    }
    if (!names.length) return null;
    return html`<label class="field">Tool choice
      <select value=${options.tool_choice ?? ""} onChange=${(event) => set("tool_choice", event.target.value)}>
        <option value="">auto</option><option value="required">required</option><option value="none">none</option>
        ${names.map((name) => html`<option value=${`=${name}`}>${name}</option>`)}
      </select></label>`;
  }

  /** The choice of a model; nothing if the server has one only. */
  function ModelChoice() {
    const found = fllm.choices();
    if (found.length < 2) return found.length ? html`<span class="model-name">${found[0].name}</span>` : null;
    return html`<label class="model-choice"><span class="visually-hidden">Model</span>
      <select value=${modelOf(runs.current.value.options)} onChange=${(event) => set("model", event.target.value)}>
        ${found.map(({ name, model: { state } }) => html`<option value=${name}>${name}${state && state !== "loaded" ? ` (${state})` : ""}</option>`)}
      </select></label>`;
  }

  async function changeKey() {
    if (await fllm.api.askForKey("The key for this server.")) fllm.loadServer();
  }

  function Options() {
    if (!shown.value) return null;
    const { options } = runs.current.value;
    const capabilities = capabilitiesOf(options);
    return html`<aside class="options side-panel" id="options" aria-label="Options">
      <header class="side-head"><h2>Options</h2>
        <button type="button" class="icon" aria-label="Close the options" onClick=${() => (shown.value = false)}>${icon("close")}</button></header>
      <label class="field">System prompt
        <textarea rows="3" value=${options.system ?? ""} onInput=${(event) => set("system", event.target.value)} /></label>
      <fieldset><legend>Sampling</legend><div class="numbers">
        ${request.NUMBERS.map(
          ([name, label, step]) => html`<label class="field" key=${name}>${label}
            <input type="number" inputmode="decimal" step=${step < 1 ? "any" : 1} placeholder=${fllm.defaultOf(options, name) ?? ""}
              value=${options[name] ?? ""} onInput=${(event) => set(name, event.target.value)} /></label>`,
        )}</div>
        <label class="field">Stop, one per line
          <textarea rows="2" class="mono" value=${options.stop ?? ""} onInput=${(event) => set("stop", event.target.value)} /></label>
        <p class="note">An empty field leaves the choice to the server. In a stop text, \\n is a line break.</p>
      </fieldset>
      <fieldset><legend>Tools</legend>
        ${capabilities?.tools === false && html`<p class="note">This model reports no tool calls.</p>`}
        <${JsonBox} name="tools" label="Functions (JSON)" value=${options.tools} check=${checked("tools")}
          hint=${'[{"name": "get_weather",\n  "parameters": {"type": "object",\n    "properties": {"city": {"type": "string"}}}}]'} />
        <${ToolChoice} options=${options} />
      </fieldset>
      <fieldset><legend>Format</legend>
        <${JsonBox} name="schema" label="JSON schema" value=${options.schema} check=${checked("schema")}
          hint=${'{"type": "object",\n "properties": {"name": {"type": "string"}}}'} />
        <${JsonBox} name="template" label="Template variables (JSON)" value=${options.template} check=${checked("template")}
          hint=${'{"enable_thinking": false}'} />
      </fieldset>
      <label class="check"><input type="checkbox" checked=${settings.inspect.value}
        onChange=${(event) => (settings.inspect.value = event.target.checked)} /> Record tokens, to look inside answers</label>
      ${(settings.key.value || fllm.server.value?.needs_key) && html`<button type="button" class="button small" onClick=${changeKey}>Change the API key</button>`}
    </aside>`;
  }

  fllm.options = { Options, ModelChoice, initial, shown, set };
})();
