/** "Machine": what the server does now. It is asked each second while this tab is visible. */
(() => {
  "use strict";
  const { html, api, effect, signal, tabs } = fllm;
  const { Requests, Refused } = fllm.requests;
  const { Models, Replicas, AdminKey, adminKey } = fllm.admin;
  const { seconds } = fllm.phases;
  const INTERVAL = 1000; // milliseconds
  const SAMPLES = 300; // of the charts
  const ROWS = 100; // requests and refusals that are kept

  const now = signal(null); // the last answer
  const problem = signal("");
  const kept = signal({ times: [], samples: [], requests: new Map(), refused: [] });
  let since = 0;
  let timer = null;
  let asking = false;

  function isVisible() {
    return tabs.current.value === "machine" && !document.hidden;
  }

  /** Ask the server once, and add the answer to what is kept. */
  async function poll() {
    if (asking) return;
    asking = true;
    try {
      const key = adminKey.value || undefined;
      add(await api.json(`page/machine?since=${since}`, { key, cache: "no-store" }));
      problem.value = "";
    } catch (error) {
      problem.value = error.message;
      if (error.status === 401) adminKey.value = "";
    } finally {
      asking = false;
    }
  }

  function add(answer) {
    const { times, samples, requests, refused } = kept.value;
    const last = answer.next ?? 0;
    const restarted = last < since;
    if (restarted) requests.clear();
    since = restarted ? 0 : last;
    for (const request of answer.requests) {
      requests.delete(request.request_id);
      requests.set(request.request_id, request);
    }
    for (const id of [...requests.keys()].slice(0, -ROWS)) requests.delete(id);
    kept.value = {
      times: [...times, performance.now() / 1000].slice(-SAMPLES),
      samples: [...samples, answer].slice(-SAMPLES),
      requests,
      refused: [...answer.refused.slice().reverse(), ...(restarted ? [] : refused)].slice(0, ROWS),
    };
    now.value = answer;
  }

  effect(() => {
    const wanted = tabs.current.value === "machine";
    clearInterval(timer);
    if (!wanted) return;
    poll();
    timer = setInterval(() => isVisible() && poll(), INTERVAL);
  });

  function Tab() {
    const answer = now.value;
    return html`<div class="panel machine"><header class="panel-head"><h1>The machine</h1></header>
      <p class=${problem.value ? "error banner" : "visually-hidden"} role="status">${problem.value && `${problem.value} Asked again each second.`}</p>
      ${answer && html`<${Charts} />
        <${Requests} requests=${[...kept.value.requests.values()].sort((a, b) => b.received_at - a.received_at)} now=${answer.time} />
        <${Models} models=${answer.models} canAdmin=${fllm.server.value?.can_admin} />
        <${Replicas} replicas=${answer.replicas ?? []} canAdmin=${fllm.server.value?.can_admin} />
        <${Refused} refused=${kept.value.refused} />`}
      <${AdminKey} /></div>`;
  }

  function Charts() {
    const { times, samples } = kept.value;
    const series = (name, read) => ({ name, values: samples.map((each) => read(each) ?? null) });
    const count = (value) => (Number.isInteger(value) ? String(value) : "");
    const percent = (value) => `${Math.round(100 * value)} %`;
    return html`<div class="charts">
      <${fllm.Chart} title="Requests" times=${times} format=${count} series=${[series("running", (each) => each.running), series("waiting", (each) => each.waiting)]} />
      <${fllm.Chart} title="Tokens per second" times=${times} format=${(value) => String(Number(value.toFixed(value < 10 ? 1 : 0)))} series=${[series("tokens/s", (each) => each.tokens_per_second)]} />
      <${fllm.Chart} title="Time to first token" times=${times} format=${seconds} series=${[series("median", (each) => each.ttft?.p50), series("95 %", (each) => each.ttft?.p95)]} />
      <${fllm.Chart} title="KV cache in use" times=${times} format=${percent} series=${[series("in use", (each) => each.cache_use)]} />
    </div>`;
  }

  fllm.machine = { poll, now, kept };
  tabs.add({ id: "machine", title: "Machine", component: Tab });
})();
