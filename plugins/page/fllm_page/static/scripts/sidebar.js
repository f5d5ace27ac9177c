/** The list of conversations: new, search, rename, delete, import and export. */
(() => {
  "use strict";
  const { html, icon, signal, store, settings, runs, confirm, download, conversation: tree, useState, useEffect } = fllm;
  const SEARCH_AFTER = 200; // milliseconds after the last key
  const shown = settings.persist("conversations-shown", innerWidth > 900);
  const note = signal("");
  // On a narrow screen the list covers the messages.
  if (innerWidth <= 900) shown.value = false;

  /** Show a conversation. */
  async function open(id) {
    const found = await store.get(id);
    if (!found) return;
    // First the URL: a new entry in the browser's history, not the present one with another id.
    fllm.view(`chat/${id}`);
    runs.current.value = found;
    fllm.follow();
    if (innerWidth <= 900) shown.value = false;
  }

  /** Start a conversation with the options of the last one. */
  function start() {
    runs.current.value = tree.create(fllm.options.initial.value);
    fllm.view("chat");
    if (innerWidth <= 900) shown.value = false;
    setTimeout(() => document.getElementById("composer")?.focus());
  }

  async function rename(id, title) {
    await runs.save(id, (each) => ({ ...each, title: title.trim() || each.title }));
  }

  async function remove({ id, title }) {
    const agreed = await confirm("Delete this conversation?", `“${title || "Untitled"}” cannot be brought back.`, "Delete");
    if (!agreed) return;
    runs.running.value.get(id)?.stop();
    if (runs.current.value.id === id) start();
    await store.remove(id);
  }

  /** Read the conversations of files. */
  async function importFiles(files) {
    note.value = "";
    for (const file of files) {
      try {
        const found = tree.fromFile(await file.text());
        await store.put(...found);
        note.value = `${found.length} imported`;
        await open(found[0].id);
      } catch (error) {
        note.value = `${file.name} is not a file of conversations: ${error.message}`;
      }
    }
  }

  async function exportAll() {
    download("conversations.json", tree.toFile(await store.all()));
  }

  /** Return the ids of conversations whose title or messages have a text in them. */
  async function search(text) {
    const wanted = text.toLowerCase();
    const has = (each) => each?.toLowerCase().includes(wanted);
    const found = (await store.all()).filter(
      (each) => has(each.title) || Object.values(each.nodes).some((node) => has(node.text)),
    );
    return new Set(found.map((each) => each.id));
  }

  function Entry({ head }) {
    const [editing, setEditing] = useState(false);
    const isCurrent = head.id === runs.current.value.id;
    const title = head.title || "Untitled";
    if (editing) {
      const finish = (event) => (event.preventDefault(), setEditing(false), rename(head.id, event.target.elements.title.value));
      return html`<li><form onSubmit=${finish}><input name="title" aria-label="Title" value=${head.title}
        ref=${(element) => element && document.activeElement !== element && element.focus()}
        onKeyDown=${(event) => event.key === "Escape" && (event.stopPropagation(), setEditing(false))} /></form></li>`;
    }
    return html`<li class="entry"><button type="button" class="entry-title" aria-current=${isCurrent ? "true" : null}
        onClick=${() => open(head.id)}>${title}</button>
      <span class="entry-end">${runs.running.value.has(head.id) && html`<span class="dot" title="Answering" />`}
        <button type="button" class="quiet" aria-label=${`Rename ${title}`} onClick=${() => setEditing(true)}>Rename</button>
        <button type="button" class="quiet" aria-label=${`Delete ${title}`} onClick=${() => remove(head)}>Delete</button></span>
    </li>`;
  }

  function Sidebar() {
    const [text, setText] = useState("");
    const [found, setFound] = useState(null);
    useEffect(() => {
      if (!text.trim()) return setFound(null);
      const timer = setTimeout(async () => setFound(await search(text.trim())), SEARCH_AFTER);
      return () => clearTimeout(timer);
    }, [text]);
    if (!shown.value) return null;
    const heads = store.heads.value.filter((each) => !found || found.has(each.id));
    return html`<nav class="sidebar side-panel" id="conversations" aria-label="Conversations">
      <header class="side-head"><h2>Conversations</h2>
        <button type="button" class="icon" aria-label="Close the conversations" onClick=${() => (shown.value = false)}>${icon("close")}</button></header>
      <button type="button" class="button new" onClick=${start}>${icon("plus")} New conversation</button>
      <input type="search" aria-label="Search the conversations" placeholder="Search" value=${text} onInput=${(event) => setText(event.target.value)} />
      <ul class="entries">${heads.map((head) => html`<${Entry} key=${head.id} head=${head} />`)}</ul>
      ${!heads.length && html`<p class="note">${found ? "Nothing found." : "What you ask is kept here, in this browser only."}</p>`}
      ${!store.lasting.value && html`<p class="note">This browser keeps nothing: export what you need.</p>`}
      <p class="note" role="status">${note}</p>
      <footer class="row"><label class="button small">Import<input type="file" class="visually-hidden" accept=".json,application/json" multiple
          onChange=${(event) => (importFiles([...event.target.files]), (event.target.value = ""))} /></label>
        <button type="button" class="button small" disabled=${!store.heads.value.length} onClick=${exportAll}>Export all</button></footer>
    </nav>`;
  }

  fllm.sidebar = { Sidebar, shown, open, start };
})();
