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
    for (let id = node.parent; id; id = conversation.nodes[id].parent) found.push(conversation.nodes[id]);
    return found.reverse();
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
  const time = (value) => (Number.isFinite(value) ? Math.min(value, Date.now()) : Date.now());
  const object = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
  const array = (value) => (Array.isArray(value) ? value : []);

  /** Return the text of a message's content: a string, or parts in the form of the API. */
  function textOf(content) {
    return Array.isArray(content) ? content.map((part) => text(object(part).text)).join("") : text(content);
  }

  function imagesOf(content) {
    return array(content).map((part) => object(object(part).image_url).url);
  }

  /** Return a tool call of ours, or of the API. */
  function cleanCall(found) {
    const call = object(found);
    const named = call.function ? object(call.function) : call;
    return { id: text(call.id), name: text(named.name), arguments: text(named.arguments) };
  }

  /** Return a message of a file with nothing in it but what we know, or null. */
  function cleanNode(found) {
    const node = object(found);
    if (!ROLES.includes(node.role)) return null;
    const images = array(node.images ?? imagesOf(node.content));
    const request = node.request && { ...object(node.request), system: text(node.request.system) };
    return {
      role: node.role,
      text: textOf(node.text ?? node.content),
      created: time(node.created),
      reasoning: text(node.reasoning ?? node.reasoning_content),
      images: images.filter((url) => /^data:image\/(png|jpeg|webp|gif);base64,[\w+/=]+$/.test(url)),
      calls: array(node.calls ?? node.tool_calls).map(cleanCall),
      call: text(node.call ?? node.tool_call_id),
      name: text(node.name),
      model: text(node.model),
      error: node.error ? { message: text(node.error.message) } : null,
      finish: text(node.finish),
      ...(request ? { request, usage: object(node.usage), timings: object(node.timings) } : {}),
    };
  }

  /** Return the messages of a file as [old id, old parent's id, message], in order of creation. */
  function messagesOf(source) {
    if (source.messages) {
      const found = array(source.messages).map(cleanNode).filter(Boolean);
      return found.map((node, at) => [String(at), at ? String(at - 1) : "", node]);
    }
    const found = Object.entries(object(source.nodes)).map(([id, node]) => [id, object(node).parent, cleanNode(node)]);
    return found.filter(([id, , node]) => id && node).sort(([, , a], [, , b]) => a.created - b.created);
  }

  /** Return a conversation of a file, with new ids, or null. `{messages}` in the form of the API is one as well. */
  function clean(found) {
    const source = object(found);
    const made = { ...create(cleanOptions(source.options)), title: text(source.title), created: time(source.created) };
    const system = array(source.messages).find((each) => each?.role === "system");
    if (system) made.options.system = textOf(system.content);
    const children = new Map();
    for (const each of messagesOf(source)) {
      const parent = each[1];
      if (!children.has(parent)) children.set(parent, []);
      children.get(parent).push(each);
    }
    // From the first messages on, so that a loop or a message without a parent is left out.
    const ids = new Map([["", ""]]);
    const tools = new Map(); // names by id of the call
    for (const [old, parent] of ids) {
      for (const [child, , node] of children.get(old) ?? []) {
        const id = newId();
        ids.set(child, id);
        for (const call of node.calls) tools.set(call.id, call.name);
        const name = node.name || (node.role === "tool" && tools.get(node.call)) || "";
        made.nodes[id] = { ...node, id, parent, name };
        made.chosen[parent] = id;
        if (node.role === "user") made.title ||= titleFrom(node.text);
      }
    }
    for (const [parent, id] of Object.entries(object(source.chosen))) {
      const at = ids.get(parent);
      if (at !== undefined && made.nodes[ids.get(id)]?.parent === at) made.chosen[at] = ids.get(id);
    }
    return ids.size > 1 ? { ...made, updated: time(source.updated) } : null;
  }

  /** Return options of a file: texts and switches, as the form keeps them. */
  function cleanOptions(found) {
    return Object.fromEntries(Object.entries(object(found)).filter(([, value]) => typeof value === "string"));
  }

  /** Return the conversations of a file of ours. Throw if it holds none. */
  function fromFile(content) {
    const read = JSON.parse(content) ?? {};
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
