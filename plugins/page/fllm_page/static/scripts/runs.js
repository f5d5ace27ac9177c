/** Answers that are generated at the moment: at most one per conversation, and each goes on while others are shown. */
(() => {
  "use strict";
  const { signal, effect, api, store, settings, perFrame, announce, conversation: tree, request: requests } = fllm;
  const SAVE_EVERY = 2000; // milliseconds
  const ANNOUNCED_LENGTH = 1500;
  const MAX_TRACES = 50;

  /** What an answer shows whose page was closed before its end; and, until its end, what another tab shows. */
  const INTERRUPTED = { error: { message: "This answer is not complete: its page was closed, or still receives it.", status: 0, cut: true } };

  /** The conversation that is shown. */
  const current = signal(tree.create());
  /** By conversation: {node, answer, version, stop}. `version` changes once per animation frame while text arrives. */
  const running = signal(new Map());

  /** Return an answer without content. */
  function empty(start = {}) {
    return { text: "", reasoning: "", calls: [], finish: "", error: null, usage: null, timings: null, ...start };
  }

  /** Add an event of `page/chat` to an answer. Only choice 0 is asked for here. */
  function receive(answer, { event, data }) {
    if (event === "event") {
      if (data.type === "text") answer.text += data.text;
      if (data.type === "reasoning") answer.reasoning += data.text;
      if (data.type === "tool_start") answer.calls.push(call(data));
      if (data.type === "tool_arguments") answer.calls[data.call ?? answer.calls.length - 1].arguments += data.text;
    }
    if (event === "finish") answer.finish = data.reason;
    if (event === "done") Object.assign(answer, { usage: data.usage, timings: data.timings, requestId: data.request_id });
  }

  function call({ id, name }) {
    return { id, name, arguments: "" };
  }

  /**
   * Ask for an answer. Yield the events of `page/chat`, and keep `answer` up to date with them.
   * The caller chooses body, signal and what it does with events; errors are ApiError.
   */
  async function* ask(body, answer, init = {}) {
    for await (const each of api.stream("page/chat", { ...body, stream: true }, init)) {
      receive(answer, each);
      yield each;
    }
  }

  /** Models whose engine reports no log-probabilities. */
  const unable = new Set();
  const LOGPROBS = /log-?prob/i;

  /** Keep a conversation, and show it if it is the one that is shown. */
  function keep(conversation) {
    if (current.value.id === conversation.id) current.value = conversation;
    return store.put(conversation);
  }

  /** Return the present state of a conversation: the one that is shown, or the stored one. */
  async function latest(id) {
    return current.value.id === id ? current.value : await store.get(id);
  }

  /** Generate an answer after a message. Throw an Error if the options are wrong. */
  function answerTo(conversation, parent) {
    const { system = "", ...options } = conversation.options;
    const request = { ...requests.bodyFrom(options), system };
    const [added, node] = tree.add(conversation, {
      role: "assistant", parent, request, model: request.model ?? "", ...INTERRUPTED,
    });
    return run(added, node, empty(), requests.whole(added, node));
  }

  /** Generate the rest of an answer that was cut. */
  function continueAnswer(conversation, node) {
    const body = requests.whole(conversation, node);
    const prefix = { role: "assistant", content: node.text };
    if (node.reasoning) prefix.reasoning_content = node.reasoning;
    const more = { continue_final_message: true, add_generation_prompt: false };
    const cleared = tree.change(conversation, node.id, { error: null, finish: "" });
    const start = empty({ text: node.text, reasoning: node.reasoning ?? "" });
    return run(cleared, cleared.nodes[node.id], start, { ...body, ...more, messages: [...body.messages, prefix] });
  }

  async function run(conversation, node, answer, body) {
    running.value.get(conversation.id)?.stop();
    const controller = new AbortController();
    const version = signal(0);
    const one = { node: node.id, answer, version, stop: () => controller.abort() };
    running.value = new Map(running.value).set(conversation.id, one);
    const saved = keep(conversation);
    const changed = perFrame(() => version.value++);
    let last = Date.now();
    try {
      for await (const _ of askInspected(body, node.id, answer, { signal: controller.signal })) {
        changed();
        if (Date.now() - last < SAVE_EVERY) continue;
        last = Date.now();
        save(conversation.id, (each) => tree.change(each, node.id, { ...answer, ...INTERRUPTED }));
      }
    } catch (error) {
      if (error.name === "AbortError") answer.finish = "stopped";
      else answer.error = { message: error.message, status: error.status ?? 0, cut: Boolean(error.cut) };
    }
    await saved;
    await save(conversation.id, (each) => tree.change(each, node.id, answer));
    if (running.value.get(conversation.id) === one) {
      const others = new Map(running.value);
      others.delete(conversation.id);
      running.value = others;
    }
    announce(spoken(answer));
  }

  /**
   * Ask for an answer, with its tokens if the user wants them recorded. An engine without log-probabilities refuses
   * that, and so does a server for which the response would be too large: the request is sent again without them.
   */
  async function* askInspected(body, id, answer, init) {
    fllm.inspections.delete(id);
    if (settings.inspect.value && !unable.has(body.model)) {
      try {
        const trace = fllm.trace.createTrace(body);
        fllm.inspections.set(id, trace);
        if (fllm.inspections.size > MAX_TRACES) fllm.inspections.delete(fllm.inspections.keys().next().value);
        for await (const each of ask({ ...body, inspect: true }, answer, init)) {
          fllm.trace.record(trace, each.event, each.data);
          yield each;
        }
        return;
      } catch (error) {
        const isUnable = LOGPROBS.test(`${error.param} ${error.message}`);
        if (!isUnable && error.status !== 400) throw error;
        if (isUnable) unable.add(body.model);
        fllm.inspections.delete(id);
      }
    }
    yield* ask(body, answer, init);
  }

  /** Change the latest state of a conversation, unless it was deleted meanwhile, and keep it. */
  async function save(id, change) {
    const conversation = await latest(id);
    if (conversation) await keep(change(conversation));
  }

  /** Return what a screen reader says when an answer has ended. */
  function spoken(answer) {
    if (answer.error) return `Error: ${answer.error.message}`;
    if (answer.finish === "stopped") return "Stopped";
    const calls = answer.calls.map((each) => `Tool call: ${each.name}. `).join("");
    return calls + answer.text.slice(0, ANNOUNCED_LENGTH);
  }

  /** Show what another tab has added to the conversation that is shown here. */
  async function followOthers() {
    const { id } = current.peek();
    if (!store.changed.value.includes(id)) return;
    const stored = await store.get(id);
    const mine = current.peek();
    if (!stored || mine.id !== id) return;
    const node = mine.nodes[running.peek().get(id)?.node];
    const nodes = { ...mine.nodes, ...stored.nodes, ...(node ? { [node.id]: node } : {}) };
    current.value = { ...store.merged(stored, { ...mine, nodes }), title: stored.title };
  }

  effect(() => void followOthers());

  /** Return the request for an answer to these messages, with the options of the conversation that is shown. */
  settings.body = (messages) => {
    const { system, ...options } = current.value.options;
    const first = system?.trim() ? [{ role: "system", content: system }] : [];
    return { ...requests.bodyFrom(options), messages: [...first, ...messages] };
  };

  /** The traces of answers that were asked for with `inspect`, by message id; they last as long as the page. */
  fllm.inspections = new Map();
  fllm.runs = { current, running, ask, empty, keep, save, answerTo, continueAnswer };
})();
