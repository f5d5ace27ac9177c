/**
 * Markdown from a model, which nobody trusts. Three layers: HTML in it is shown as text, but for a few tags without
 * attributes; DOMPurify keeps only the elements and attributes below; the page's policy forbids all else.
 */
(() => {
  "use strict";
  const { html, Component, createRef, copy } = fllm;

  const BARE_TAG = /^<(\/?)(br|b|i|em|strong|u|s|sub|sup|kbd|mark)\s*\/?>$/i;
  const SAFE_URL = /^(?:https?:\/\/|mailto:)/i;
  const ALLOWED = {
    ALLOWED_TAGS: [
      "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "del",
      "b", "i", "u", "s", "sub", "sup", "kbd", "mark", "a", "table", "thead", "tbody", "tr", "th", "td",
    ],
    ALLOWED_ATTR: ["href", "align", "start"],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: SAFE_URL,
    RETURN_DOM_FRAGMENT: true,
  };

  DOMPurify.addHook("afterSanitizeAttributes", (node) => {
    if (node.nodeName !== "A") return;
    if (!SAFE_URL.test(node.getAttribute("href") ?? "")) return node.removeAttribute("href");
    node.setAttribute("rel", "noopener noreferrer");
    node.setAttribute("target", "_blank");
  });

  /** Return a text in which HTML has no meaning. */
  function escape(text) {
    return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
  }

  const markdown = new marked.Marked({
    gfm: true,
    renderer: {
      html({ text }) {
        return BARE_TAG.test(text.trim()) ? text : escape(text);
      },
      // An image would be a request to another host: a link takes its place.
      image({ href, text }) {
        return `<a href="${escape(href)}">${escape(text || href)}</a>`;
      },
      checkbox({ checked }) {
        return checked ? "☑ " : "☐ ";
      },
    },
  });

  /** Return the elements for a block of markdown. */
  function fragment(token) {
    const found = DOMPurify.sanitize(markdown.parser([token]), ALLOWED);
    for (const each of found.querySelectorAll("pre")) each.tabIndex = 0;
    return found;
  }

  /** A block that is not code. It is made again only if its text changes. */
  class Block extends Component {
    place = createRef();
    shouldComponentUpdate(next) {
      return next.token.raw !== this.props.token.raw;
    }
    componentDidMount() {
      this.place.current.replaceChildren(fragment(this.props.token));
    }
    componentDidUpdate() {
      this.componentDidMount();
    }
    render({ token }) {
      const wide = token.type === "table";
      return html`<div ref=${this.place} class=${wide ? "scroll" : null} tabindex=${wide ? 0 : null}></div>`;
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

  /**
   * Markdown that may grow. While it grows, blocks before the last two stay as they are, and only the end is read
   * again: a block can still become part of the one before, such as the second item of a list.
   */
  class Markdown extends Component {
    settled = [];
    length = 0;

    /** Return the blocks of the text. */
    blocks({ text, growing }) {
      if (!growing || text.length < this.length) [this.settled, this.length] = [[], 0];
      const blocks = markdown.lexer(text.slice(this.length)).filter((token) => token.raw);
      if (!growing) return blocks.filter(visible);
      const last = blocks.map((token, at) => (visible(token) ? at : -1)).filter((at) => at >= 0).at(-2) ?? 0;
      for (const token of blocks.slice(0, last)) {
        this.length += token.raw.length;
        if (visible(token)) this.settled = [...this.settled, token];
      }
      return [...this.settled, ...blocks.slice(last).filter(visible)];
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

  function visible(token) {
    return token.type !== "space" && token.type !== "def";
  }

  fllm.Markdown = Markdown;
})();
