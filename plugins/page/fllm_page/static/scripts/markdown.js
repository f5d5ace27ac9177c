/**
 * Markdown from a model, which nobody trusts: marked reads it, and its tokens become elements here. No text is ever
 * read as HTML. HTML in markdown is shown as it was written, but for a few tags without attributes. Links lead to
 * http, https and mailto only; an image is a link, because it would be a request to another host.
 */
(() => {
  "use strict";
  const { h } = preact;
  const { html, Component, copy } = fllm;

  const BARE_TAG = /^<(\/?)(br|b|i|em|strong|u|s|sub|sup|kbd|mark)\s*\/?>$/i;
  const SAFE_URL = /^(?:https?:\/\/|mailto:)/i;
  const ENTITIES = {
    amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", times: "×", deg: "°", middot: "·",
    ndash: "–", mdash: "—", hellip: "…", rarr: "→", larr: "←", le: "≤", ge: "≥", ne: "≠", pm: "±", euro: "€",
  };
  const DEEPEST = 60; // nested elements; what is deeper is text
  const FARTHEST = 200; // tokens between a tag and its end

  /** Return a text with its character references replaced. */
  function decoded(text) {
    return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w{2,8}));/gi, (whole, decimal, hexadecimal, name) => {
      if (name) return Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : whole;
      const code = decimal ? Number(decimal) : parseInt(hexadecimal, 16);
      return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
    });
  }

  /** Return elements for tokens; between a tag and its end, inside an element of that name. */
  function elements(tokens, depth = 0) {
    if (depth > DEEPEST) return tokens.map((token) => token.raw);
    const found = [];
    for (let at = 0; at < tokens.length; at++) {
      const tag = openTag(tokens[at]);
      const end = tag ? endOf(tokens, at, tag) : -1;
      if (tag === "br") found.push(h("br"));
      else if (end > at) {
        found.push(h(tag, null, elements(tokens.slice(at + 1, end), depth + 1)));
        at = end;
      } else found.push(element(tokens[at], depth));
    }
    return found;
  }

  /** Return the name of a tag that begins an element, in lower case, or null. */
  function openTag(token) {
    const match = token.type === "html" && BARE_TAG.exec(token.raw.trim());
    return match && !match[1] ? match[2].toLowerCase() : null;
  }

  /** Return the index of the token that ends an element, or -1. */
  function endOf(tokens, start, name) {
    const last = Math.min(tokens.length, start + FARTHEST);
    for (let at = start + 1; at < last; at++) {
      if (tokens[at].type === "html" && tokens[at].raw.toLowerCase() === `</${name}>`) return at;
    }
    return -1;
  }

  /** Return the element for one token. */
  function element(token, depth = 0) {
    const inner = () => elements(token.tokens ?? [], depth + 1);
    switch (token.type) {
      case "space":
      case "def":
        return null;
      case "paragraph":
        return h("p", null, inner());
      case "heading":
        // The page has one heading of level 1, the title of the conversation.
        return h(`h${Math.min(6, token.depth + 1)}`, null, inner());
      case "blockquote":
      case "strong":
      case "em":
      case "del":
        return h(token.type, null, inner());
      case "hr":
      case "br":
        return h(token.type);
      case "code":
        return h("pre", { tabindex: 0 }, h("code", null, token.text));
      case "codespan":
        return h("code", null, token.text);
      case "escape":
        return token.text;
      case "checkbox":
        return token.checked ? "☑ " : "☐ ";
      case "list":
        return h(
          token.ordered ? "ol" : "ul",
          token.ordered && token.start !== 1 ? { start: token.start } : null,
          token.items.map((item) => h("li", null, elements(item.tokens, depth + 1))),
        );
      case "table":
        return table(token, depth);
      case "link":
        return link(token.href, inner());
      case "image":
        return link(token.href, [token.text || token.href]);
      case "text":
        return token.tokens ? inner() : decoded(token.text);
      default:
        return token.raw; // HTML, as it was written
    }
  }

  function link(href, children) {
    const url = decoded(href);
    if (!SAFE_URL.test(url) || !URL.canParse(url)) return h("span", null, children);
    return h("a", { href: url, rel: "noopener noreferrer", target: "_blank" }, children);
  }

  function table(token, depth) {
    const row = (cells, name) =>
      h("tr", null, cells.map(({ tokens, align }) => h(name, { align: align ?? null }, elements(tokens, depth + 1))));
    return html`<div class="scroll" tabindex="0" role="region" aria-label="Table"><table><thead>${row(token.header, "th")}</thead>
      <tbody>${token.rows.map((cells) => row(cells, "td"))}</tbody></table></div>`;
  }

  /** A block that is not code. It is made again only if its text changes. */
  class Block extends Component {
    shouldComponentUpdate(next) {
      return next.token.raw !== this.props.token.raw;
    }
    render({ token }) {
      return element(token);
    }
  }

  /** A block of code with its language and a button that copies it. */
  function Code({ text, lang }) {
    return html`<div class="code">
      <div class="code-bar"><span>${lang || "text"}</span>
        <button type="button" class="quiet" onClick=${() => copy(text)}>Copy<span class="visually-hidden"> code</span></button>
      </div>
      <pre tabindex="0"><code>${text}</code></pre>
    </div>`;
  }

  /** Return the blocks of a text; one that marked cannot read, such as 10,000 nested quotations, is one text. */
  function blocksOf(text) {
    try {
      return marked.lexer(text, { gfm: true }).filter((token) => token.raw);
    } catch {
      return [{ type: "paragraph", raw: text, tokens: [{ type: "html", raw: text }] }];
    }
  }

  /**
   * Markdown that may grow. While it grows, blocks before the last two stay as they are, and only the end is read
   * again: a block can still become part of the one before, such as the second item of a list.
   */
  class Markdown extends Component {
    settled = [];
    length = 0;

    /** Return the blocks of the text. */
    blocks({ text: given, growing }) {
      // marked reads line ends as "\n", and the lengths here must be of what it reads.
      const text = given.replace(/\r\n?/g, "\n");
      if (!growing || text.length < this.length) [this.settled, this.length] = [[], 0];
      const blocks = blocksOf(text.slice(this.length));
      if (!growing) return blocks.filter(isVisible);
      const last = blocks.map((token, at) => (isVisible(token) ? at : -1)).filter((at) => at >= 0).at(-2) ?? 0;
      for (const token of blocks.slice(0, last)) {
        this.length += token.raw.length;
        if (isVisible(token)) this.settled = [...this.settled, token];
      }
      return [...this.settled, ...blocks.slice(last).filter(isVisible)];
    }
    shouldComponentUpdate(next) {
      return next.text !== this.props.text || next.growing !== this.props.growing;
    }
    render() {
      return html`<div class="markdown">${this.blocks(this.props).map((token, at) =>
        token.type === "code"
          ? html`<${Code} key=${at} text=${token.text} lang=${token.lang} />`
          : html`<${Block} key=${at} token=${token} />`,
      )}</div>`;
    }
  }

  function isVisible(token) {
    return token.type !== "space" && token.type !== "def";
  }

  fllm.Markdown = Markdown;
})();
