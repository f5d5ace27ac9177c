/** The latest requests with their phases, and the log of refused ones. */
(() => {
  "use strict";
  const { html } = fllm;
  const { Bars, PHASES, seconds } = fllm.phases;

  function clock(time) {
    return new Date(1000 * time).toLocaleTimeString("en", { hour12: false });
  }

  /** Return the start of the axis, and its length in seconds: what the requests span, a minute at most. */
  function axisOf(requests, now) {
    const start = Math.max(Math.min(...requests.map((each) => each.received_at), now - 1), now - 60);
    return { start, span: now - start };
  }

  /** Return the phases of a request; the queue has all that precedes the prefill. */
  function phasesOf({ waited, queue, prefill, decode, total, is_running: isRunning }) {
    if (queue !== null) return { queue: waited + queue, prefill, decode };
    return { queue: isRunning ? total : waited, prefill: null, decode: null };
  }

  /** Return the phases of a request, cut at the start of the axis, and where they begin. */
  function placed(request, axis) {
    let cut = Math.max(0, axis.start - request.received_at);
    const phases = {};
    for (const [name, length] of Object.entries(phasesOf(request))) {
      phases[name] = Math.max(0, (length ?? 0) - cut);
      cut = Math.max(0, cut - (length ?? 0));
    }
    return { phases, start: Math.max(0, request.received_at - axis.start) };
  }

  function Status({ request }) {
    if (request.is_running) return html`<span class="state state-running">running</span>`;
    const failed = request.error !== null || (request.status ?? 0) >= 400;
    return html`<span class=${`state ${failed ? "state-error" : ""}`} title=${request.error ?? ""}>${request.status ?? "left"}</span>`;
  }

  function Requests({ requests, now }) {
    const axis = requests.length ? axisOf(requests, now) : null;
    return html`<section aria-labelledby="requests-title"><h2 id="requests-title">Requests</h2>
      ${!axis && html`<p class="note">No request yet.</p>`}
      ${axis && html`<div class="scroll" tabindex="0" role="group" aria-labelledby="requests-title">
        <table class="table requests"><thead><tr><th scope="col">Received</th><th scope="col">Request</th>
        <th scope="col">Status</th>
          <th scope="col" class="axis">last ${Math.round(axis.span)} s <span class="visually-hidden">as bars; the columns queue, prefill and decode say the same</span></th>
        ${PHASES.map((name) => html`<th scope="col" class="number"><i class=${`swatch phase-${name}`}></i>${name}</th>`)}
        <th scope="col" class="number">Prompt</th><th scope="col" class="number">Cached</th>
          <th scope="col" class="number">Generated</th></tr></thead>
      <tbody>${requests.map((request) => html`<tr key=${request.request_id}><td>${clock(request.received_at)}</td>
        <th scope="row"><span class="path">${request.path}</span><span class="note">${request.model}</span></th>
        <td><${Status} request=${request} /></td>
        <td class="axis"><${Bars} ...${placed(request, axis)} span=${axis.span} /></td>
        ${Object.values(phasesOf(request)).map((length) => html`<td class="number">${seconds(length)}</td>`)}
        <td class="number">${request.prompt_tokens}</td><td class="number">${request.cached_tokens}</td>
          <td class="number">${request.generated_tokens}</td></tr>`)}
      </tbody></table></div>`}</section>`;
  }

  function Refused({ refused }) {
    return html`<section aria-labelledby="refused-title"><h2 id="refused-title">Refused requests</h2>
      ${!refused.length && html`<p class="note">None was refused.</p>`}
      ${refused.length > 0 && html`<div class="scroll" tabindex="0" role="group" aria-labelledby="refused-title">
        <table class="table"><thead><tr><th scope="col">Time</th><th scope="col">Request</th><th scope="col">Status</th>
        <th scope="col">Reason</th></tr></thead>
      <tbody>${refused.map((each) => html`<tr><td>${clock(each.time)}</td><th scope="row">
        <span class="path">${each.method} ${each.path}</span></th>
        <td>${each.status}${each.code && html` <code>${each.code}</code>`}</td><td>${each.message}</td></tr>`)}</tbody>
          </table></div>`}</section>`;
  }

  fllm.requests = { Requests, Refused };
})();
