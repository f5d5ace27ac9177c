/** Show the page. */
(() => {
  "use strict";
  const { html, render, tabs, signal, api, announcement } = fllm;

  /** What `page/server` says of the server, or null before it answers. */
  fllm.server ??= signal(null);

  function Page() {
    return html`
      <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
      <header class="bar">
        <span class="brand">furiosa-llm</span>
        <${tabs.TabList} />
        <span class="bar-end"><${tabs.ThemeSwitch} /></span>
      </header>
      <main id="main" tabindex="-1"><${tabs.Views} /></main>
      <div class="visually-hidden" role="status" aria-live="polite">${announcement}</div>`;
  }

  /** Move the focus to the content; the URL's hash is for the router. */
  function skip(event) {
    event.preventDefault();
    document.getElementById("main").focus();
  }

  render(html`<${Page} />`, document.getElementById("page"));
})();
