/** Models and replicas, with what an administrator can do with them. */
(() => {
  "use strict";
  const { html, api, signal, useState } = fllm;
  const adminKey = signal(""); // lasts as long as the page
  const asked = signal(null); // {resolve} while the key is asked for
  const busy = signal(new Set()); // names of what is being loaded, unloaded, ...
  const problem = signal("");

  /** Return a number of bytes for people. */
  function bytes(value) {
    if (!value) return "–";
    const power = Math.min(3, Math.floor(Math.log2(Math.max(value, 1)) / 10));
    return `${(value / 1024 ** power).toFixed(power > 2 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][power]}`;
  }

  /** Ask for the admin key. Return whether one was given. */
  function askForKey() {
    return new Promise((resolve) => (asked.value = { resolve })).finally(() => (asked.value = null));
  }

  /** Send a request to an admin route, with a key that the user types when it is needed. */
  async function admin(path, init = {}) {
    for (;;) {
      if (!adminKey.value && !(await askForKey())) return null;
      try {
        return await api.json(path, { ...init, key: adminKey.value });
      } catch (error) {
        if (error.status !== 401 && error.status !== 403) throw error;
        adminKey.value = "";
        problem.value = "The server refused this admin key.";
      }
    }
  }

  /** Do something with a model or a replica, such as `admin/models/large/load`. */
  async function act(name, path) {
    busy.value = new Set(busy.value).add(name);
    problem.value = "";
    try {
      const done = await admin(path, { method: "POST" });
      if (done) fllm.announce(`${name}: ${done.state}`);
    } catch (error) {
      problem.value = `${name}: ${error.message}`;
    } finally {
      busy.value = new Set([...busy.value].filter((each) => each !== name));
      fllm.machine.poll();
    }
  }

  function Action({ name, path, title, disabled }) {
    return html`<button type="button" class="button small"
      aria-label=${`${title} ${name}`} disabled=${disabled || busy.value.has(name)}
      onClick=${() => act(name, path)}>${title}</button>`;
  }

  function ModelActions({ model }) {
    const path = `admin/models/${encodeURIComponent(model.name)}`;
    const load = model.state === "loaded" ? "Unload" : "Load";
    const pin = model.pinned ? "Unpin" : "Pin";
    const changing = model.state === "loading" || model.state === "unloading";
    return html`<td class="row-actions">
      <${Action} name=${model.name} title=${load} disabled=${changing} path=${`${path}/${load.toLowerCase()}`} />
      <${Action} name=${model.name} title=${pin} path=${`${path}/${pin.toLowerCase()}`} /></td>`;
  }

  function State({ state, error }) {
    return html`<span class=${`state state-${state}`}>${state}</span>${error && html`<p class="error">${error}</p>`}`;
  }

  function Models({ models, canAdmin }) {
    return html`<section aria-labelledby="models-title"><h2 id="models-title">Models</h2>
      ${problem.value && html`<p class="error" role="alert">${problem}</p>`}
      <div class="scroll" tabindex="0" role="group" aria-labelledby="models-title"><table class="table"><thead><tr>
        <th scope="col">Model</th><th scope="col">State</th><th scope="col" class="number">Memory</th>
        <th scope="col" class="number">Requests</th>
          <th scope="col" class="number">Waiting</th>${canAdmin && html`<th scope="col">Actions</th>`}</tr></thead>
      <tbody>${models.map((model) => html`<tr key=${model.name}>
        <th scope="row">${model.name}${model.pinned && html` <span class="badge">pinned</span>`}</th>
        <td><${State} ...${model} /></td><td class="number">${bytes(model.memory)}</td>
          <td class="number">${model.in_flight ?? 0}</td>
        <td class="number">${model.waiting ?? 0}</td>${canAdmin && html`<${ModelActions} model=${model} />`}</tr>`)}</tbody>
          </table></div></section>`;
  }

  function Replicas({ replicas, canAdmin }) {
    if (!replicas.length) return null;
    return html`<section aria-labelledby="replicas-title"><h2 id="replicas-title">Replicas</h2>
      <div class="scroll" tabindex="0" role="group" aria-labelledby="replicas-title"><table class="table"><thead><tr>
        <th scope="col">Replica</th><th scope="col">Model</th><th scope="col">State</th>
        <th scope="col" class="number">Requests</th>
          <th scope="col" class="number">Restarts</th>${canAdmin && html`<th scope="col">Actions</th>`}</tr></thead>
      <tbody>${replicas.map((replica) => {
        const { name } = replica;
        const stopped = ["draining", "drained"].includes(replica.state);
        const model = encodeURIComponent(replica.model);
        const path = `admin/replicas/${encodeURIComponent(name)}/${stopped ? "resume" : "drain"}?model=${model}`;
        return html`<tr key=${`${replica.model}/${name}`}><th scope="row">${name}</th><td>${replica.model}</td><td>
          <${State} state=${replica.state} /></td>
          <td class="number">${replica.requests}</td><td class="number">${replica.restarts}</td>
          ${canAdmin && html`<td class="row-actions">
            <${Action} name=${name} title=${stopped ? "Resume" : "Drain"} path=${path} /></td>`}</tr>`;
      })}</tbody></table></div></section>`;
  }

  /** Give an input the focus when its dialog opens. As an attribute from the start, it would be refused. */
  function first(input) {
    input?.setAttribute("autofocus", "");
  }

  /** The dialog that asks for the admin key. */
  function AdminKey() {
    const [text, setText] = useState("");
    if (!asked.value) return null;
    const end = (given) => {
      adminKey.value = given;
      setText("");
      asked.value.resolve(Boolean(given));
    };
    return html`<${fllm.Dialog} title="Admin key" onClose=${() => end("")}>
      <form onSubmit=${(event) => (event.preventDefault(), text.trim() && end(text.trim()))}>
        <p class="note">The key of <code>--admin-key</code>. It is kept until this page is closed or loaded again.</p>
        ${problem.value && html`<p class="error" role="alert">${problem}</p>`}
        <label class="field">Key <input ref=${first} type="password" autocomplete="off" value=${text}
          onInput=${(event) => setText(event.target.value)} /></label>
        <div class="row end"><button class="button primary">Use this key</button></div>
      </form><//>`;
  }

  fllm.admin = { Models, Replicas, AdminKey, adminKey, bytes };
})();
