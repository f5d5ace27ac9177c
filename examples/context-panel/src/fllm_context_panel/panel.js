/** A panel of the page: how much of the context of a model a text fills. */

/** Milliseconds without a change of the text after which its tokens are counted. */
const DELAY = 300;

/**
 * Fill an element. The page calls it when the tab is opened.
 * @param {HTMLElement} element it is empty
 * @param {{fetch: Function}} page
 * @returns what the page calls when the tab is closed
 */
export function mount(element, page) {
  const text = make("textarea", { rows: 12, placeholder: "Paste a text" });
  const label = make("label", {}, "Text", text);
  const meter = make("meter", { min: 0, max: 1, value: 0 });
  meter.setAttribute("aria-label", "Share of the context");
  const count = make("output", {}, "0 tokens");
  element.replaceChildren(label, meter, count);

  let timer = 0;
  let asked = 0;
  const update = async () => {
    const number = ++asked;
    try {
      const tokens = await countTokens(page, text.value);
      if (number !== asked) return; // the text has changed since
      meter.value = tokens.count / tokens.max_model_len;
      count.textContent = describe(tokens);
    } catch (error) {
      count.textContent = `The tokens can't be counted: ${error.message}`;
    }
  };
  text.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(update, DELAY);
  });
  return () => clearTimeout(timer);
}

/** Return the number of tokens of a text, and the size of the context. */
export async function countTokens(page, text) {
  const response = await page.fetch("tokenize", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: text, add_special_tokens: false }),
  });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error?.message ?? `status ${response.status}`);
  return body;
}

/** Return a line about the tokens of a text. */
export function describe({ count, max_model_len: size }) {
  const share = ((100 * count) / size).toFixed(1);
  const rest = size - count;
  return rest < 0
    ? `${count} tokens: ${-rest} too many for the context of ${size}`
    : `${count} tokens: ${share} % of the context of ${size}; ${rest} are left`;
}

/** Return a new element with these properties and children. */
function make(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}
