/** The tab "Chat". */
(() => {
  "use strict";
  const { html, signal, api, tabs } = fllm;
  const answer = signal("");

  async function send(event) {
    event.preventDefault();
    answer.value = "";
    const content = new FormData(event.target).get("prompt");
    const body = { messages: [{ role: "user", content }], stream: true, max_tokens: 200 };
    for await (const { data } of api.stream("v1/chat/completions", body)) {
      answer.value += data.choices[0]?.delta.content ?? "";
    }
  }

  function Chat() {
    return html`<div class="chat"><p class="answer">${answer}</p>
      <form onSubmit=${send}><label>Message <input name="prompt" /></label> <button>Send</button></form></div>`;
  }

  tabs.add({ id: "chat", title: "Chat", component: Chat });
})();
