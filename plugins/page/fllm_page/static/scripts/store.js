/** Conversations in the browser's IndexedDB, or in memory where that is forbidden. */
(() => {
  "use strict";
  const { signal } = fllm;
  const memory = new Map();
  // An answer may end after its conversation was deleted.
  const removed = new Set();
  const OPENS_WITHIN = 3000; // milliseconds; some browsers never answer
  let opened = null;

  /** Return the database, or null where the browser gives none. */
  function database() {
    opened ??= new Promise((resolve) => {
      try {
        const request = indexedDB.open("fllm", 1);
        request.onupgradeneeded = () => {
          request.result.createObjectStore("heads", { keyPath: "id" });
          request.result.createObjectStore("conversations", { keyPath: "id" });
        };
        request.onsuccess = () => resolve(request.result);
        request.onerror = request.onblocked = () => resolve(null);
        setTimeout(resolve, OPENS_WITHIN, null);
      } catch {
        resolve(null);
      }
    });
    return opened;
  }

  /** Run `work` with the object stores in one transaction. Return what its request gives. */
  async function transaction(mode, work) {
    const opened = await database();
    if (!opened) return undefined;
    return new Promise((resolve, reject) => {
      const names = ["heads", "conversations"];
      const running = opened.transaction(names, mode);
      const request = work(...names.map((name) => running.objectStore(name)));
      running.oncomplete = () => resolve(request?.result);
      running.onerror = running.onabort = () => reject(running.error);
    });
  }

  /** Return what the list of conversations shows. */
  function head({ id, title, created, updated }) {
    return { id, title, created, updated };
  }

  /** The heads of all conversations, the latest first. */
  const heads = signal([]);
  /** Whether conversations outlive the page. */
  const lasting = signal(true);

  /** Read the heads. */
  async function load() {
    lasting.value = (await database()) !== null;
    const stored = (await transaction("readonly", (heads) => heads.getAll())) ?? [];
    // What was kept while this was read is later.
    heads.value = newest([...stored, ...heads.value].filter((each) => !removed.has(each.id)));
  }

  /** Return the conversation with this id, or undefined. */
  async function get(id) {
    // What is in memory could not be stored, so it is later than what is stored.
    return memory.get(id) ?? (await transaction("readonly", (_, conversations) => conversations.get(id)));
  }

  /** Return the last head of each conversation, the latest first. */
  function newest(found) {
    return [...new Map(found.map((each) => [each.id, each])).values()].sort((a, b) => b.updated - a.updated);
  }

  /** Keep conversations in their present state, together with messages that another tab has added. */
  async function put(...given) {
    const conversations = given.filter((each) => !removed.has(each.id));
    heads.value = newest([...heads.value, ...conversations.map(head)]);
    try {
      if (await database()) {
        await transaction("readwrite", (heads, kept) => {
          for (const each of conversations) {
            heads.put(head(each));
            kept.get(each.id).onsuccess = ({ target }) => kept.put(merged(target.result, each));
          }
        });
        for (const { id } of conversations) memory.delete(id);
        tell({ heads: conversations.map(head) });
        return;
      }
    } catch {
      lasting.value = false;
    }
    for (const each of conversations) memory.set(each.id, each);
  }

  /** Return a later state of a conversation, with the messages that only the earlier one has. Messages are never deleted. */
  function merged(earlier, later) {
    const { nodes, chosen } = earlier ?? {};
    return { ...later, nodes: { ...nodes, ...later.nodes }, chosen: { ...chosen, ...later.chosen } };
  }

  /** Delete a conversation. */
  async function remove(id) {
    heads.value = heads.value.filter((each) => each.id !== id);
    memory.delete(id);
    removed.add(id);
    await transaction("readwrite", (heads, conversations) => {
      heads.delete(id);
      conversations.delete(id);
    });
    tell({ removed: id });
  }

  /** Return all conversations. */
  async function all() {
    const stored = (await transaction("readonly", (_, kept) => kept.getAll())) ?? [];
    return [...new Map([...stored, ...memory.values()].map((each) => [each.id, each])).values()];
  }

  const others = globalThis.BroadcastChannel ? new BroadcastChannel("fllm") : null;
  /** Ids of conversations that another tab of this browser has kept just now. */
  const changed = signal([]);

  /** Tell the other tabs what was kept or deleted. */
  function tell(news) {
    others?.postMessage(news);
  }

  others?.addEventListener("message", ({ data }) => {
    if (data.removed) heads.value = heads.value.filter((each) => each.id !== data.removed);
    if (!data.heads) return;
    for (const { id } of data.heads) removed.delete(id);
    heads.value = newest([...heads.value, ...data.heads]);
    changed.value = data.heads.map((each) => each.id);
  });

  fllm.store = { heads, lasting, changed, load, get, put, merged, remove, all };
})();
