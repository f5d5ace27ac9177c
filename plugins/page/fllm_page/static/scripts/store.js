/** Conversations in the browser's IndexedDB, or in memory where that is forbidden. */
(() => {
  "use strict";
  const { signal } = fllm;
  const memory = new Map();
  // An answer may end after its conversation was deleted.
  const removed = new Set();
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

  /** Keep a conversation in its present state. */
  async function put(conversation) {
    if (removed.has(conversation.id)) return;
    heads.value = newest([...heads.value, head(conversation)]);
    try {
      if (await database()) {
        await transaction("readwrite", (heads, conversations) => {
          heads.put(head(conversation));
          conversations.put(conversation);
        });
        memory.delete(conversation.id);
        return;
      }
    } catch {
      lasting.value = false;
    }
    memory.set(conversation.id, conversation);
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
  }

  /** Return all conversations. */
  async function all() {
    const stored = (await transaction("readonly", (_, kept) => kept.getAll())) ?? [];
    return [...new Map([...stored, ...memory.values()].map((each) => [each.id, each])).values()];
  }

  fllm.store = { heads, lasting, load, get, put, remove, all };
})();
