/** One message of a conversation, with what can be done with it. */
(() => {
  "use strict";
  const { html, Component, createRef, Markdown, copy, runs, request, conversation: tree, useState, useRef, useEffect } = fllm;
  const LABELS = { user: "You", assistant: "Assistant", tool: "Tool result" };
  // A message that is further from the view than this is plain text: markdown is made when it comes near.
  const NEAR = "1500px";

  const upgrades = new WeakMap();
  let observer = null;

  /** Call `upgrade` when an element comes near the view. */
  function whenNear(element, upgrade) {
    observer ??= new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) if (isIntersecting) upgrades.get(target)?.();
      },
      // A margin counts at the root only, so the root is what scrolls.
      { root: element.closest(".chat-scroll"), rootMargin: NEAR },
    );
    upgrades.set(element, upgrade);
    observer.observe(element);
  }

  /** Change the conversation that is shown. */
  function update(change) {
    return runs.keep(change(runs.current.value));
  }

  /** Generate another answer beside this one. */
  async function again(node) {
    await attempt(() => runs.answerTo(runs.current.value, node.parent));
  }

  /** Call what may find wrong options; show its error at the composer. */
  async function attempt(work) {
    try {
      fllm.problem.value = "";
      await work();
    } catch (error) {
      fllm.problem.value = error.message;
    }
  }

  /** Keep a changed text beside the old one, and answer it if it is the user's. */
  function edited(node, text) {
    const { id, created, error, usage, timings, ...fields } = node;
    const [conversation, made] = tree.add(runs.current.value, { ...fields, text });
    if (node.role === "assistant") return runs.keep(conversation);
    return attempt(() => runs.answerTo(conversation, made.id));
  }

  function Editor({ node, onClose }) {
    const area = useRef();
    useEffect(() => area.current.focus(), []);
    const submit = (event) => {
      event?.preventDefault();
      onClose();
      edited(node, area.current.value);
    };
    const onKey = (event) => {
      if (event.key === "Escape") (event.preventDefault(), event.stopPropagation(), onClose());
      if (event.key === "Enter" && !event.shiftKey && node.role !== "assistant") submit(event);
    };
    return html`<form class="editor" onSubmit=${submit}>
      <textarea ref=${area} aria-label="Edit the message" rows=${Math.min(16, node.text.split("\n").length + 1)} onKeyDown=${onKey}>${node.text}</textarea>
      <div class="row"><button class="button primary">${node.role === "assistant" ? "Keep" : "Send"}</button>
        <button type="button" class="button" onClick=${onClose}>Cancel</button></div>
    </form>`;
  }

  /** The switch between the branches that begin here. */
  function Branches({ node, siblings }) {
    if (siblings.length < 2) return null;
    const at = siblings.indexOf(node);
    const go = (step) => update((each) => tree.choose(each, siblings[at + step]));
    return html`<span class="branches" role="group" aria-label="Branches">
      <button type="button" class="quiet" aria-label="Previous branch" disabled=${at === 0} onClick=${() => go(-1)}>‹</button>
      <span>${at + 1} / ${siblings.length}</span>
      <button type="button" class="quiet" aria-label="Next branch" disabled=${at === siblings.length - 1} onClick=${() => go(1)}>›</button>
    </span>`;
  }

  function Actions({ node, siblings, onEdit }) {
    const menu = useRef();
    const choose = (work) => () => {
      menu.current.open = false;
      menu.current.querySelector("summary").focus();
      work();
    };
    const body = () => request.whole(runs.current.value, node);
    const onKey = (event) => {
      if (event.key === "Escape" && menu.current.open) (event.stopPropagation(), (menu.current.open = false));
    };
    const leave = (event) => menu.current.contains(event.relatedTarget) || (menu.current.open = false);
    return html`<div class="actions">
      <${Branches} node=${node} siblings=${siblings} />
      <button type="button" class="quiet" onClick=${() => copy(node.text)}>Copy</button>
      <button type="button" class="quiet" onClick=${onEdit}>Edit</button>
      ${node.role === "assistant" && html`<button type="button" class="quiet" onClick=${() => again(node)}>Regenerate</button>
        ${node.request && html`<details ref=${menu} class="menu" onKeyDown=${onKey} onFocusOut=${leave}><summary class="quiet">More</summary><div>
          <button type="button" onClick=${choose(() => fllm.inside.open(node))}>Look inside</button>
          <button type="button" onClick=${choose(() => copy(request.asCurl(body())))}>Copy as curl</button>
          <button type="button" onClick=${choose(() => copy(request.asPython(body())))}>Copy as Python</button>
        </div></details>`}
        <span class="facts-line">${facts(node)}</span>`}
    </div>`;
  }

  /** Return what is known of an answer: its model, tokens and speed. */
  function facts({ model, usage, timings, finish }) {
    const tokens = usage?.completion_tokens;
    const speed = timings?.decode > 0 && tokens > 1 ? `${((tokens - 1) / timings.decode).toFixed(1)} tokens/s` : "";
    const end = { length: "reached the limit of tokens", stopped: "stopped" }[finish];
    return [model, tokens && `${tokens} tokens`, speed, end].filter(Boolean).join(" · ");
  }

  function Reasoning({ text, growing }) {
    if (!text) return null;
    return html`<details class="reasoning"><summary>${growing ? "Reasoning …" : "Reasoning"}</summary>
      <div class="plain">${text}</div></details>`;
  }

  /** Arguments with line breaks if they are JSON. */
  function pretty(text) {
    try {
      return JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      return text;
    }
  }

  /** The calls of an answer. Those that are last in the conversation can be answered by hand. */
  function Calls({ node, calls, open }) {
    const [results, setResults] = useState({});
    if (!calls?.length) return null;
    const submit = (event) => {
      event.preventDefault();
      let [conversation, parent] = [runs.current.value, node.id];
      calls.forEach(({ id, name }, at) => {
        let made;
        [conversation, made] = tree.add(conversation, { role: "tool", parent, call: id, name, text: results[at] ?? "" });
        parent = made.id;
      });
      attempt(() => runs.answerTo(conversation, parent));
    };
    return html`<form class="calls" onSubmit=${submit}>
      ${calls.map(
        (call, at) => html`<div class="call" key=${at}><div class="call-name"><span>Call</span> <code>${call.name}</code></div>
          <pre tabindex="0" aria-label=${`Arguments of ${call.name}`}><code>${pretty(call.arguments)}</code></pre>
          ${open && html`<label class="field">Result of ${call.name}<textarea rows="2" class="mono" value=${results[at] ?? ""}
            onInput=${(event) => setResults({ ...results, [at]: event.target.value })} /></label>`}</div>`,
      )}
      ${open && html`<button class="button primary">${calls.length > 1 ? "Send the results" : "Send the result"}</button>`}
    </form>`;
  }

  /** What went wrong, and what can be done. */
  function Failure({ node, isLast }) {
    const { error, finish } = node;
    const canContinue = node.text && !node.calls?.length && (finish === "length" || finish === "stopped" || error);
    if (!error && !(canContinue && isLast)) return null;
    return html`<div class=${error ? "failure" : "row"} role=${error ? "alert" : null}>
      ${error && html`<p>${error.message}</p>`}
      <div class="row">${canContinue && isLast && html`<button type="button" class="button"
          onClick=${() => attempt(() => runs.continueAnswer(runs.current.value, runs.current.value.nodes[node.id]))}>Continue</button>`}
        ${error && html`<button type="button" class="button" onClick=${() => again(node)}>Retry</button>`}</div>
    </div>`;
  }

  /** An answer while it grows: the only message that is rendered again with each frame. */
  function Growing({ run }) {
    run.version.value;
    const { text, reasoning, calls } = run.answer;
    return html`<${Reasoning} text=${reasoning} growing=${!text} />
      <${Markdown} text=${text} growing=${true} />
      <${Calls} calls=${calls} />
      ${!text && !calls.length && html`<p class="waiting"><span class="visually-hidden">Waiting for the answer</span><i /><i /><i /></p>`}`;
  }

  class Message extends Component {
    place = createRef();
    state = { near: this.props.early, editing: false };

    shouldComponentUpdate(next, state) {
      return state !== this.state || ["node", "siblings", "run", "isLast"].some((name) => next[name] !== this.props[name]);
    }
    componentDidMount() {
      if (this.state.near) return;
      whenNear(this.place.current, () => {
        observer.unobserve(this.place.current);
        this.setState({ near: true });
      });
    }
    componentWillUnmount() {
      observer?.unobserve(this.place.current);
    }
    content({ node, run, isLast }) {
      if (run) return html`<${Growing} run=${run} />`;
      if (this.state.editing) return html`<${Editor} node=${node} onClose=${() => this.setState({ editing: false })} />`;
      const asMarkdown = node.role === "assistant" && this.state.near;
      return html`<${Reasoning} text=${node.reasoning} />
        ${node.images?.map((url, at) => html`<img class="shot" src=${url} alt=${`Image ${at + 1} of the message`} />`)}
        ${node.role === "tool" && html`<div class="call-name"><span>Result of</span> <code>${node.name}</code></div>`}
        ${asMarkdown ? html`<${Markdown} text=${node.text} />` : node.text && html`<div class="plain">${node.text}</div>`}
        <${Calls} node=${node} calls=${node.calls} open=${isLast} />
        <${Failure} node=${node} isLast=${isLast} />`;
    }
    render({ node, siblings, run, isLast }) {
      const label = LABELS[node.role];
      return html`<article ref=${this.place} class=${`message ${node.role}${isLast ? " last" : ""}`} tabindex="-1"
          aria-label=${label} aria-busy=${run ? "true" : null}>
        <div class="bubble">${this.content(this.props)}</div>
        ${!run && !this.state.editing && html`<${Actions} node=${node} siblings=${siblings} onEdit=${() => this.setState({ editing: true })} />`}
      </article>`;
    }
  }

  fllm.Message = Message;
  fllm.attempt = attempt;
})();
