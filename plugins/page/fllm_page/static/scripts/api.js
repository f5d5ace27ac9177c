/** Requests to the server: with the key, with its error messages, and streams of events. */
(() => {
  "use strict";
  const { signal, settings } = fllm;

  /** What the server answered in place of a result. `status` is 0 if there was no answer. */
  class ApiError extends Error {
    constructor(message, { status = 0, code = null, param = null, type = null } = {}) {
      super(message);
      Object.assign(this, { status, code, param, type });
    }
  }

  /** What asks for a key: {message, resolve}, or null. `keyDialog` of key.js shows it. */
  const keyWanted = signal(null);
  let asking = null;

  /** Ask the user for a key. Return whether one was given. Requests that fail together ask once. */
  function askForKey(message) {
    asking ??= new Promise((resolve) => (keyWanted.value = { message, resolve })).finally(() => {
      asking = null;
      keyWanted.value = null;
    });
    return asking;
  }

  /** Return the error that a response or an event holds, in OpenAI's form or another. */
  function errorFrom(body, status) {
    const error = body?.error ?? body;
    const message = error?.message ?? (typeof error === "string" ? error : null) ?? body?.detail;
    return new ApiError(String(message ?? `The server answered with status ${status}.`), { ...error, status });
  }

  // What a header can hold. The browser throws at other characters, or sends what no server expects.
  const POSSIBLE_KEY = /^[!-~]*$/;

  /** Send a request with a key. Return the response. */
  async function send(path, init, key) {
    if (!POSSIBLE_KEY.test(key)) {
      return Response.json({ error: { message: "A key has letters, digits and signs of ASCII only." } }, { status: 401 });
    }
    const headers = new Headers(init.headers);
    if (key) headers.set("authorization", `Bearer ${key}`);
    try {
      return await fetch(path, { ...init, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer. Does it run?");
    }
  }

  /** Send a request with the key. Ask for a key if the server wants one. Throw ApiError if it fails. */
  async function request(path, init = {}) {
    for (;;) {
      const key = init.key ?? settings.key.value;
      const response = await send(path, init, key);
      if (response.ok) return response;
      const error = errorFrom(await response.json().catch(() => null), response.status);
      const wanted = response.status === 401 && init.key === undefined;
      // Another request may have been given a new key meanwhile.
      if (wanted && key !== settings.key.value) continue;
      const message = key ? "The server refused this key." : "This server needs an API key.";
      if (!wanted || !(await askForKey(message))) throw error;
    }
  }

  /** Return the JSON that the server answers. */
  async function json(path, init) {
    const response = await request(path, init);
    return response.status === 204 ? null : await response.json();
  }

  /** Post a value as JSON. Return the response. */
  function post(path, body, init = {}) {
    const headers = { "content-type": "application/json", ...init.headers };
    return request(path, { method: "POST", body: JSON.stringify(body), ...init, headers });
  }

  /**
   * Post a request and yield the events of its stream, {event, data}, where data is parsed.
   * Throw ApiError for an error of the server, an event "error", or a stream that ends early (`cut` is true then).
   */
  async function* stream(path, body, init = {}) {
    const response = await post(path, body, { ...init, headers: { accept: "text/event-stream" } });
    let complete = false;
    for await (const { event, data } of events(response.body)) {
      if (data === "[DONE]") {
        complete = true;
        continue;
      }
      const value = JSON.parse(data);
      if (event === "error" || value.error) throw errorFrom(value, response.status);
      complete ||= event === "done";
      yield { event, data: value };
    }
    if (!complete) throw cut("The stream ended before the answer did.");
  }

  /** Return the error of a stream that ends early. */
  function cut(message) {
    return Object.assign(new ApiError(message, { code: "stream_cut" }), { cut: true });
  }

  /** Yield the events of a body in the form of WHATWG's "Server-sent events": {event, data}, both strings. */
  async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let [rest, last] = ["", ""];
    try {
      for (;;) {
        const { done, value } = await reader.read().catch((error) => {
          if (error.name === "AbortError") throw error;
          throw cut("The connection to the server broke.");
        });
        if (done) return;
        const text = value.replaceAll("\r", "");
        // An event of megabytes comes in many parts: what came before is not searched again with each.
        const isEnd = (last + text).includes("\n\n");
        rest += text;
        last = text.at(-1) ?? last;
        if (!isEnd) continue;
        const blocks = rest.split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const found = parse(block);
          if (found.data !== null) yield found;
        }
      }
    } finally {
      // A reader that stops early closes the connection, and so ends the request.
      reader.cancel().catch(() => {});
    }
  }

  /** Return the event of one block of lines; its data is null if the block is a comment. */
  function parse(block) {
    const found = { event: "message", data: null };
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon <= 0) continue;
      const value = line.slice(colon + 1).replace(/^ /, "");
      const field = line.slice(0, colon);
      if (field === "event") found.event = value;
      if (field === "data") found.data = found.data === null ? value : `${found.data}\n${value}`;
    }
    return found;
  }

  fllm.api = { request, askForKey, json, post, stream, events, ApiError, keyWanted };
})();
