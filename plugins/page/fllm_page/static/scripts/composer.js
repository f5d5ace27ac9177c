/** The box in which the user writes, with images where the model takes them. */
(() => {
  "use strict";
  const { html, icon, signal, runs, conversation: tree, attempt, capabilitiesOf, useEffect, useRef, useLayoutEffect } = fllm;
  const IMAGE_TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif"];
  const MAX_IMAGE_BYTES = 20 * 2 ** 20;

  /** What is written and not sent yet, by conversation: {text, images}. */
  const drafts = signal({});
  /** Why nothing was sent. */
  const problem = (fllm.problem = signal(""));
  const NOTHING = { text: "", images: [] };

  function draft() {
    return drafts.value[runs.current.value.id] ?? NOTHING;
  }

  function setDraft(fields) {
    drafts.value = { ...drafts.value, [runs.current.value.id]: { ...draft(), ...fields } };
  }

  /** Add images to the message. */
  async function attach(files) {
    const images = [...files].filter((file) => file.type.startsWith("image/"));
    if (!images.length) return;
    if (capabilitiesOf(runs.current.value.options)?.images === false) {
      problem.value = "This model takes no images.";
      return;
    }
    for (const file of images) {
      if (!IMAGE_TYPES.includes(file.type)) problem.value = `${file.name}: PNG, JPEG, WebP and GIF can be sent.`;
      else if (file.size > MAX_IMAGE_BYTES) problem.value = `${file.name} is over 20 MB.`;
      else setDraft({ images: [...draft().images, await dataUrl(file)] });
    }
  }

  function dataUrl(file) {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(file);
    });
  }

  /** Send the message, or ask for an answer to the last one if nothing is written. */
  async function send() {
    const conversation = runs.current.value;
    const { text, images } = draft();
    if (runs.running.value.has(conversation.id) || (!text.trim() && !images.length)) return;
    const last = tree.path(conversation).at(-1);
    const parent = last?.id ?? "";
    const [added, node] = tree.add(conversation, { role: "user", parent, text, images });
    await attempt(() => {
      const ended = runs.answerTo(added, node.id);
      // Wrong options have thrown by now, and the text is still there.
      setDraft(NOTHING);
      fllm.follow();
      return ended;
    });
  }

  /** Stop the answer of the conversation that is shown. Return false if there is none. */
  function stop() {
    const run = runs.running.value.get(runs.current.value.id);
    run?.stop();
    return Boolean(run);
  }

  function onKey(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  }

  function onPaste(event) {
    const files = event.clipboardData?.files ?? [];
    if (!files.length) return;
    event.preventDefault();
    attach(files);
  }

  function Composer() {
    const area = useRef();
    const { text, images } = draft();
    const busy = runs.running.value.has(runs.current.value.id);
    const takesImages = capabilitiesOf(runs.current.value.options)?.images !== false;
    const focus = () => {
      // On a touch screen the keyboard would cover the page.
      if (matchMedia("(hover: hover) and (pointer: fine)").matches) area.current.focus({ preventScroll: true });
    };
    useEffect(() => void (document.activeElement === document.body && focus()), []);
    useLayoutEffect(() => {
      area.current.style.height = "auto";
      area.current.style.height = `${area.current.scrollHeight}px`;
    }, [text]);
    return html`<form class="composer" onSubmit=${(event) => (event.preventDefault(), focus(), send())}>
      ${problem.value && html`<p class="error" role="alert">${problem.value}</p>`}
      <div class="box">
        ${images.length > 0 && html`<ul class="thumbs">${images.map(
          (url, at) => html`<li key=${at}><img src=${url} alt=${`Image ${at + 1}`} />
            <button type="button" class="icon" aria-label=${`Remove image ${at + 1}`}
              onClick=${() => setDraft({ images: images.filter((_, other) => other !== at) })}>${icon("close")}</button></li>`,
        )}</ul>`}
        <textarea ref=${area} id="composer" rows="1" aria-label="Message" placeholder="Write a message" value=${text}
          onInput=${(event) => setDraft({ text: event.target.value })} onKeyDown=${onKey} onPaste=${onPaste}></textarea>
        <div class="composer-end">
          ${takesImages && html`<label class="icon" title="Add images">${icon("image")}<span class="visually-hidden">Add images</span>
            <input type="file" class="visually-hidden" accept=${IMAGE_TYPES.join()} multiple
              onChange=${(event) => (attach(event.target.files), (event.target.value = ""))} /></label>`}
          <span class="hint">Enter sends, Shift+Enter starts a new line</span>
          ${busy
            ? html`<button type="button" class="round" aria-label="Stop" title="Stop (Esc)" onClick=${stop}>${icon("stop")}</button>`
            : html`<button class="round" aria-label="Send" title="Send (Enter)" disabled=${!text.trim() && !images.length}>${icon("send")}</button>`}
        </div>
      </div>
    </form>`;
  }

  fllm.composer = { Composer, attach, stop };
})();
