/** The namespace of the page. Each script is a function that adds to it; there is no other global of ours. */
const fllm = {};

(() => {
  "use strict";
  // Behind a proxy at `/llm`, addresses are relative to `/llm/`.
  const { pathname, search, hash } = location;
  if (!pathname.endsWith("/")) history.replaceState(null, "", `${pathname}/${search}${hash}`);

  const { h, render, Component, Fragment, createRef } = preact;

  /** Make elements from a tagged template: html`<p class="note">${text}</p>`. */
  const html = htm.bind(h);

  /** Return a new id for a conversation or a message. Works without a secure context, where randomUUID is missing. */
  function newId() {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** Offer a text as a file to save. */
  function download(name, text, type = "application/json") {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  /** Copy a text, also on a page without HTTPS, where the clipboard's interface is missing. */
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "visually-hidden";
      (document.querySelector("dialog[open]") ?? document.body).append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    announce("Copied");
  }

  const ICONS = {
    list: "M4 6h16M4 12h16M4 18h16",
    options: "M4 7h9m5 0h2M4 17h2m5 0h9M15.5 4.5v5M8.5 14.5v5",
    send: "M12 19V6m-6 5 6-6 6 6",
    stop: "M7 7h10v10H7z",
    plus: "M12 5v14M5 12h14",
    image: "M4 5h16v14H4zM4 16l5-5 4 4 2-2 5 5M15.5 9.5h.01",
    close: "M6 6l12 12M18 6L6 18",
    save: "M12 4v11m-5-5 5 5 5-5M5 20h14",
    down: "M12 5v13m-6-5 6 6 6-6",
    help: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5h.01",
    search: "M11 5a6 6 0 1 1 0 12 6 6 0 0 1 0-12zM15.5 15.5 20 20",
  };

  /** Return a picture for a button, which has a label of its own. */
  function icon(name) {
    return html`<svg class="picture" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;
  }

  const announcement = preactSignals.signal("");

  /** Have a screen reader say a text. */
  function announce(text) {
    announcement.value = "";
    setTimeout(() => (announcement.value = text), 30);
  }

  /** Return a function that calls `work` at most once per animation frame, or per second in a hidden page. */
  function perFrame(work) {
    let waiting = false;
    return () => {
      if (waiting) return;
      waiting = true;
      const call = () => ((waiting = false), work());
      if (document.hidden) setTimeout(call, 1000);
      else requestAnimationFrame(call);
    };
  }

  Object.assign(fllm, preactHooks, preactSignals, {
    html, icon, render, Component, Fragment, createRef, newId, download, copy, announce, announcement, perFrame,
  });
})();
