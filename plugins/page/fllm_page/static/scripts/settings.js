/** What the browser remembers, apart from conversations: signals that are kept in localStorage. */
(() => {
  "use strict";
  const { signal, effect } = fllm;
  const PREFIX = "fllm.";

  /** Return the storage, or null where the browser forbids it. */
  function storage(name) {
    try {
      return window[name];
    } catch {
      return null;
    }
  }

  /** Return a signal whose value, which JSON can express, is kept under this name. */
  function persist(name, initial, kept = storage("localStorage")) {
    const value = signal(read(kept, PREFIX + name, initial));
    effect(() => {
      const text = JSON.stringify(value.value);
      try {
        kept?.setItem(PREFIX + name, text);
      } catch {
        // The storage is full: the value lasts as long as the page.
      }
    });
    return value;
  }

  /** Return the stored value, if it is of the same kind as the initial one. */
  function read(kept, name, initial) {
    try {
      const value = JSON.parse(kept?.getItem(name) ?? "null");
      const fits = typeof value === typeof initial && Array.isArray(value) === Array.isArray(initial);
      return fits && value !== null ? value : initial;
    } catch {
      return initial;
    }
  }

  const settings = {
    persist,
    /** "auto", "light" or "dark". */
    theme: persist("theme", "auto"),
    /** The name of the chosen model; "" is the server's first one. */
    model: persist("model", ""),
    /** The API key. It lasts as long as the tab, unless the user asks to remember it. */
    rememberKey: persist("remember-key", false),
    key: signal(""),
    /** Whether requests ask for tokens, probabilities and the prompt ("look inside"). */
    inspect: persist("record-tokens", true),
  };

  const [session, local] = [storage("sessionStorage"), storage("localStorage")];
  settings.key.value = read(local, PREFIX + "key", "") || read(session, PREFIX + "key", "");
  effect(() => {
    const text = JSON.stringify(settings.key.value);
    try {
      (settings.rememberKey.value ? local : session)?.setItem(PREFIX + "key", text);
      if (!settings.rememberKey.value) local?.removeItem(PREFIX + "key");
    } catch {
      // As above.
    }
  });

  effect(() => {
    const theme = settings.theme.value;
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", theme);
  });

  fllm.settings = settings;
})();
