/** The tabs, a router by the URL's hash (`#chat`, `#machine`), and the frame around them. */
(() => {
  "use strict";
  const { html, signal, effect, settings, useRef } = fllm;

  /** {id, title, component, badge?}: a component is called without arguments while its tab is shown. */
  const list = signal([]);
  const current = signal("");

  /** Add a tab at the end. */
  function add(tab) {
    list.value = [...list.value.filter((each) => each.id !== tab.id), tab];
    follow();
  }

  /** Show the tab that the URL names, or the first one. */
  function follow() {
    const name = location.hash.slice(1).split("/")[0];
    const found = list.value.find((each) => each.id === name) ?? list.value[0];
    current.value = found?.id ?? "";
  }

  /** Show a tab: `fllm.view("machine")`. What follows a slash is for the tab: `fllm.view("inside/ID")`. */
  function view(name) {
    location.hash = name;
    follow();
  }

  addEventListener("hashchange", follow);
  effect(() => {
    const tab = list.value.find((each) => each.id === current.value);
    document.title = tab ? `${tab.title} · furiosa-llm` : "furiosa-llm";
  });

  /** Move between tabs with the arrow keys, as in the ARIA pattern "tabs". */
  function onKey(event) {
    const ids = list.value.map((each) => each.id);
    const at = ids.indexOf(current.value);
    const target = {
      ArrowRight: ids[(at + 1) % ids.length],
      ArrowLeft: ids[(at - 1 + ids.length) % ids.length],
      Home: ids[0],
      End: ids[ids.length - 1],
    }[event.key];
    if (!target) return;
    event.preventDefault();
    view(target);
    document.getElementById(`tab-${target}`)?.focus();
  }

  /** The row of tabs. */
  function TabList() {
    return html`<div class="tabs" role="tablist" aria-label="Views" onKeyDown=${onKey}>
      ${list.value.map(
        ({ id, title }) => html`<button
          key=${id} id=${`tab-${id}`} role="tab" class="tab" type="button"
          aria-selected=${String(id === current.value)} aria-controls=${`view-${id}`}
          tabindex=${id === current.value ? 0 : -1} onClick=${() => view(id)}>${title}</button>`,
      )}
    </div>`;
  }

  /** The views: each is made when its tab is first shown, and stays. */
  function Views() {
    const seen = useRef(new Set()).current;
    seen.add(current.value);
    return list.value.map(
      ({ id, component: View }) => html`<section
        key=${id} id=${`view-${id}`} class="view" role="tabpanel" tabindex="0" aria-labelledby=${`tab-${id}`}
        hidden=${id !== current.value}>${seen.has(id) && html`<${View} />`}</section>`,
    );
  }

  const THEMES = { auto: "◐", light: "☀", dark: "☾" };

  /** The switch between the themes. */
  function ThemeSwitch() {
    const names = Object.keys(THEMES);
    const theme = settings.theme.value;
    const next = names[(names.indexOf(theme) + 1) % names.length];
    return html`<button class="icon" type="button" aria-label=${`Theme: ${theme}. Change to ${next}`}
      title=${`Theme: ${theme}`} onClick=${() => (settings.theme.value = next)}>${THEMES[theme]}</button>`;
  }

  fllm.tabs = { add, list, current, TabList, Views, ThemeSwitch };
  fllm.view = view;
})();
