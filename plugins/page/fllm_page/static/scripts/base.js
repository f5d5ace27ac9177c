/** The namespace of the page. Each script is a function that adds to it; there is no other global of ours. */
const fllm = {};

(() => {
  "use strict";
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

  const announcement = preactSignals.signal("");

  /** Have a screen reader say a text, and show it for a moment if `visible`. */
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
    html, render, Component, Fragment, createRef, newId, download, copy, announce, announcement, perFrame,
  });
})();
