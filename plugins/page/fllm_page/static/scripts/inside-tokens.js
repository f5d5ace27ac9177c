/** Tokens as flowing text: only the chunks near the viewport have an element per token. */
(() => {
  "use strict";
  const { html, useEffect, useMemo, useRef, useState } = fllm;
  const { isSpecial, probabilityOf, scaleOf } = fllm.trace;
  const CHUNK = 128; // tokens per chunk
  const MARGIN = "800px"; // chunks this near to the viewport are rendered
  const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -12, ArrowDown: 12, PageUp: -100, PageDown: 100 };

  /** Return the visible text of a token: line ends and tabs are shown, and a token without text as well. */
  function showText(text) {
    if (!text) return "∅";
    return text.replace(/\r/g, "␍").replace(/\n/g, "↵\n").replace(/\t/g, "⇥\t");
  }

  /** Return a probability in percent. */
  function percent(probability) {
    if (probability === null) return "not known";
    if (probability > 0.9995) return "100 %";
    return probability < 0.001 ? "under 0.1 %" : `${(100 * probability).toFixed(probability < 0.1 ? 1 : 0)} %`;
  }

  /** Return what a screen reader says about a token. */
  function describe(token, cached) {
    const words = [JSON.stringify(token.text)];
    const probability = probabilityOf(token);
    if (probability !== null) words.push(percent(probability));
    if (token.forced) words.push("forced by the grammar");
    else if (typeof token.allowed === "number") words.push(`the grammar allowed ${token.allowed} tokens`);
    if (isSpecial(token)) words.push("special token");
    if (cached) words.push("from the prefix cache");
    return words.join(", ");
  }

  function classesOf(token, cached, active, marked) {
    const classes = ["token"];
    if (isSpecial(token)) classes.push("special");
    if (cached) classes.push("cached");
    if ("logprob" in token) classes.push(`p${scaleOf(probabilityOf(token))}`);
    if (token.forced) classes.push("forced");
    else if (typeof token.allowed === "number") classes.push("constrained");
    if (marked) classes.push("differs");
    if (active) classes.push("active");
    return classes.join(" ");
  }

  function Chunk({ id, tokens, start, cached, active, marked, observe }) {
    const ref = useRef(null);
    const [visible, setVisible] = useState(false);
    useEffect(() => observe(ref.current, setVisible), []);
    const inside = (at) => (at >= start && at < start + tokens.length ? at : -1);
    const selected = inside(active);
    const rendered = visible || selected >= 0;
    return useMemo(() => {
      if (!rendered) {
        const label = `tokens ${start + 1} to ${start + tokens.length}`;
        const text = tokens.map((token) => showText(token.text)).join("");
        return html`<span ref=${ref} class="chunk" role="option" aria-label=${label}>${text}</span>`;
      }
      return html`<span ref=${ref} class="chunk" role="group">${tokens.map((token, offset) => {
        const at = start + offset;
        const isCached = at < cached;
        return html`<span key=${at} id=${`${id}-${at}`} data-at=${at} role="option" aria-selected=${at === selected}
          aria-label=${describe(token, isCached)} class=${classesOf(token, isCached, at === selected, at === marked)}
        >${showText(token.text)}</span>`;
      })}</span>`;
    }, [tokens, tokens.length, rendered, selected, inside(marked), Math.min(cached, start + tokens.length)]);
  }

  /** Return a function that observes whether elements are near the viewport. */
  function useObserver() {
    const [observe] = useState(() => {
      const callbacks = new WeakMap();
      const observer = new IntersectionObserver(
        (entries) => entries.forEach((entry) => callbacks.get(entry.target)?.(entry.isIntersecting)),
        { rootMargin: MARGIN, scrollMargin: MARGIN },
      );
      return (element, callback) => {
        callbacks.set(element, callback);
        observer.observe(element);
        return () => observer.unobserve(element);
      };
    });
    return observe;
  }

  /**
   * Tokens as a list of options. `active` is the index of the selected token, or -1; `onActive` receives
   * another one, `onPeek` the one under the pointer, or -1. The first `cached` tokens are marked as such.
   * `count` is the number of tokens: an array that grows stays the same one.
   */
  function TokenFlow({ id, label, tokens, count, cached = 0, active = -1, marked = -1, onActive, onPeek }) {
    const observe = useObserver();
    const chunks = useChunks(tokens, count);
    const ref = useRef(null);
    useEffect(() => {
      if (active >= 0) document.getElementById(`${id}-${active}`)?.scrollIntoView({ block: "nearest" });
    }, [active]);
    const at = (event) => Number(event.target.closest("[data-at]")?.dataset.at ?? -1);
    const onKey = (event) => {
      const last = count - 1;
      const targets = { Home: 0, End: last, Escape: -1 };
      let next = targets[event.key];
      if (STEPS[event.key]) next = Math.max(0, Math.min(last, Math.max(active, -1) + STEPS[event.key]));
      if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      onActive(next);
    };
    return html`<div ref=${ref} class="token-flow" role="listbox" tabindex="0" aria-label=${label} dir="auto"
      aria-activedescendant=${active >= 0 ? `${id}-${active}` : undefined}
      onKeyDown=${onKey} onFocus=${() => active < 0 && count > 0 && ref.current.matches(":focus-visible") && onActive(0)}
      onClick=${(event) => at(event) >= 0 && onActive(at(event))}
      onMouseOver=${(event) => onPeek?.(at(event))} onMouseLeave=${() => onPeek?.(-1)}
    >${chunks.map((chunk, index) => html`<${Chunk} key=${index} id=${id} tokens=${chunk} start=${index * CHUNK}
      cached=${cached} active=${active} marked=${marked} observe=${observe} />`)}</div>`;
  }

  /** Return the tokens in chunks; full chunks keep their identity while tokens are added. */
  function useChunks(tokens, count) {
    const cache = useRef({ tokens: null, chunks: [] });
    if (cache.current.tokens !== tokens) cache.current = { tokens, chunks: [] };
    const { chunks } = cache.current;
    if (chunks.length && chunks.at(-1).length < CHUNK) chunks.pop();
    for (let start = chunks.length * CHUNK; start < count; start += CHUNK) {
      chunks.push(tokens.slice(start, start + CHUNK));
    }
    return chunks;
  }

  /** The alternatives to one token, and what the grammar allowed there. */
  function TokenDetail({ token, at, cached, shows = "alternatives" }) {
    if (!token) return html`<p class="note">Point at a token, tap it, or use the arrow keys to see its ${shows}.</p>`;
    const probability = probabilityOf(token);
    const others = token.top ?? [];
    const listed = others.some((other) => other.id === token.id);
    const choices = listed || probability === null ? others : [...others, token];
    const rest = 1 - choices.reduce((sum, other) => sum + Math.exp(other.logprob), 0);
    return html`<div class="token-detail">
      <p class="token-name"><code class="token-text">${showText(token.text)}</code>
        ${probability !== null && html`<strong>${percent(probability)}</strong>`}</p>
      <p class="note">token ${token.id} at position ${at + 1}${isSpecial(token) ? ", special" : ""}${cached ? ", from the prefix cache" : ""}</p>
      ${token.forced && html`<p class="note forced-note">The grammar allowed only this token. The probabilities are those before it.</p>`}
      ${!token.forced && typeof token.allowed === "number" &&
        html`<p class="note">The grammar allowed ${token.allowed.toLocaleString("en")} tokens here. The probabilities are those before it.</p>`}
      ${choices.length > 0 && html`<table class="choices"><caption class="visually-hidden">Alternatives</caption>
        <tbody>${choices.map((other) => html`<tr class=${other.id === token.id ? "chosen" : ""}>
          <th scope="row"><code>${showText(other.text)}</code>${other.id === token.id && html`<span class="visually-hidden"> (chosen)</span>`}</th>
          <td class="meter"><svg aria-hidden="true" width="100%" height="8">
            <rect class="track" width="100%" height="8" rx="4" />
            <rect class="value" width=${`${Math.max(0.5, 100 * Math.exp(other.logprob))}%`} height="8" rx="4" /></svg></td>
          <td class="number">${percent(Math.exp(other.logprob))}</td></tr>`)}
          ${rest > 0.0005 && choices.length > 1 && html`<tr class="rest"><th scope="row">all others</th><td></td>
            <td class="number">${percent(rest)}</td></tr>`}
        </tbody></table>`}
    </div>`;
  }

  fllm.tokens = { TokenFlow, TokenDetail, showText, percent };
})();
