/** "Plugins": what `furiosa-llm plugins` shows; and the panels of plugins, each as a tab. */
(() => {
  "use strict";
  const { html, api, effect, settings, signal, tabs, useEffect, useRef, useState } = fllm;
  const listing = signal(null);
  const problem = signal("");

  async function load() {
    try {
      listing.value = await api.json("page/plugins");
      problem.value = "";
    } catch (error) {
      problem.value = error.message;
    }
  }

  function statusOf(plugin) {
    if (plugin.error) return "left out";
    if (plugin.disabled) return "disabled";
    return plugin.seconds > 0.1 ? "slow to load" : "in use";
  }

  function matches(plugin, words) {
    const text = JSON.stringify([plugin.name, plugin.distribution, plugin.hooks, plugin.offers, plugin.options]).toLowerCase();
    return words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  }

  function Tab() {
    const [words, setWords] = useState("");
    useEffect(() => void load(), []);
    const plugins = (listing.value?.plugins ?? []).filter((plugin) => matches(plugin, words));
    const { conflicts = [], unmatched = [] } = listing.value ?? {};
    const notes = [
      ...conflicts.map((each) => `Conflict: ${each}`),
      ...unmatched.map((each) => `--disable-plugin ${each}: no plugin has this name`),
    ];
    return html`<div class="panel plugins"><header class="panel-head"><h1>Plugins</h1>
        <label><span class="visually-hidden">Filter</span><input type="search" placeholder="Filter" value=${words}
          onInput=${(event) => setWords(event.target.value)} /></label></header>
      ${problem.value && html`<p class="error" role="alert">${problem} <button type="button" class="button"
        onClick=${load}>Try again</button></p>`}
      ${notes.map((note) => html`<p class="error">${note}</p>`)}
      ${plugins.map((plugin) => html`<${Plugin} key=${`${plugin.distribution}:${plugin.name}`} plugin=${plugin} />`)}
      ${listing.value && !plugins.length && html`<p class="note">No plugin matches.</p>`}</div>`;
  }

  /** Return what a plugin offers, or else the names of its hooks. */
  function summaryOf(offers, hooks) {
    const counts = offers.map(([kind, names]) => `${names.length} ${kind}${names.length > 1 ? "s" : ""}`);
    const named = hooks.map((hook) => hook.replace("fllm_", "").replaceAll("_", " "));
    return (counts.length ? counts : named).join(", ");
  }

  function Plugin({ plugin }) {
    const status = statusOf(plugin);
    const offers = Object.entries(plugin.offers ?? {});
    return html`<details class=${`plugin ${plugin.error ? "failed" : ""}`} open=${Boolean(plugin.error)}>
      <summary><strong>${plugin.name}</strong> <span class="note">${plugin.distribution} ${plugin.version}</span>
        <span class="note grow">${summaryOf(offers, plugin.hooks)}</span>
        <span class=${`state state-${status.replaceAll(" ", "-")}`}>${status}</span></summary>
      ${plugin.error && html`<p class="error">${plugin.error}</p>`}
      ${plugin.where && html`<pre>${plugin.where}</pre>`}
      <dl class="facts wide"><div><dt>Source</dt><dd><code>${plugin.source}</code></dd></div>
        <div><dt>Load time</dt><dd>${Math.round(1000 * plugin.seconds)} ms</dd></div>
        <div><dt>Hooks</dt><dd>${plugin.hooks.map((hook) => html`<code>${hook}</code> `)}</dd></div>
        ${offers.map(([kind, names]) => html`<div><dt>${kind}</dt>
          <dd>${names.map((name) => html`<code>${name}</code> `)}</dd></div>`)}</dl>
      ${plugin.options?.length > 0 && html`<${Options} options=${plugin.options} />`}
    </details>`;
  }

  function Options({ options }) {
    const origin = ({ required, secret, default: value }) =>
      required ? "required" : `default ${secret ? "hidden" : show(value)}`;
    const show = (value) => (value === null || value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));
    return html`<div class="scroll" tabindex="0" role="group" aria-label="Options"><table class="table">
      <caption class="visually-hidden">Options</caption>
      <thead><tr><th scope="col">Option</th><th scope="col">Value</th><th scope="col">From</th>
        <th scope="col">What it is</th></tr></thead>
      <tbody>${options.map((option) => html`<tr><th scope="row"><code>${option.name}</code></th>
        <td><code>${option.secret ? "hidden" : show(option.value)}</code></td><td>${option.source}</td>
        <td>${option.summary} <span class="note">${option.type}, ${origin(option)}</span></td></tr>`)}</tbody></table></div>`;
  }

  /** Return a component that shows the panel of a plugin. What fails in it stays in its tab. */
  function panelOf(panel) {
    return function Panel() {
      const ref = useRef(null);
      const [failure, setFailure] = useState("");
      useEffect(() => {
        const mounted = mount(panel, ref.current);
        mounted.catch((error) => setFailure(String(error?.message ?? error)));
        return () => mounted.then((unmount) => unmount?.(), () => {});
      }, []);
      return html`<div class="panel">
        ${failure && html`<p class="error" role="alert">The panel ${panel.title} failed: ${failure}</p>`}
        <div ref=${ref} class="plugin-panel"></div></div>`;
    };
  }

  /** Import the script of a panel and call it. Return what it returns. */
  async function mount(panel, element) {
    const module = await import(new URL(panel.script, document.baseURI));
    if (typeof module.mount !== "function") throw new Error("its script exports no function mount(element, page)");
    return module.mount(element, {
      fetch: (path, init) => api.request(path, init),
      get theme() {
        const chosen = settings.theme.value;
        return chosen === "auto" ? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light") : chosen;
      },
      html,
      render: fllm.render,
    });
  }

  tabs.add({ id: "plugins", title: "Plugins", component: Tab });
  const added = new Set();
  effect(() => {
    for (const panel of fllm.server.value?.panels ?? []) {
      if (added.has(panel.name)) continue;
      added.add(panel.name);
      tabs.add({ id: `panel-${panel.name}`, title: panel.title, component: panelOf(panel) });
    }
  });
})();
