/**
 * The trace of one answer: what `POST page/chat` reported with `"inspect": true`.
 *
 * A trace is `{request, prompt, outputs, done, error}`. An output is `{tokens, steps, finish}`; a step is a
 * piece of raw text and the events that the parsers made of it.
 */
(() => {
  "use strict";
  const MAX_OUTPUTS = 256; // of one request
  const SPECIAL = /^(<[|/]?[^\s<>]{1,60}>|\[\/?[A-Z_]{2,40}\])$/;

  /** Return an empty trace for the body of a request. */
  function createTrace(request) {
    return { request, prompt: null, outputs: [], done: null, error: null, started: performance.now(), first: null };
  }

  /** Return the output of a trace with this index; add it if it is new. */
  function outputOf(trace, index) {
    while (trace.outputs.length <= index) trace.outputs.push({ tokens: [], steps: [], finish: null });
    return trace.outputs[index];
  }

  /** Add one event of the stream to a trace. Unknown events change nothing. */
  function record(trace, name, data) {
    if (name === "prompt" || name === "done" || name === "error") {
      trace[name] = data;
      return;
    }
    if (!["token", "raw", "event", "finish"].includes(name)) return;
    const index = data.index ?? 0;
    if (!(index >= 0 && index < MAX_OUTPUTS)) return;
    const output = outputOf(trace, index);
    if (trace.first === null && name !== "finish") trace.first = performance.now();
    if (name === "token") output.tokens.push(data);
    else if (name === "finish") output.finish = data;
    else if (name === "raw") addRaw(output.steps, data.text);
    else addEvent(output.steps, data);
  }

  function addRaw(steps, text) {
    const last = steps.at(-1);
    if (last && !last.events.length) last.raw += text;
    else steps.push({ raw: text, events: [] });
  }

  function addEvent(steps, event) {
    if (!steps.length) steps.push({ raw: "", events: [] });
    addMerged(steps.at(-1).events, event);
  }

  /** Append an event; a piece of the same text or call extends the last one. */
  function addMerged(events, event) {
    const last = events.at(-1);
    if (last && event.type !== "tool_start" && keyOf(last) === keyOf(event)) {
      events[events.length - 1] = { ...last, text: (last.text ?? "") + (event.text ?? "") };
    } else events.push({ ...event });
  }

  function keyOf(event) {
    return JSON.stringify([event.type, event.call ?? null, event.parser ?? null]);
  }

  /**
   * Return the steps with adjacent ones joined that continue one event: `[{raw, events}]`.
   * What a parser held back belongs to the step of the event that it led to.
   */
  function alignSteps(steps) {
    const rows = [];
    for (const step of steps) {
      const row = rows.at(-1);
      const last = row?.events.at(-1);
      const continues = last && step.events.every((event) => event.type !== "tool_start" && keyOf(event) === keyOf(last));
      if (continues && step.events.length) {
        row.raw += step.raw;
        for (const event of step.events) addMerged(row.events, event);
      } else rows.push({ raw: step.raw, events: step.events.slice() });
    }
    return rows;
  }

  /** Return the raw text of an output, which the parsers received. */
  function rawOf(output) {
    return output.steps.map((step) => step.raw).join("");
  }

  /**
   * Divide raw text into parts `{text, kept}`: what is in the texts of the events, and what the parser consumed.
   * Return one kept part if an event's text is not in the raw text, as in rewritten arguments.
   */
  function divideRaw(row, complete) {
    const parts = [];
    let position = 0;
    for (const event of row.events) {
      const text = event.type === "tool_start" ? event.name : event.text;
      if (!text) continue;
      const found = row.raw.indexOf(text, position);
      if (found < 0) return [{ text: row.raw, kept: true }];
      if (found > position) parts.push({ text: row.raw.slice(position, found), kept: false });
      parts.push({ text, kept: true });
      position = found + text.length;
    }
    if (position < row.raw.length) parts.push({ text: row.raw.slice(position), kept: !row.events.length && !complete });
    return parts;
  }

  /** Return whether a token is a special one, such as `<|im_end|>`. */
  function isSpecial(token) {
    return token.special ?? SPECIAL.test(token.text.trim());
  }

  /** Return a probability from 0 to 1, or null if the server gave none. */
  function probabilityOf(token) {
    return token.logprob === null || token.logprob === undefined ? null : Math.exp(token.logprob);
  }

  /** Return the step of the colour scale, from 0 (nearly certain) to 4 (a surprise). */
  function scaleOf(probability) {
    return probability === null ? 0 : [0.9, 0.5, 0.2, 0.05].filter((limit) => probability < limit).length;
  }

  fllm.trace = {
    createTrace, record, outputOf, alignSteps, divideRaw, rawOf, isSpecial, probabilityOf, scaleOf,
  };
})();
