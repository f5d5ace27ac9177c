/** "Machine": what the server does now. It is asked each second while this tab is visible. */
(() => {
  "use strict";
  const { html, api, effect, signal, tabs } = fllm;
  const { Requests, Refused } = fllm.requests;
  const { Models, Replicas, AdminKey, adminKey, bytes } = fllm.admin;
  const { seconds } = fllm.phases;
  const INTERVAL = 1000; // milliseconds
  const SAMPLES = 300; // seconds of the charts
  const ROWS = 100; // requests and refusals that are kept

  const now = signal(null); // the last answer
  const problem = signal("");
  const denied = signal(false);
  /** Requests and refusals by id, the oldest first; and the times to first tokens, one for each answer. */
  const kept = signal({ requests: new Map(), refused: new Map(), first: [] });
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
    const key = adminKey.value || undefined;
    try {
      add(await api.json(`page/machine?since=${since}`, { key, cache: "no-store" }));
      problem.value = "";
      denied.value = false;
    } catch (error) {
      since = 0; // it may be another process from now on, which counts from 1
      problem.value = error.message;
      // Without a key, the dialog for it must not come back each second.
      denied.value = error.status === 401 && !key;
      if (error.status === 401) adminKey.value = "";
    } finally {
      asking = false;
    }
  }

  function add(answer) {
    const { requests, refused, first } = kept.value;
    since = answer.next < since ? 0 : answer.next;
    const running = new Set(answer.requests.filter((each) => each.is_running).map((each) => each.request_id));
    for (const [id, each] of requests) if (each.is_running && !running.has(id)) requests.delete(id);
    for (const each of answer.requests) requests.set(each.request_id, each);
    for (const each of answer.refused) refused.set(`${each.number}/${each.request_id}`, each);
    const time = answer.samples.at(-1)?.time ?? Date.now() / 1000;
    kept.value = {
      requests: latest(requests, "received_at"),
      refused: latest(refused, "time"),
      first: [...first.filter((each) => each.time < time), { time, ...answer.ttft }].slice(-SAMPLES),
    };
    now.value = { ...answer, time: Math.max(time, ...answer.requests.map((each) => each.received_at + each.total)) };
  }

  /** Return the latest entries of a map. */
  function latest(map, field) {
    return new Map([...map].sort(([, a], [, b]) => a[field] - b[field]).slice(-ROWS));
  }

  effect(() => {
    const wanted = tabs.current.value === "machine";
    clearInterval(timer);
    if (!wanted) return;
    poll();
    timer = setInterval(() => isVisible() && !denied.peek() && poll(), INTERVAL);
  });

  function Tab() {
    const answer = now.value;
    const canAdmin = Boolean(fllm.server.value?.can_admin);
    const newestFirst = (map) => [...map.values()].reverse();
    return html`<div class="panel machine"><header class="panel-head"><h1>The machine</h1>
        ${answer && !answer.sees_all && html`<p class="note">Requests of other clients are not listed.</p>`}</header>
      <p class=${problem.value ? "error banner" : "visually-hidden"} role="status">${problem}
        ${problem.value && (denied.value ? html` <button type="button" class="button small"
          onClick=${poll}>Try again</button>` : " It is asked again each second.")}</p>
      ${answer && !answer.is_healthy && !problem.value && html`<p class="error banner" role="status">The engine does not respond.</p>`}
      ${answer && html`<${Charts} answer=${answer} />
        <${Requests} requests=${newestFirst(kept.value.requests)} now=${answer.time} />
        <${Models} models=${answer.models} canAdmin=${canAdmin} />
        <${Replicas} replicas=${answer.replicas} canAdmin=${canAdmin} />
        <${Refused} refused=${newestFirst(kept.value.refused)} />`}
      <${AdminKey} /></div>`;
  }

  function Charts({ answer }) {
    const { samples, cache } = answer;
    const times = samples.map((each) => each.time);
    const first = kept.value.first;
    const series = (name, read, of = samples) => ({ name, values: of.map(read) });
    const rate = (each, at) => (at ? each.tokens / Math.max(each.time - samples[at - 1].time, 0.1) : null);
    const facts = [answer.memory ? `The engine has ${bytes(answer.memory)} of memory` : "Memory of the engine is not known"];
    const hits = Math.round((100 * cache.prefix_hits) / cache.prefix_queries);
    if (cache.prefix_queries) facts.push(`${hits} % of prompts from the prefix cache`);
    if (answer.preemptions) facts.push(`${answer.preemptions} preemptions`);
    return html`<div class="charts">
        <${fllm.Chart} title="Requests" least=${2} times=${times} format=${count}
          series=${[series("running", (each) => each.running), series("waiting", (each) => each.waiting)]} />
        <${fllm.Chart} title="Tokens per second" times=${times} format=${round} series=${[series("tokens/s", rate)]} />
        <${fllm.Chart} title="Time to first token" times=${first.map((each) => each.time)} format=${seconds}
          series=${[series("median", (each) => each.p50, first), series("99 %", (each) => each.p99, first)]} />
        <${fllm.Chart} title="KV cache in use" least=${0.1} times=${times} format=${percent}
          series=${[series("in use", (each) => (cache.blocks ? each.used_blocks / cache.blocks : 0))]} />
      </div>
      <p class="note">${facts.join(", ")}.</p>`;
  }

  function count(value) {
    return Number.isInteger(value) ? String(value) : "";
  }

  function round(value) {
    return String(Number(value.toFixed(value < 10 ? 1 : 0)));
  }

  function percent(value) {
    return `${Number((100 * value).toFixed(value < 0.1 ? 1 : 0))} %`;
  }

  fllm.machine = { poll, now, kept };
  tabs.add({ id: "machine", title: "Machine", component: Tab });
})();
