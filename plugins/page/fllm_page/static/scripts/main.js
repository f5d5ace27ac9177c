/** Show the page. */
(() => {
  "use strict";
  const { html, icon, render, tabs, Dialogs, helpShown, announcement } = fllm;

  function Page() {
    return html`
      <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
      <header class="bar">
        <span class="brand">furiosa-llm</span>
        <${tabs.TabList} />
        <span class="bar-end"><button type="button" class="icon" aria-label="Keyboard shortcuts" title="Keyboard (?)" onClick=${() => (helpShown.value = true)}>${icon("help")}</button><${tabs.ThemeSwitch} /></span>
      </header>
      <main id="main" tabindex="-1"><${tabs.Views} /></main>
      <div class="visually-hidden" role="status" aria-live="polite">${announcement}</div>
      <${Dialogs} />`;
  }

  /** Move the focus to the content; the URL's hash is for the router. */
  function skip(event) {
    event.preventDefault();
    document.getElementById("main").focus();
  }

  render(html`<${Page} />`, document.getElementById("page"));
  fllm.loadServer();
})();
