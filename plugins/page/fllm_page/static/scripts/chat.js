/** The tab "Chat". */
(() => {
  "use strict";
  const { html, icon, computed, effect, signal, tabs, runs, store, sidebar, options, composer, Message, download } = fllm;
  const { conversation: tree, shortcut, useEffect, useRef } = fllm;
  const NEAR_END = 80; // pixels
  const EARLY = 8; // messages that are markdown at once

  const path = computed(() => tree.path(runs.current.value));
  const branches = computed(() => tree.branches(runs.current.value));
  const atEnd = signal(true);
  const NONE = [];
  let top = 0; // where the messages were scrolled to

  /** Stay at the end of the conversation from now on. */
  fllm.follow = () => {
    atEnd.value = true;
    requestAnimationFrame(toEnd);
  };

  function toEnd() {
    const scroller = document.getElementById("messages");
    if (!scroller || !atEnd.value) return;
    scroller.scrollTop = scroller.scrollHeight;
    top = scroller.scrollTop;
  }

  function Messages() {
    const list = useRef();
    const run = runs.running.value.get(runs.current.value.id);
    useEffect(() => {
      // Whatever grows, an answer or a picture, the end stays in view.
      const observer = new ResizeObserver(toEnd);
      observer.observe(list.current);
      return () => observer.disconnect();
    }, []);
    const messages = path.value;
    return html`<div class="messages" ref=${list}>${messages.map((node, at) => {
      const isLast = at === messages.length - 1;
      return html`<${Message} key=${node.id} node=${node} siblings=${siblingsOf(node)} isLast=${isLast}
        run=${run?.node === node.id ? run : null} early=${messages.length - at <= EARLY} />`;
    })}</div>`;
  }

  const kept = new Map();

  /** Return the branches beside a message: the same list as before, if nothing changed in it. */
  function siblingsOf(node) {
    const found = branches.value.get(node.parent) ?? NONE;
    const before = kept.get(node.id);
    if (before?.length === found.length && before.every((each, at) => each === found[at])) return before;
    kept.set(node.id, found);
    return found;
  }

  function Welcome() {
    const name = fllm.modelOf(runs.current.value.options);
    return html`<div class="welcome"><p class="welcome-title">What would you like to ask${name ? html` <b>${name}</b>` : ""}?</p>
      <p class="note">Conversations stay in this browser. Outside of the message box, <kbd>?</kbd> lists the keys.</p>
      ${fllm.unreachable.value && html`<p class="error" role="alert">${fllm.unreachable.value.message}
        <button type="button" class="button small" onClick=${fllm.loadServer}>Retry</button></p>`}</div>`;
  }

  /** Follow the end when it is reached, until the user scrolls up. What grows below does not count. */
  function onScroll({ target }) {
    const { scrollHeight, scrollTop, clientHeight } = target;
    if (scrollHeight - scrollTop - clientHeight < NEAR_END) atEnd.value = true;
    else if (scrollTop < top) atEnd.value = false;
    top = scrollTop;
  }

  function Head() {
    const { title } = runs.current.value;
    const toggle = (panel) => () => (panel.value = !panel.value);
    const save = () => download("conversation.json", tree.toFile([runs.current.value]));
    return html`<header class="chat-head">
      <button type="button" class="icon" aria-label="Conversations" title="Conversations (Alt+B)" aria-expanded=${String(sidebar.shown.value)}
        onClick=${toggle(sidebar.shown)}>${icon("list")}</button>
      <h1>${title || "New conversation"}</h1>
      <${options.ModelChoice} />
      ${path.value.length > 0 && html`<button type="button" class="icon" aria-label="Export this conversation" title="Export" onClick=${save}>${icon("save")}</button>`}
      <button type="button" class="icon" aria-label="New conversation" title="New conversation (Alt+N)" onClick=${sidebar.start}>${icon("plus")}</button>
      <button type="button" class="icon" aria-label="Options" title="Options (Alt+O)" aria-expanded=${String(options.shown.value)}
        onClick=${toggle(options.shown)}>${icon("options")}</button>
    </header>`;
  }

  function onDrop(event) {
    event.preventDefault();
    composer.attach(event.dataTransfer?.files ?? []);
  }

  function Chat() {
    const isEmpty = path.value.length === 0;
    return html`<div class="chat">
      <${sidebar.Sidebar} />
      <div class="chat-main" onDragOver=${(event) => event.preventDefault()} onDrop=${onDrop}><${Head} />
        <div class="chat-scroll" id="messages" tabindex="0" role="region" aria-label="Messages" onScroll=${onScroll}>
          ${isEmpty ? html`<${Welcome} />` : html`<${Messages} key=${runs.current.value.id} />`}</div>
        <div class="chat-foot">${!atEnd.value && !isEmpty && html`<button type="button" class="to-end" aria-label="Go to the end" onClick=${fllm.follow}>${icon("down")}</button>`}
          <${composer.Composer} /></div>
      </div>
      <${options.Options} />
    </div>`;
  }

  /** Move the focus between messages. */
  function step(direction) {
    const all = [...document.querySelectorAll(".message")];
    const at = all.findIndex((each) => each.contains(document.activeElement));
    const target = all[at < 0 ? all.length - 1 : at + direction];
    target?.focus();
    target?.scrollIntoView({ block: "nearest" });
  }

  function focusComposer() {
    fllm.view("chat");
    setTimeout(() => document.getElementById("composer")?.focus());
  }

  /** Stop the answer, or close a panel that covers the messages. */
  function escape() {
    const narrow = matchMedia("(max-width: 900px)").matches;
    for (const panel of [options.shown, sidebar.shown]) {
      if (narrow && panel.value) return (panel.value = false, focusComposer());
    }
    return composer.stop();
  }

  shortcut("Escape", escape);
  shortcut("/", focusComposer);
  shortcut("Alt+KeyN", sidebar.start);
  shortcut("Alt+KeyB", () => void (sidebar.shown.value = !sidebar.shown.value));
  shortcut("Alt+KeyO", () => void (options.shown.value = !options.shown.value));
  shortcut("Alt+ArrowUp", () => step(-1));
  shortcut("Alt+ArrowDown", () => step(1));

  /** Show the conversation that the URL names, `#chat/ID`: the page was loaded again, or the user went back. */
  async function followUrl() {
    const [name, id] = location.hash.slice(1).split("/");
    if (name !== "chat" || !id || id === runs.current.value.id) return;
    const found = await store.get(id);
    if (found) runs.current.value = found;
  }

  addEventListener("hashchange", followUrl);
  runs.current.value = tree.create(options.initial.value);
  followUrl();
  effect(() => {
    const { id, nodes } = runs.current.value;
    const isNamed = tabs.current.value === "chat" && Object.keys(nodes).length > 0;
    if (isNamed && location.hash !== `#chat/${id}`) history.replaceState(null, "", `#chat/${id}`);
  });
  store.load();
  tabs.add({ id: "chat", title: "Chat", component: Chat });
})();
