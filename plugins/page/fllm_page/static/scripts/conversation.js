/**
 * A conversation: a tree of messages, of which one path is shown. All values are replaced, never changed.
 *
 * {id, title, created, updated, options, nodes: {ID: node}, chosen: {PARENT: ID}}; a node is {id, parent, role, text,
 * created, images?: [data URL], reasoning?, calls?: [{id, name, arguments}], call?: id of the call that a tool's
 * result answers, name?, model?, request?, finish?, error?, usage?, timings?}. The first message's parent is "".
 */
(() => {
  "use strict";
  const { newId } = fllm;
  const ROLES = ["user", "assistant", "tool"];
  const TITLE_LENGTH = 60;

  /** Return a new conversation. */
  function create(options = {}) {
    const now = Date.now();
    return { id: newId(), title: "", created: now, updated: now, options, nodes: {}, chosen: {} };
  }

  /** Return the conversation with one more message, which is shown, and the message. */
  function add(conversation, fields) {
    const node = { id: newId(), created: Date.now(), text: "", ...fields };
    const title = conversation.title || (node.role === "user" ? titleFrom(node.text) : "");
    const added = {
      ...conversation,
      title,
      updated: node.created,
      nodes: { ...conversation.nodes, [node.id]: node },
      chosen: { ...conversation.chosen, [node.parent]: node.id },
    };
    return [added, node];
  }

  function titleFrom(text) {
    const line = text.trim().split("\n")[0];
    return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH)}…` : line;
  }

  /** Return the conversation with a changed message. */
  function change(conversation, id, fields) {
    const nodes = { ...conversation.nodes, [id]: { ...conversation.nodes[id], ...fields } };
    return { ...conversation, updated: Date.now(), nodes };
  }

  /** Return the conversation with another branch shown. */
  function choose(conversation, node) {
    return { ...conversation, chosen: { ...conversation.chosen, [node.parent]: node.id } };
  }

  /** Return the messages that are shown, in order. */
  function path(conversation) {
    const found = [];
    for (let id = conversation.chosen[""]; id; id = conversation.chosen[id]) found.push(conversation.nodes[id]);
    return found;
  }

  /** Return the messages before a message, from the first. */
  function before(conversation, node) {
    const found = [];
    for (let id = node.parent; id; id = conversation.nodes[id].parent) found.unshift(conversation.nodes[id]);
    return found;
  }

  /** Return, for each parent, its messages in order of creation. */
  function branches(conversation) {
    const found = new Map();
    for (const node of Object.values(conversation.nodes).sort((a, b) => a.created - b.created)) {
      if (!found.has(node.parent)) found.set(node.parent, []);
      found.get(node.parent).push(node);
    }
    return found;
  }

  const text = (value) => (typeof value === "string" ? value : "");
  const time = (value) => (Number.isFinite(value) ? value : Date.now());
  const object = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
  const array = (value) => (Array.isArray(value) ? value : []);

  /** Return a message of a file with nothing in it but what we know, or null. */
  function cleanNode(found) {
    const node = object(found);
    if (!ROLES.includes(node.role)) return null;
    const calls = array(node.calls).map(object);
    return {
      role: node.role,
      text: text(node.text ?? node.content),
      created: time(node.created),
      reasoning: text(node.reasoning ?? node.reasoning_content),
      images: array(node.images).filter((url) => /^data:image\/(png|jpeg|webp|gif);base64,[\w+/=]+$/.test(url)),
      calls: calls.map((call) => ({ id: text(call.id), name: text(call.name), arguments: text(call.arguments) })),
      call: text(node.call ?? node.tool_call_id),
      name: text(node.name),
      model: text(node.model),
      error: node.error ? { message: text(node.error.message) } : null,
      finish: text(node.finish),
    };
  }

  /** Return a conversation of a file, with new ids, or null. `{messages}` in the form of the API is one as well. */
  function clean(found) {
    const source = object(found);
    const named = Object.entries(object(source.nodes)).map(([id, node]) => [id, { ...object(node), id }]);
    const given = Object.fromEntries(named);
    let made = { ...create(), title: text(source.title), created: time(source.created) };
    made.options = cleanOptions(source.options);
    if (source.messages) {
      let parent = "";
      for (const message of array(source.messages)) {
        const node = cleanNode(message);
        if (message?.role === "system") made.options.system = text(message.content);
        if (node) [made, { id: parent }] = add(made, { ...node, parent });
      }
      return parent ? made : null;
    }
    // From the first messages on, so that a loop or a message without a parent is left out.
    const waiting = [["", ""]];
    const children = branches({ nodes: given });
    for (const [old, parent] of waiting) {
      for (const each of children.get(old) ?? []) {
        const node = cleanNode(each);
        if (!node || !each.id) continue;
        let added;
        [made, added] = add(made, { ...node, parent });
        waiting.push([each.id, added.id]);
      }
    }
    const chosen = new Map(waiting);
    for (const [parent, id] of Object.entries(object(source.chosen))) {
      if (chosen.has(parent) && made.nodes[chosen.get(id)]?.parent === chosen.get(parent)) {
        made.chosen = { ...made.chosen, [chosen.get(parent)]: chosen.get(id) };
      }
    }
    return waiting.length > 1 ? { ...made, updated: time(source.updated) } : null;
  }

  /** Return options of a file: texts and switches, as the form keeps them. */
  function cleanOptions(found) {
    return Object.fromEntries(Object.entries(object(found)).filter(([, value]) => typeof value === "string"));
  }

  /** Return the conversations of a file of ours. Throw if it holds none. */
  function fromFile(content) {
    const read = JSON.parse(content);
    const found = array(read.conversations ?? (Array.isArray(read) ? read : [read])).map(clean).filter(Boolean);
    if (!found.length) throw new Error("The file holds no conversation.");
    return found;
  }

  /** Return the text of a file with these conversations. */
  function toFile(conversations) {
    return JSON.stringify({ format: "furiosa-llm-conversations", version: 1, conversations }, null, 1);
  }

  fllm.conversation = { create, add, change, choose, path, before, branches, fromFile, toFile };
})();
