/** Dialogs: the key, a question before something is deleted, and the list of shortcuts. */
(() => {
  "use strict";
  const { html, signal, api, icon, settings, useEffect, useRef, useState } = fllm;

  /** A modal dialog. `onClose` is called when it is closed by its button or by Esc. */
  function Dialog({ title, onClose, children }) {
    const dialog = useRef();
    useEffect(() => {
      const element = dialog.current;
      element.showModal();
      element.querySelector("input")?.focus();
      // The browser gives the focus back to what had it.
      return () => element.close();
    }, []);
    return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onCancel=${onClose}>
      <header class="dialog-head"><h2 id="dialog-title">${title}</h2>
        <button type="button" class="icon" aria-label="Close" onClick=${onClose}>${icon("close")}</button></header>
      ${children}
    </dialog>`;
  }

  function KeyDialog() {
    const wanted = api.keyWanted.value;
    const [key, setKey] = useState("");
    if (!wanted) return null;
    const submit = (event) => {
      event.preventDefault();
      if (!key.trim()) return;
      settings.key.value = key.trim();
      setKey("");
      wanted.resolve(true);
    };
    return html`<${Dialog} title="API key" onClose=${() => wanted.resolve(false)}>
      <form onSubmit=${submit}>
        <p id="key-message" role="alert" class=${settings.key.value ? "error" : null}>${wanted.message}</p>
        <label class="field">Key
          <input type="password" autocomplete="off" spellcheck=${false} aria-describedby="key-message"
            value=${key} onInput=${(event) => setKey(event.target.value)} /></label>
        <label class="check"><input type="checkbox" checked=${settings.rememberKey.value}
          onChange=${(event) => (settings.rememberKey.value = event.target.checked)} /> Remember it in this browser</label>
        <p class="note">The key is sent to this server only.</p>
        <div class="dialog-end"><button class="button primary">Use this key</button></div>
      </form>
    <//>`;
  }

  const question = signal(null);

  /** Ask whether to do something. Return whether the user agreed. */
  function confirm(title, text, label) {
    return new Promise((resolve) => (question.value = { title, text, label, resolve })).finally(
      () => (question.value = null),
    );
  }

  function Question() {
    if (!question.value) return null;
    const { title, text, label, resolve } = question.value;
    return html`<${Dialog} title=${title} onClose=${() => resolve(false)}>
      <p>${text}</p>
      <div class="dialog-end"><button type="button" class="button" onClick=${() => resolve(false)}>Cancel</button>
        <button type="button" class="button primary" onClick=${() => resolve(true)}>${label}</button></div>
    <//>`;
  }

  const helpShown = signal(false);
  const SHORTCUTS = [
    ["Enter", "Send the message"],
    ["Shift + Enter", "Start a new line"],
    ["Esc", "Stop the answer, or close what is open"],
    ["/", "Go to the message box"],
    ["Alt + N", "Start a new conversation"],
    ["Alt + B", "Show the conversations"],
    ["Alt + O", "Show the options"],
    ["Alt + ↑ / ↓", "Go to the message before or after"],
    ["← / →", "Change tabs, when one has the focus"],
    ["?", "Show this list"],
  ];

  function Help() {
    if (!helpShown.value) return null;
    return html`<${Dialog} title="Keyboard" onClose=${() => (helpShown.value = false)}>
      <table class="table shortcuts"><thead class="visually-hidden"><tr><th>Key</th><th>What it does</th></tr></thead>
        <tbody>${SHORTCUTS.map(([keys, text]) => html`<tr><td><kbd>${keys}</kbd></td><td>${text}</td></tr>`)}</tbody></table>
    <//>`;
  }

  /** Return whether a key that is pressed belongs to a text. */
  function isTyping(event) {
    return event.target.closest?.("input, textarea, select, [contenteditable]") !== null;
  }

  const shortcuts = new Map();

  /** Add a shortcut: `on("Alt+KeyN", work)`, by `KeyboardEvent.code` with Alt, else by `key`. `work` may return false. */
  function on(keys, work) {
    shortcuts.set(keys, work);
  }

  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (!event.altKey && event.key !== "Escape" && isTyping(event)) return;
    const work = shortcuts.get(event.altKey ? `Alt+${event.code}` : event.key);
    if (work && work() !== false) event.preventDefault();
  });
  on("?", () => void (helpShown.value = true));

  function Dialogs() {
    return html`<${KeyDialog} /><${Question} /><${Help} />`;
  }

  Object.assign(fllm, { Dialog, Dialogs, confirm, shortcut: on, helpShown });
})();
