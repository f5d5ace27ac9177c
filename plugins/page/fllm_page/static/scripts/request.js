/** The request for an answer, and the same request as a command or a program. */
(() => {
  "use strict";
  const { conversation: tree } = fllm;

  /** Settings of a request that are numbers: [name, label, step]. The server has a default for each. */
  const NUMBERS = [
    ["temperature", "Temperature", 0.1],
    ["top_p", "Top p", 0.05],
    ["top_k", "Top k", 1],
    ["min_p", "Min p", 0.01],
    ["max_tokens", "Max tokens", 1],
    ["seed", "Seed", 1],
    ["presence_penalty", "Presence penalty", 0.1],
    ["frequency_penalty", "Frequency penalty", 0.1],
    ["repetition_penalty", "Repetition penalty", 0.05],
  ];

  /** Fields that OpenAI's Python client knows; others go into `extra_body`. */
  const OPENAI = new Set(
    ("model messages temperature top_p max_tokens seed stop presence_penalty frequency_penalty tools tool_choice " +
      "response_format stream stream_options").split(" "),
  );

  /** Return the value of a box with JSON; undefined if it is empty. Throw an Error that names the box. */
  function parsed(text, label) {
    if (!text?.trim()) return undefined;
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Error(`${label}: ${error.message}`);
    }
  }

  /** Return the tools of their box: a list of functions, with or without {"type": "function"} around each. */
  function toolsFrom(text) {
    const found = parsed(text, "Tools");
    if (found === undefined) return undefined;
    const tools = (Array.isArray(found) ? found : [found]).map((each) =>
      each?.type === "function" && each.function ? each : { type: "function", function: each },
    );
    const nameless = tools.some((each) => typeof each.function?.name !== "string");
    if (nameless) throw new Error('Tools: each function needs a "name".');
    return tools.length ? tools : undefined;
  }

  /** Return the request's body without messages, from the options of a conversation. Throw an Error to show. */
  function bodyFrom(options) {
    const model = fllm.modelOf(options);
    const body = model ? { model } : {};
    for (const [name, label] of NUMBERS) {
      const text = options[name]?.trim();
      if (!text) continue;
      if (!Number.isFinite(Number(text))) throw new Error(`${label}: “${text}” is not a number.`);
      body[name] = Number(text);
    }
    const stop = (options.stop ?? "").split("\n").filter(Boolean);
    if (stop.length) body.stop = stop.map((each) => each.replaceAll("\\n", "\n"));
    const tools = toolsFrom(options.tools);
    if (tools) {
      body.tools = tools;
      const choice = options.tool_choice;
      if (choice?.startsWith("=")) body.tool_choice = { type: "function", function: { name: choice.slice(1) } };
      else if (choice) body.tool_choice = choice;
    }
    const schema = parsed(options.schema, "JSON schema");
    if (schema !== undefined) {
      body.response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
    }
    const variables = parsed(options.template, "Template variables");
    if (variables !== undefined) body.chat_template_kwargs = variables;
    return body;
  }

  /** Return a message in the form of the API. */
  function message(node) {
    if (node.role === "tool") return { role: "tool", tool_call_id: node.call, content: node.text };
    if (node.role === "user") {
      if (!node.images?.length) return { role: "user", content: node.text };
      const images = node.images.map((url) => ({ type: "image_url", image_url: { url } }));
      return { role: "user", content: [...images, ...(node.text ? [{ type: "text", text: node.text }] : [])] };
    }
    const made = { role: "assistant", content: node.text };
    if (node.reasoning) made.reasoning_content = node.reasoning;
    if (node.calls?.length) {
      made.tool_calls = node.calls.map(({ id, name, arguments: text }) => ({
        id, type: "function", function: { name, arguments: text },
      }));
    }
    return made;
  }

  /** Return the messages before a message, the system prompt first. An answer that failed at once is left out. */
  function messages(conversation, node, system) {
    const earlier = tree.before(conversation, node).filter(
      (each) => each.role !== "assistant" || each.text || each.calls?.length,
    );
    return [...(system?.trim() ? [{ role: "system", content: system }] : []), ...earlier.map(message)];
  }

  /** Return the whole body that an answer is, or was, requested with. */
  function whole(conversation, node) {
    const { system, ...body } = node.request ?? {};
    return { ...body, messages: messages(conversation, node, system) };
  }

  /** Return the URL of a path of the server. */
  function url(path) {
    return new URL(path, location.href.split("#")[0]).href;
  }

  /** Return a command for a POSIX shell that sends the request. */
  function asCurl(body) {
    return [
      `curl '${url("v1/chat/completions")}' \\`,
      '  -H "Authorization: Bearer $OPENAI_API_KEY" \\',
      "  -H 'Content-Type: application/json' \\",
      "  --data-binary @- <<'JSON'",
      // A line of JSON never is the word "JSON" alone.
      JSON.stringify(body, null, 2),
      "JSON",
      "",
    ].join("\n");
  }

  /** Return a program with OpenAI's Python client that sends the request. */
  function asPython(body) {
    const known = Object.entries(body).filter(([name]) => OPENAI.has(name));
    const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !OPENAI.has(name)));
    if (Object.keys(extra).length) known.push(["extra_body", extra]);
    return [
      "import os",
      "",
      "from openai import OpenAI",
      "",
      `client = OpenAI(base_url=${python(url("v1"))}, api_key=os.environ.get("OPENAI_API_KEY", "none"))`,
      "response = client.chat.completions.create(",
      ...known.map(([name, value]) => `    ${name}=${python(value, "    ")},`),
      ")",
      "print(response.choices[0].message)",
      "",
    ].join("\n");
  }

  /** Return a value as Python writes it. JSON's strings are Python's as well. */
  function python(value, indent = "") {
    if (value === null || value === undefined) return "None";
    if (value === true) return "True";
    if (value === false) return "False";
    if (typeof value !== "object") return JSON.stringify(value);
    const [open, close] = Array.isArray(value) ? "[]" : "{}";
    const inner = `${indent}    `;
    const items = Object.entries(value).map(
      ([name, each]) => `${inner}${open === "{" ? `${JSON.stringify(name)}: ` : ""}${python(each, inner)},\n`,
    );
    return items.length ? `${open}\n${items.join("")}${indent}${close}` : open + close;
  }

  fllm.request = { NUMBERS, bodyFrom, toolsFrom, message, messages, whole, asCurl, asPython };
})();
